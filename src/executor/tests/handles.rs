//! What a `JoinHandle` and an `AbortHandle` do and say, at any time in the life of a task.

use core::future::pending;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::super::{AbortHandle, JoinError, JoinHandle, TaskExecutor, yield_now};
use super::{Count, Noted, Trace, answer, ask, executor, run_until_idle};

#[test]
fn tk1_a_handle_after_the_executor_is_gone() {
    let executor = executor();
    let mut finished = executor.spawn(async { 7 });
    run_until_idle(&executor);
    let mut waiting = executor.spawn(pending::<()>());
    let mut unpolled = executor.spawn(pending::<()>());
    let abort = waiting.abort_handle();
    drop(executor);
    assert_eq!(answer(&mut finished).unwrap(), 7);
    assert!(waiting.is_finished() && abort.is_finished());
    abort.abort();
    assert!(answer(&mut waiting).unwrap_err().is_cancelled());
    assert!(answer(&mut unpolled).unwrap_err().is_cancelled());
    let again = catch_unwind(AssertUnwindSafe(|| ask(&mut finished)));
    assert!(again.is_err(), "polled after the result");
}

#[test]
fn tk2_abort_of_idle_queued_and_finished() {
    for entered in [true, false] {
        let executor = executor();
        let guard = entered.then(|| executor.enter());
        let trace = Trace::default();
        let noted = Noted(trace.clone(), "idle");
        let mut idle = executor.spawn(async move {
            let _noted = noted;
            pending::<()>().await
        });
        run_until_idle(&executor);
        let noted = Noted(trace.clone(), "queued");
        let mut queued: JoinHandle<()> = executor.spawn(async move {
            let _noted = noted;
            unreachable!("never polled")
        });
        idle.abort();
        idle.abort();
        queued.abort();
        assert!(!idle.is_finished() && !queued.is_finished());
        assert!(trace.borrow().is_empty(), "nothing is dropped inside abort");
        run_until_idle(&executor);
        assert_eq!(*trace.borrow(), ["drop queued", "drop idle"]);
        assert!(answer(&mut idle).unwrap_err().is_cancelled());
        assert!(answer(&mut queued).unwrap_err().is_cancelled());

        let mut finished = executor.spawn(async { 3 });
        run_until_idle(&executor);
        finished.abort();
        run_until_idle(&executor);
        assert_eq!(answer(&mut finished).unwrap(), 3);
        assert_eq!(executor.tasks(), 0);
        drop(guard);
    }
}

#[test]
fn tk2_is_finished_only_after_the_drop() {
    struct Looks(Rc<RefCell<Option<AbortHandle>>>, Trace);
    impl Drop for Looks {
        fn drop(&mut self) {
            let finished = self.0.borrow().as_ref().unwrap().is_finished();
            self.1.borrow_mut().push(format!("finished in drop: {finished}"));
            self.0.borrow().as_ref().unwrap().abort(); // no effect
        }
    }
    let (executor, trace) = (executor(), Trace::default());
    let own = Rc::new(RefCell::new(None));
    let looks = Looks(own.clone(), trace.clone());
    let handle = executor.spawn(async move {
        let _looks = looks;
        pending::<()>().await
    });
    *own.borrow_mut() = Some(handle.abort_handle());
    handle.abort();
    run_until_idle(&executor);
    assert!(handle.is_finished());
    assert_eq!(*trace.borrow(), ["finished in drop: false"]);
    own.borrow_mut().take();
}

#[test]
fn tk3_abort_of_oneself() {
    let executor = executor();
    let _entered = executor.enter();
    let own = Rc::new(RefCell::new(None::<AbortHandle>));
    let mine = own.clone();
    let mut ready = executor.spawn(async move {
        mine.borrow().as_ref().unwrap().abort();
        5
    });
    *own.borrow_mut() = Some(ready.abort_handle());
    run_until_idle(&executor);
    assert_eq!(answer(&mut ready).unwrap(), 5);

    let mine = own.clone();
    let mut waits: JoinHandle<()> = executor.spawn(async move {
        mine.borrow().as_ref().unwrap().abort();
        yield_now().await;
        unreachable!("ended at the yield");
    });
    *own.borrow_mut() = Some(waits.abort_handle());
    run_until_idle(&executor);
    assert!(answer(&mut waits).unwrap_err().is_cancelled());
}

