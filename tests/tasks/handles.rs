//! TK1, TK6: handles that outlive the runtime, that are dropped and forgotten.

use std::cell::Cell;
use std::future::{Future, pending};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::Duration;

use tamam::time::sleep;
use tamam::{AbortHandle, JoinError, JoinHandle, Runtime, yield_now};

use crate::{Trace, block_on_by_parking, common, each, is_cancelled, rounds, run, tokio};

/// Counts its drops.
#[derive(Clone)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// TK1. 1 one task finishes, one waits, one sleeps, one was never polled; 2 the runtime is
/// dropped; 3 the finished one gives its output, the others say that they were cancelled, under
/// any executor there is.
#[test]
fn tk1_handle_after_the_runtime_is_gone() {
    each::mixed(|runtime| {
        type Ask = Pin<Box<dyn Future<Output = ()>>>;
        type Execute<'a> = &'a dyn Fn(Ask);
        let executors: [(&str, Execute<'_>); 5] = [
            ("another runtime", &|ask| runtime().block_on(ask)),
            ("a task of another runtime", &|ask| {
                let other = runtime();
                let task = other.spawn(ask);
                other.block_on(task).expect("no panic");
            }),
            ("tokio", &|ask| tokio().block_on(ask)),
            ("a thread that parks", &|ask| block_on_by_parking(ask)),
            ("a single poll", &|mut ask| {
                let cx = &mut Context::from_waker(Waker::noop());
                assert!(ask.as_mut().poll(cx).is_ready(), "it has nothing to wait for");
            }),
        ];
        for (name, execute) in executors {
            eprintln!("-- {name}");
            let _watchdog = common::Watchdog::start();
            let first = runtime();
            let finished = first.spawn(async { String::from("output") });
            let waits = first.spawn(pending::<()>());
            let sleeps = first.spawn(sleep(Duration::MAX));
            first.block_on(rounds());
            assert!(finished.is_finished() && !waits.is_finished() && !sleeps.is_finished());
            let unpolled =
                first.spawn(async { unreachable!("its runtime does not turn any more") });
            let aborts = [finished.abort_handle(), waits.abort_handle()];
            drop(first);
            assert!(waits.is_finished() && sleeps.is_finished() && unpolled.is_finished());
            aborts.iter().for_each(AbortHandle::abort); // too late for all of them
            execute(Box::pin(async move {
                assert_eq!(finished.await.expect("it finished before"), "output");
                assert!(is_cancelled(waits.await));
                assert!(is_cancelled(sleeps.await));
                assert!(is_cancelled::<()>(unpolled.await));
            }));
        }
    });
}

/// TK1. 1 a task of one runtime waits for a task of another; 2 that one ends, by itself, by an
/// abort, or with its runtime, while the waiter's runtime does not turn; 3 the waiter hears of it
/// in its next turn.
#[test]
fn tk1_waiter_in_another_runtime_is_woken() {
    each::mixed(|runtime| {
        type End = fn(Runtime, AbortHandle, mpsc::Sender<()>);
        let ends: [(&str, bool, End); 3] = [
            ("finished", false, |home, _, go| {
                go.send(()).expect("the task holds the receiver");
                home.block_on(rounds());
            }),
            ("aborted", true, |home, abort, _| {
                abort.abort();
                home.block_on(rounds());
            }),
            ("runtime dropped", true, |home, _, _| drop(home)),
        ];
        for (name, cancelled, end) in ends {
            eprintln!("-- {name}");
            let _watchdog = common::Watchdog::start();
            let (home, away) = (runtime(), runtime());
            let (go, went) = mpsc::channel();
            let task = home.spawn(async move {
                while let Err(mpsc::TryRecvError::Empty) = went.try_recv() {
                    yield_now().await;
                }
                5
            });
            let abort = task.abort_handle();
            let waiter = away.spawn(task);
            away.block_on(rounds());
            home.block_on(rounds());
            assert!(!waiter.is_finished());
            end(home, abort, go);
            let heard = away.block_on(waiter).expect("the waiter does not panic");
            assert_eq!(heard.as_ref().is_err_and(JoinError::is_cancelled), cancelled);
            assert_eq!(heard.ok(), (!cancelled).then_some(5));
        }
    });
}

/// TK1. A foreign executor waits for a task whose runtime turns inside that executor.
#[test]
fn tk1_tokio_waits_for_a_task_that_goes_on() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        let task = runtime.spawn(async {
            sleep(Duration::from_millis(1)).await;
            "slept"
        });
        let turn = async {
            tokio::task::yield_now().await; // the handle was polled before
            runtime.block_on(sleep(Duration::from_millis(20)));
        };
        let (slept, ()) = tokio().block_on(async { tokio::join!(task, turn) });
        assert_eq!(slept.expect("no panic"), "slept");
    });
}

