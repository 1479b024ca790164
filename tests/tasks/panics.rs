//! TK4, TK5: panics of tasks, of what they drop, and of the main future.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::sleep;
use tamam::{JoinError, JoinHandle, yield_now};

use crate::{Trace, answer, common, each, is_cancelled, rounds, run};

/// Panics when dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(self.0);
    }
}

/// A panic payload whose drop panics with one of its kind, so many times.
struct Nested(u32);

impl Drop for Nested {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Nested(self.0 - 1));
        }
    }
}

/// A waker that panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

/// The payload of a task's panic.
fn message<T>(result: Result<T, JoinError>) -> &'static str {
    let error = result.err().expect("the task panicked");
    assert!(error.is_panic() && !error.is_cancelled());
    *error.into_panic().downcast::<&'static str>().expect("these tests panic with a str")
}

/// TK4. Wherever a task panics, its handle says so and everybody else goes on.
#[test]
fn tk4_panics_hurt_nobody_else() {
    type Spawn = fn() -> JoinHandle<()>;
    /// What it is, how to spawn it, whether it has to be aborted, and the payload reported.
    const CASES: [(&str, Spawn, bool, &str); 6] = [
        ("in the first poll", || tamam::spawn(async { panic_any("poll") }), false, "poll"),
        (
            "in a later poll",
            || {
                tamam::spawn(async {
                    sleep(Duration::from_millis(1)).await;
                    panic_any("later")
                })
            },
            false,
            "later",
        ),
        (
            "in the future's drop, after its end",
            || {
                let bomb = Bomb("drop");
                let mut bomb = Some(bomb);
                tamam::spawn(poll_fn(move |_| {
                    let _ = &mut bomb;
                    Poll::Ready(())
                }))
            },
            false,
            "drop",
        ),
        (
            "in the future's drop, by an abort",
            || {
                let bomb = Bomb("aborted");
                tamam::spawn(async move {
                    let _bomb = bomb;
                    pending().await
                })
            },
            true,
            "aborted",
        ),
        (
            "in the future's drop, never polled",
            || {
                let bomb = Bomb("unpolled");
                let task = tamam::spawn(async move { drop(bomb) });
                task.abort();
                task
            },
            false,
            "unpolled",
        ),
        (
            "in poll, then in the drop: the first is told",
            || {
                let mut bomb = Some(Bomb("second"));
                tamam::spawn(poll_fn(move |_| {
                    let _ = &mut bomb;
                    panic_any("first")
                }))
            },
            false,
            "first",
        ),
    ];
    run(|| async {
        for (name, spawn, aborts, payload) in CASES {
            eprintln!("-- {name}");
            let counter = Rc::new(Cell::new(0));
            let bystander = |count: Rc<Cell<u32>>| async move {
                for _ in 0..10 {
                    yield_now().await;
                    count.set(count.get() + 1);
                }
            };
            let before = tamam::spawn(bystander(counter.clone()));
            let task = spawn();
            let after = tamam::spawn(bystander(counter.clone()));
            if aborts {
                yield_now().await;
                task.abort();
            }
            assert_eq!(message(task.await), payload);
            before.await.expect("a bystander");
            after.await.expect("a bystander");
            assert_eq!(counter.get(), 20);
            assert_eq!(tamam::metrics().tasks, 0);
        }
    });
}

/// TK4. An output whose drop panics, whenever it is dropped unseen.
#[test]
fn tk4_panic_in_the_outputs_drop() {
    run(|| async {
        // Detached before the end: dropped by the task.
        drop(tamam::spawn(async { Bomb("detached") }));
        rounds().await;
        // Dropped with its handle.
        let task = tamam::spawn(async { Bomb("with its handle") });
        rounds().await;
        assert!(task.is_finished());
        drop(task);
        // An end that nobody waits for, with both: a panic in the drop outweighs the output.
        let mut bomb = Some(Bomb("future"));
        let task = tamam::spawn(poll_fn(move |_| {
            let _ = &mut bomb;
            Poll::Ready(Bomb("output"))
        }));
        assert_eq!(message(task.await), "future");
        assert_eq!(tamam::metrics().tasks, 0);
    });
}

/// TK4. A payload whose drop panics, with payloads that do the same: wherever it is dropped.
#[test]
fn tk4_payload_whose_drop_panics() {
    run(|| async {
        for depth in [1, 2, 5] {
            let spawn = || tamam::spawn(async move { panic_any(Nested(depth)) });
            drop(spawn()); // detached: the payload is dropped by the task
            let finished = spawn();
            let awaited = spawn();
            let inspected = spawn();
            rounds().await;
            drop(finished); // by the handle
            let error: JoinError = awaited.await.expect_err("it panicked");
            assert!(error.is_panic() && error.to_string().ends_with("panicked"));
            drop(error); // by the error
            drop(std::io::Error::from(inspected.await.expect_err("it panicked")));
        }
    });
}

