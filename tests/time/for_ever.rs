//! TM2: deadlines that never come.

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use std::{mem, thread};

use tamam::time::sleep;

use crate::common::poll_once;
use crate::{MS, never, registered, run};

/// TM2. Nothing overflows, nothing fires, and the thread sleeps: not a turn is taken for it.
#[test]
fn tm2_never_is_never() {
    for number in 0..never().len() {
        run(|| {
            let (name, mut never) = never().into_iter().nth(number).expect("so many there are");
            eprintln!("-- {name}");
            async move {
                assert!(poll_once(&mut never).await.is_pending());
                // Wake-ups come from a thread, so that no timer but this one is there.
                let (waker_out, waker_in) = std::sync::mpsc::channel::<Waker>();
                let thread = thread::spawn(move || {
                    let waker = waker_in.recv().expect("the task sends its waker");
                    thread::sleep(20 * MS);
                    waker.wake();
                });
                let before = tamam::metrics();
                let mut first = true;
                poll_fn(|cx| {
                    assert!(never.as_mut().poll(cx).is_pending(), "it fired");
                    if !mem::take(&mut first) {
                        return Poll::Ready(());
                    }
                    waker_out.send(cx.waker().clone()).expect("the thread listens");
                    Poll::Pending
                })
                .await;
                let after = tamam::metrics();
                // Three are enough. A ring that this thread has closed, of the run before this,
                // still interrupts it (EINTR) a few times while the kernel takes it down.
                assert!(after.turns - before.turns < 50, "the thread did not sleep");
                assert_eq!(after.timers, 1);
                assert!(poll_once(&mut never).await.is_pending());
                thread.join().expect("it does not panic");
            }
        });
    }
}

/// TM2. Far deadlines do not hide near ones, and can be brought near.
#[test]
fn tm2_far_deadlines_beside_near_ones() {
    run(|| async {
        let mut far = never();
        for (name, future) in &mut far {
            assert!(poll_once(future).await.is_pending(), "{name}");
        }
        let before = Instant::now();
        sleep(2 * MS).await;
        assert!(before.elapsed() >= 2 * MS);

        let mut moved = sleep(Duration::MAX);
        assert!(poll_once(&mut moved).await.is_pending());
        let deadline = Instant::now() + 2 * MS;
        moved.reset(deadline);
        moved.await;
        assert!(Instant::now() >= deadline);
        drop(far);
        assert_eq!(registered(), 0);
    });
}
