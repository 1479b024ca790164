//! A panic of one task, or of the main future, harms no other.

use core::future::{Future, pending, poll_fn};
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::task::Wake;

use super::super::yield_now;
use super::{Bomb, Nested, Noted, Trace, answer, executor, message, run_until_idle};

#[test]
fn tk4_panics_hurt_nobody_else() {
    let executor = executor();
    let _entered = executor.enter();
    let mut in_poll = executor.spawn(async {
        if true {
            panic_any("poll")
        }
    });
    let mut in_drop = executor.spawn(async {
        let bomb = Bomb("drop");
        poll_fn(|_| Poll::Ready(())).await;
        core::mem::forget(bomb);
        Kept(Bomb("kept"))
    });
    // The future itself is what panics in its drop, after it gave its output.
    struct Fused(#[allow(dead_code)] Bomb);
    impl Future for Fused {
        type Output = u8;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            Poll::Ready(1)
        }
    }
    let mut after_ready = executor.spawn(Fused(Bomb("after ready")));
    let mut aborted = executor.spawn(Fused(Bomb("aborted")));
    aborted.abort();
    struct Both(#[allow(dead_code)] Bomb);
    impl Future for Both {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic_any("first")
        }
    }
    let mut both = executor.spawn(Both(Bomb("second")));
    drop(executor.spawn(async { Bomb("output, detached") }));
    let late = executor.spawn(async { Bomb("output, handle dropped later") });
    drop(executor.spawn(async {
        if true {
            panic_any(Nested(3))
        }
    }));
    let nested = executor.spawn(async {
        if true {
            panic_any(Nested(3))
        }
    });
    let mut well = executor.spawn(async {
        yield_now().await;
        9
    });
    run_until_idle(&executor);
    assert_eq!(executor.tasks(), 0);
    assert_eq!(message(answer(&mut in_poll).unwrap_err()), "poll");
    let Ok(Kept(bomb)) = answer(&mut in_drop) else { panic!("an output that was not dropped") };
    core::mem::forget(bomb);
    assert_eq!(message(answer(&mut after_ready).unwrap_err()), "after ready");
    assert_eq!(message(answer(&mut aborted).unwrap_err()), "aborted");
    assert_eq!(message(answer(&mut both).unwrap_err()), "first");
    drop(late);
    drop(nested);
    assert_eq!(answer(&mut well).unwrap(), 9);
}

struct Kept(Bomb);

#[test]
fn tk4_panics_in_close() {
    let trace = Trace::default();
    let executor = executor();
    let noted = Noted(trace.clone(), "first");
    drop(executor.spawn(async move {
        let _both = (noted, Bomb("in close"));
        pending::<()>().await
    }));
    let noted = Noted(trace.clone(), "second");
    drop(executor.spawn(async move {
        let _noted = noted;
        pending::<()>().await
    }));
    run_until_idle(&executor);
    executor.close();
    assert_eq!(*trace.borrow(), ["drop first", "drop second"]);
}

#[test]
fn tk4_a_join_waker_that_panics() {
    struct Angry;
    impl Wake for Angry {
        fn wake(self: Arc<Self>) {
            panic_any("angry");
        }
    }
    let executor = executor();
    let mut handle = executor.spawn(async { 1 });
    let waker = Waker::from(Arc::new(Angry));
    assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
    run_until_idle(&executor);
    assert_eq!(answer(&mut handle).unwrap(), 1);
}

#[test]
fn tk5_a_panic_of_the_main_future() {
    let executor = executor();
    let _entered = executor.enter();
    let mut task = executor.spawn(async {
        yield_now().await;
        4
    });
    let stale = {
        let main = executor.main_task();
        let run = || executor.run_ready(128, &main, &mut |_| panic_any("main"));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "main");
        main.waker().wake(); // ended: nothing happens
        main.waker()
    };
    stale.wake();
    assert_eq!(executor.tasks(), 1);
    let main = executor.main_task();
    let flow = executor.run_ready(128, &main, &mut |_| ControlFlow::Break(()));
    assert!(flow.is_break());
    drop(main);
    run_until_idle(&executor);
    assert_eq!(answer(&mut task).unwrap(), 4);
}