/// TK1, TK6. Output and future die once, whichever of handle and runtime goes first.
#[test]
fn tk1_output_dies_once_whoever_goes_first() {
    each::engine(|runtime| {
        for handle_first in [true, false] {
            let (futures, outputs) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let runtime = runtime();
            let spawn = |waits: bool| {
                let (future, output) = (Counted(futures.clone()), Counted(outputs.clone()));
                runtime.spawn(async move {
                    let _future = future;
                    if waits {
                        pending::<()>().await;
                    }
                    output
                })
            };
            let handles = [spawn(false), spawn(true)];
            runtime.block_on(rounds());
            assert_eq!((futures.get(), outputs.get()), (1, 0));
            if handle_first {
                drop(handles);
                assert_eq!((futures.get(), outputs.get()), (1, 1));
                drop(runtime);
            } else {
                drop(runtime);
                // That of the task that waited died as a variable of its future.
                assert_eq!((futures.get(), outputs.get()), (2, 1));
                drop(handles);
            }
            assert_eq!((futures.get(), outputs.get()), (2, 2));
        }
    });
}

/// TK6. A dropped handle detaches: the task goes on, its output is dropped once, when it ends.
#[test]
fn tk6_dropped_handle_detaches() {
    run(|| async {
        let trace = Trace::default();
        let (future, output) = (trace.guard("future"), trace.guard("output"));
        drop(tamam::spawn({
            let trace = trace.clone();
            async move {
                let _future = future;
                yield_now().await;
                trace.note("goes on");
                output
            }
        }));
        yield_now().await;
        assert!(trace.take().is_empty());
        yield_now().await;
        assert_eq!(trace.take(), ["goes on", "drop future", "drop output"]);
        assert_eq!(tamam::metrics().tasks, 0);

        // Dropped after some polls of its own, so that it had left a waker.
        let output = trace.guard("output");
        let mut task = tamam::spawn(async move {
            yield_now().await;
            output
        });
        assert!(common::poll_once(&mut task).await.is_pending());
        drop(task);
        rounds().await;
        assert_eq!(trace.take(), ["drop output"]);
    });
}

/// TK6. A forgotten handle leaks the task's memory with the output in it, and nothing else; a
/// dropped one leaks nothing.
#[test]
fn tk6_forgotten_handle_leaks_only_itself() {
    common::alone("handles::tk6_forgotten_handle_leaks_only_itself", || {
        each::engine(|runtime| {
            const TASKS: usize = 1000;
            const CELL_MAX: usize = 512;
            let runtime = runtime();
            let futures = Rc::new(Cell::new(0));
            let outputs = Rc::new(Cell::new(0));
            let grown = |dispose: fn(JoinHandle<Counted>)| {
                let before = common::quarantine::live();
                runtime.block_on(async {
                    for _ in 0..TASKS {
                        let (future, output) = (Counted(futures.clone()), Counted(outputs.clone()));
                        let task = tamam::spawn(async move {
                            let _future = future;
                            yield_now().await;
                            output
                        });
                        dispose(task);
                    }
                    rounds().await;
                });
                assert_eq!(runtime.metrics().tasks, 0);
                let done = (futures.take(), outputs.take());
                (done, usize::try_from(common::quarantine::live() - before).unwrap_or(0))
            };
            // A leak of ours shows every time; what libtest's thread takes in passing does not.
            let dropped_leak_nothing = || {
                let grown = [(); 3].map(|()| grown(drop));
                assert_eq!(grown.map(|(done, _)| done), [(TASKS, TASKS); 3]);
                assert!(grown.iter().any(|(_, bytes)| *bytes == 0), "{grown:?}");
            };
            grown(drop); // warms up
            dropped_leak_nothing();
            let (done, bytes) = grown(mem::forget);
            assert_eq!(done, (TASKS, 0), "the future is dropped, the output forgotten");
            assert!(bytes <= TASKS * CELL_MAX, "{bytes} bytes for {TASKS} forgotten handles");
            dropped_leak_nothing();

            // Forgotten while the task waits: its future is the runtime's all the same.
            let future = Counted(futures.clone());
            mem::forget(runtime.spawn(async move {
                let _future = future;
                pending::<()>().await
            }));
            runtime.block_on(rounds());
            drop(runtime);
            assert_eq!(futures.get(), 1);
        });
    });
}
