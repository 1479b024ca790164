//! TK2, TK3: abort, at whatever moment it comes.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tamam::time::sleep;
use tamam::{AbortHandle, JoinHandle, yield_now};

use crate::{Trace, common, each, is_cancelled, rounds, run};

/// Notes in its drop what its own handle says at that moment, and in which turn that is.
struct AsksItsHandle {
    trace: Trace,
    name: &'static str,
    handle: Rc<RefCell<Weak<JoinHandle<()>>>>,
}

impl Drop for AsksItsHandle {
    fn drop(&mut self) {
        let handle = self.handle.borrow().upgrade().expect("the test holds the handle");
        let (name, turn) = (self.name, tamam::metrics().turns);
        self.trace.note(format!("drop {name}, finished {}, turn {turn}", handle.is_finished()));
    }
}

/// Spawns a task that waits for ever and asks its handle when it is dropped.
fn spawn_asking(trace: &Trace, name: &'static str) -> Rc<JoinHandle<()>> {
    let slot = Rc::new(RefCell::new(Weak::new()));
    let guard = AsksItsHandle { trace: trace.clone(), name, handle: slot.clone() };
    let handle = Rc::new(tamam::spawn(async move {
        let _guard = guard;
        pending().await
    }));
    slot.replace(Rc::downgrade(&handle));
    handle
}

/// TK2. The future dies in the run queue, in this turn, never inside `abort()`; `is_finished`
/// after that, and only then. Asking twice changes nothing.
#[test]
fn tk2_abort_of_idle_and_queued() {
    run(|| async {
        let trace = Trace::default();
        let idle = spawn_asking(&trace, "idle");
        yield_now().await;
        let queued = spawn_asking(&trace, "queued"); // not polled yet
        idle.abort();
        queued.abort_handle().abort();
        idle.abort_handle().abort();
        queued.abort();
        trace.note("aborted");
        assert!(!idle.is_finished() && !queued.is_finished());
        let turn = tamam::metrics().turns;
        yield_now().await;
        assert_eq!(
            trace.take(),
            [
                "aborted".to_owned(),
                format!("drop queued, finished false, turn {turn}"),
                format!("drop idle, finished false, turn {turn}"),
            ]
        );
        for handle in [idle, queued] {
            assert!(handle.is_finished());
            let handle = Rc::into_inner(handle).expect("the guards are gone");
            assert!(is_cancelled(handle.await));
        }
        assert_eq!(tamam::metrics().tasks, 0);
    });
}

/// TK2. The output of a task that has finished stays; a task that is woken and then aborted is not
/// polled again; one that was detached can still be aborted.
#[test]
fn tk2_abort_of_finished_woken_and_detached() {
    run(|| async {
        let finished = tamam::spawn(async { 3 });
        yield_now().await;
        finished.abort();
        finished.abort_handle().abort();
        rounds().await;
        assert_eq!(finished.await.expect("it had finished"), 3);

        let polls = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let woken: JoinHandle<()> = tamam::spawn({
            let (polls, waker) = (polls.clone(), waker.clone());
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
        });
        yield_now().await;
        waker.borrow().as_ref().expect("it was polled").wake_by_ref();
        woken.abort();
        assert!(is_cancelled(woken.await));
        assert_eq!(polls.get(), 1);

        let trace = Trace::default();
        let guard = trace.guard("detached");
        let detached = tamam::spawn(async move {
            let _guard = guard;
            pending::<()>().await
        });
        let abort = detached.abort_handle();
        drop(detached);
        rounds().await;
        assert_eq!(tamam::metrics().tasks, 1);
        abort.abort();
        yield_now().await;
        assert_eq!(trace.take(), ["drop detached"]);
    });
}

/// TK2. Outside `block_on` nothing is dropped until the runtime turns again.
#[test]
fn tk2_abort_while_nothing_turns() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        let trace = Trace::default();
        let guard = trace.guard("future");
        let task = runtime.spawn(async move {
            let _guard = guard;
            pending::<()>().await
        });
        runtime.block_on(rounds());
        task.abort();
        assert!(trace.take().is_empty() && !task.is_finished());
        assert!(is_cancelled(runtime.block_on(task)));
        assert_eq!(trace.take(), ["drop future"]);
    });
}

/// TK2. A future whose drop aborts others, and itself.
#[test]
fn tk2_abort_from_a_destructor() {
    struct Aborts(Rc<RefCell<Vec<AbortHandle>>>);
    impl Drop for Aborts {
        fn drop(&mut self) {
            self.0.borrow().iter().for_each(AbortHandle::abort);
        }
    }
    run(|| async {
        let trace = Trace::default();
        let all = Rc::new(RefCell::new(Vec::new()));
        let handles = ["first", "second", "third"].map(|name| {
            let (noted, aborts) = (trace.guard(name), Aborts(all.clone()));
            tamam::spawn(async move {
                let (_aborts, _noted) = (aborts, noted);
                pending::<()>().await
            })
        });
        all.borrow_mut().extend(handles.iter().map(JoinHandle::abort_handle));
        yield_now().await;
        handles[1].abort();
        for handle in handles {
            assert!(is_cancelled(handle.await));
        }
        assert_eq!(trace.take(), ["drop second", "drop first", "drop third"]);
    });
}

/// TK3. It takes effect at the next Pending, whoever woke the task meanwhile; Ready in this poll
/// wins.
#[test]
fn tk3_abort_of_oneself() {
    run(|| async {
        for (returns, wakes) in [(true, false), (true, true), (false, false), (false, true)] {
            let trace = Trace::default();
            let me = Rc::new(RefCell::new(None::<AbortHandle>));
            let task = tamam::spawn({
                let (trace, me, guard) = (trace.clone(), me.clone(), trace.guard("future"));
                let mut polls = 0;
                poll_fn(move |cx| {
                    let _ = &guard;
                    polls += 1;
                    trace.note(format!("poll {polls}"));
                    me.borrow().as_ref().expect("set before the first poll").abort();
                    if wakes {
                        cx.waker().wake_by_ref();
                    }
                    trace.note("aborted");
                    if returns { Poll::Ready("output") } else { Poll::Pending }
                })
            });
            me.replace(Some(task.abort_handle()));
            match task.await {
                Ok(output) => assert!(returns && output == "output"),
                Err(error) => assert!(!returns && error.is_cancelled()),
            }
            rounds().await;
            assert_eq!(trace.take(), ["poll 1", "aborted", "drop future"]);
        }
    });
}

/// TK3. Code between the abort and the next real wait still runs; what is ready at once does not
/// count as a wait.
#[test]
fn tk3_abort_of_oneself_in_async_code() {
    run(|| async {
        let trace = Trace::default();
        let me = Rc::new(RefCell::new(None::<AbortHandle>));
        let task = tamam::spawn({
            let (trace, me) = (trace.clone(), me.clone());
            async move {
                me.borrow().as_ref().expect("set before the first poll").abort();
                trace.note("after the abort");
                std::future::ready(()).await;
                sleep(Duration::ZERO).await;
                trace.note("after what was ready");
                yield_now().await;
                trace.note("after a wait");
            }
        });
        me.replace(Some(task.abort_handle()));
        assert!(is_cancelled(task.await));
        assert_eq!(trace.take(), ["after the abort", "after what was ready"]);
    });
}