/// TK4. A payload can be had and thrown again; the error names task and message.
#[test]
fn tk4_error_tells_task_and_message() {
    run(|| async {
        let task: JoinHandle<()> = tamam::spawn(async { panic!("{} and {}", "this", "that") });
        let id = task.id();
        let error: JoinError = task.await.expect_err("it panicked");
        assert_eq!(error.id(), id);
        assert_eq!(error.to_string(), format!("task {id} panicked: this and that"));
        assert!(format!("{error:?}").contains("this and that"));
        let payload = error.try_into_panic().expect("it is a panic");
        let again: JoinHandle<()> = tamam::spawn(async move { std::panic::resume_unwind(payload) });
        let error: JoinError = again.await.expect_err("it panicked again");
        assert!(error.to_string().ends_with("panicked: this and that"));

        let cancelled = tamam::spawn(pending::<()>());
        cancelled.abort();
        let error = cancelled.await.expect_err("it was aborted");
        assert!(error.to_string().ends_with("was cancelled"));
        let error = error.try_into_panic().expect_err("it is no panic");
        let error = catch_unwind(AssertUnwindSafe(|| error.into_panic()));
        assert!(error.is_err(), "a cancelled task has no payload");
    });
}

/// TK4. The hook reports every panic, those that are caught and dropped as well.
#[test]
fn tk4_hook_reports_each_panic_once() {
    common::alone("panics::tk4_hook_reports_each_panic_once", || {
        each::engine(|runtime| {
            static REPORTED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
            std::panic::set_hook(Box::new(|info| {
                let payload = info.payload().downcast_ref::<&'static str>().copied();
                REPORTED.lock().expect("not poisoned").push(payload.unwrap_or("not a str"));
            }));
            runtime().block_on(async {
                let panics: JoinHandle<()> = tamam::spawn(async { panic_any("poll") });
                assert!(panics.await.is_err_and(|error| error.is_panic()));
                drop(tamam::spawn(async { Bomb("output") }));
                let bomb = Bomb("future");
                tamam::spawn(async move {
                    let _bomb = bomb;
                    pending::<()>().await
                });
                rounds().await;
            });
            drop(std::panic::take_hook());
            let reported = mem::take(&mut *REPORTED.lock().expect("not poisoned"));
            assert_eq!(reported, ["poll", "output", "future"]);
        });
    });
}

/// TK4. The runtime goes, and one future after the other panics: each is dropped, in the order of
/// the spawns, and nothing unwinds out of the drop.
#[test]
fn tk4_panics_while_the_runtime_goes() {
    each::engine(|runtime| {
        let runtime = runtime();
        let trace = Trace::default();
        let handles: Vec<_> = ["first", "second", "third"]
            .into_iter()
            .map(|name| {
                let (noted, bomb) = (trace.guard(name), Bomb(name));
                runtime.spawn(async move {
                    let _bomb = bomb;
                    let _noted = noted; // dropped first
                    pending::<()>().await
                })
            })
            .collect();
        runtime.block_on(yield_now());
        drop(runtime);
        assert_eq!(trace.take(), ["drop first", "drop second", "drop third"]);
        let told: Vec<_> = handles.into_iter().map(|handle| message(answer(handle))).collect();
        assert_eq!(told, ["first", "second", "third"]);
    });
}

/// TK4, for code of others in a wake: a handle polled with a waker that panics.
#[test]
fn tk4_join_waker_that_panics() {
    run(|| async {
        let mut task = tamam::spawn(yield_now());
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        let bystander = tamam::spawn(async {
            rounds().await;
            8
        });
        assert_eq!(bystander.await.expect("a bystander"), 8);
        task.await.expect("the task itself did not panic");
    });
}

/// TK4, for code of others in a wake. 1 sleeps are polled with a waker that panics; 2 between them
/// a task sleeps until the same moment; 3 wherever the panics go, that task's wake is not lost.
#[test]
fn tk4_timer_waker_that_panics_takes_no_wake_along() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        let now = Instant::now();
        let waker = Waker::from(Arc::new(Panics));
        let panicking = || {
            let mut timer = Box::pin(sleep(Duration::MAX));
            assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            timer.reset(now); // due, and noticed when the turn ends
            timer
        };
        let (task, _timers) = runtime.block_on(async {
            let before = panicking();
            let task = tamam::spawn(async move {
                let mut timer = Box::pin(sleep(Duration::MAX));
                assert!(common::poll_once(&mut timer).await.is_pending());
                timer.reset(now);
                timer.await;
            });
            yield_now().await;
            (task, [before, panicking()])
        });
        // Unwinding to the caller is one way to deal with it, containing it another.
        for _ in 0..3 {
            let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(rounds())));
        }
        assert!(task.is_finished(), "its wake was lost");
        assert_eq!(runtime.metrics().timers, 0);
    });
}