#[test]
fn tk6_a_dropped_handle() {
    let (executor, trace) = (executor(), Trace::default());
    for name in ["detached", "forgotten", "dropped late"] {
        let noted = Noted(trace.clone(), name);
        let handle = executor.spawn(async move { noted });
        match name {
            "detached" => drop(handle),
            "forgotten" => core::mem::forget(handle),
            _ => {
                run_until_idle(&executor);
                assert_eq!(*trace.borrow(), ["drop detached"]);
                drop(handle);
            }
        }
    }
    drop(executor);
    assert_eq!(*trace.borrow(), ["drop detached", "drop dropped late"]);
}

#[test]
fn a_handle_polled_while_its_executor_dies() {
    // 1 the handle is polled, 2 it clones the waker, 3 which drops the executor: no wake can come.
    thread_local!(static VICTIM: RefCell<Option<TaskExecutor>> = const { RefCell::new(None) });
    struct Inner;
    impl Wake for Inner {
        fn wake(self: Arc<Self>) {}
    }
    let executor = executor();
    let mut handle = executor.spawn(pending::<()>());
    let mut victim = Some(executor);
    // A join waker whose drop ends the executor stands in for a clone that does: both are foreign.
    struct Killer;
    impl Wake for Killer {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Killer {
        fn drop(&mut self) {
            VICTIM.take();
        }
    }
    let killer = Waker::from(Arc::new(Killer));
    assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&killer)).is_pending());
    drop(killer); // the handle has the last one
    VICTIM.set(victim.take());
    let other = Waker::from(Arc::new(Inner));
    let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&other));
    assert!(matches!(polled, Poll::Ready(Err(error)) if error.is_cancelled()));
}

#[test]
fn a_registered_join_waker_stays_if_it_would_do_the_same() {
    let executor = executor();
    let mut handle = executor.spawn(async {});
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    for _ in 0..3 {
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(Arc::strong_count(&count), 3);
    }
    run_until_idle(&executor);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&count), 2);
}

#[test]
fn errors_say_what_happened() {
    fn sync<T: Send + Sync + 'static>(_: &T) {}
    let executor = executor();
    let mut formatted = executor.spawn(async {
        let why = 3;
        if why == 3 {
            panic!("because of {why}")
        }
    });
    let mut other = executor.spawn(async {
        if true {
            panic_any(5_u8)
        }
    });
    let mut cancelled = executor.spawn(pending::<()>());
    cancelled.abort();
    run_until_idle(&executor);
    let error = answer(&mut formatted).unwrap_err();
    sync(&error);
    assert_eq!(error.to_string(), format!("task {} panicked: because of 3", formatted.id()));
    assert!(format!("{error:?}").starts_with("JoinError::Panic(TaskId("));
    let io = std::io::Error::from(error);
    assert!(io.to_string().ends_with("because of 3"));
    assert!(io.get_ref().unwrap().downcast_ref::<JoinError>().unwrap().is_panic());
    let error = answer(&mut other).unwrap_err();
    assert_eq!(error.to_string(), format!("task {} panicked", error.id()));
    assert_eq!(*error.try_into_panic().unwrap().downcast::<u8>().unwrap(), 5);
    let error = answer(&mut cancelled).unwrap_err().try_into_panic().unwrap_err();
    assert_eq!(error.to_string(), format!("task {} was cancelled", error.id()));
    assert!(catch_unwind(AssertUnwindSafe(|| error.into_panic())).is_err());
}