/// TK5. 1 tasks, a timer and a receive wait; 2 the main future panics; 3 it unwinds to the caller
/// of `block_on`, and the future's own drop may still spawn; 4 nothing is left of the context;
/// 5 the next `block_on` goes on where the tasks were.
#[test]
fn tk5_panic_of_the_main_future() {
    each::mixed(|runtime| {
        struct Spawns(Rc<Cell<bool>>);
        impl Drop for Spawns {
            fn drop(&mut self) {
                let ran = self.0.clone();
                tamam::spawn(async move { ran.set(true) });
            }
        }
        let _watchdog = common::Watchdog::start();
        let (runtime, other) = (runtime(), runtime());
        let (stream, mut peer) = runtime.block_on(common::pair());
        let ran = Rc::new(Cell::new(false));
        let polls = Rc::new(Cell::new(0));
        let counts = runtime.spawn({
            let polls = polls.clone();
            async move {
                loop {
                    polls.set(polls.get() + 1);
                    yield_now().await;
                }
            }
        });
        let receives = runtime.spawn(async move { stream.recv().await });
        let sleeps = runtime.spawn(sleep(Duration::from_millis(5)));
        for round in 0..3 {
            let _guard = other.enter();
            let spawns = Spawns(ran.clone());
            let caught = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let _spawns = spawns;
                    rounds().await;
                    panic_any(round)
                })
            }));
            let payload = caught.expect_err("it panicked");
            assert_eq!(*payload.downcast::<i32>().expect("an i32 payload"), round);
            // The context is that of before.
            let elsewhere = tamam::spawn(async {});
            other.block_on(elsewhere).expect("it was spawned on the other runtime");
        }
        let outside = catch_unwind(|| drop(tamam::spawn(async {})));
        assert!(outside.is_err(), "no runtime is entered any more");

        let before = polls.get();
        assert!(before >= 60, "the tasks ran beside");
        peer.write_all(b"late").expect("the stream is open");
        let received = runtime.block_on(receives).expect("no panic").expect("no error");
        let chunk = received.expect("no end");
        assert_eq!(&chunk[..], b"late");
        runtime.block_on(sleeps).expect("no panic");
        assert!(ran.get() && polls.get() > before);
        counts.abort();
        assert!(is_cancelled(runtime.block_on(counts)));
        drop(chunk);
        assert_eq!((runtime.metrics().tasks, runtime.metrics().ops), (0, 0));
    });
}

/// TK5. A panic in the drop of the main future, after it was ready.
#[test]
fn tk5_panic_in_the_drop_of_the_main_future() {
    each::engine(|runtime| {
        let runtime = runtime();
        let task = runtime.spawn(sleep(Duration::from_millis(1)));
        let mut bomb = Some(Bomb("main"));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(poll_fn(move |_| {
                let _ = &mut bomb;
                Poll::Ready(())
            }))
        }));
        assert!(caught.is_err());
        runtime.block_on(task).expect("the runtime goes on");
    });
}

/// TK4. As in std, where what a thread's closure owns is dropped while its panic unwinds.
#[test]
fn tk4_what_a_task_owns_is_dropped_during_the_unwind() {
    struct Owned(Rc<Cell<u32>>, u32);
    impl Drop for Owned {
        fn drop(&mut self) {
            assert_eq!(thread::panicking(), self.1 > 1, "{}", self.1);
            self.0.set(self.0.get() + self.1);
        }
    }

    each::engine(|runtime| {
        let (runtime, seen) = (runtime(), Rc::new(Cell::new(0)));
        let spawn = |weight: u32| {
            let owned = Owned(seen.clone(), weight);
            runtime.spawn(poll_fn(move |_| {
                let owned = &owned; // all of it moves in
                assert!(owned.1 == 1, "a panic in a poll");
                Poll::Ready(())
            }))
        };
        let (panics, ends) = (spawn(10), spawn(1));
        assert!(runtime.block_on(panics).expect_err("it panics").is_panic());
        runtime.block_on(ends).expect("no panic");
        assert_eq!(seen.get(), 11);
    });
}
