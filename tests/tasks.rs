//! Tasks and wakers (SEMANTICS section 8): what becomes of a handle, an abort, a panic and a wake,
//! at whatever moment they come, and in which order tasks are polled.
//!
//! Most tests record a trace and compare it to a list. The traces are exact: the order of polls is
//! a promise.

mod common;
#[path = "common/each.rs"]
mod each;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tamam::time::sleep;
use tamam::{AbortHandle, JoinError, JoinHandle, Runtime, yield_now};

// ---- tools ---------------------------------------------------------------------------------

/// What happened, in order.
#[derive(Clone, Default)]
struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// What was noted since the last call.
    fn take(&self) -> Vec<String> {
        self.0.take()
    }

    /// Something that notes its drop.
    fn guard(&self, name: &'static str) -> Noted {
        Noted(self.clone(), name)
    }
}

struct Noted(Trace, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(format!("drop {}", self.1));
    }
}

/// Counts its drops.
#[derive(Clone)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

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

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

/// Runs a test on each engine, on a runtime with the default sizes.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    common::with_both(Runtime::builder(), test);
}

/// Lets everything that is ready run, twenty times at least, and what other threads have woken.
async fn rounds() {
    for _ in 0..20 {
        yield_now().await;
    }
    // Wakes of other threads are looked at once a turn.
    let turn = tamam::metrics().turns;
    while tamam::metrics().turns < turn + 2 {
        yield_now().await;
    }
}

/// What a handle has to say now.
fn ask<T>(handle: &mut JoinHandle<T>) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(Waker::noop()))
}

fn answer<T>(mut handle: JoinHandle<T>) -> Result<T, JoinError> {
    match ask(&mut handle) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the task is not finished"),
    }
}

fn is_cancelled<T>(result: Result<T, JoinError>) -> bool {
    result.is_err_and(|error| error.is_cancelled())
}

/// The payload of a task's panic.
fn message<T>(result: Result<T, JoinError>) -> &'static str {
    let error = result.err().expect("the task panicked");
    assert!(error.is_panic() && !error.is_cancelled());
    *error.into_panic().downcast::<&'static str>().expect("these tests panic with a str")
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio works")
}

/// The smallest executor there is: it parks its thread.
fn block_on_by_parking<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

// ---- TK1: handles after the runtime --------------------------------------------------------

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

// ---- TK2, TK3: abort -----------------------------------------------------------------------

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

// ---- TK4, TK5: panics ----------------------------------------------------------------------

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
    common::alone("tk4_hook_reports_each_panic_once", || {
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

// ---- TK6: handles dropped and forgotten ----------------------------------------------------

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
    common::alone("tk6_forgotten_handle_leaks_only_itself", || {
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

// ---- TK7: wakes during the poll ------------------------------------------------------------

/// TK7. However often a task is woken in its poll, by whatever kind of wake, it is polled once
/// more, behind those who were ready.
#[test]
fn tk7_wakes_during_the_poll_are_one_more_poll() {
    type WakeUp = fn(&Waker);
    let wakes: [(&str, WakeUp); 4] = [
        ("one", |waker| waker.wake_by_ref()),
        ("several", |waker| {
            waker.wake_by_ref();
            Waker::wake(waker.clone());
            waker.wake_by_ref();
        }),
        ("from another thread", |waker| {
            let waker = waker.clone();
            thread::spawn(move || waker.wake()).join().expect("it does not panic");
        }),
        ("several from several threads", |waker| {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..3).for_each(|_| waker.wake_by_ref()));
                }
            });
        }),
    ];
    for (name, wake) in wakes {
        eprintln!("-- {name}");
        run(|| async {
            let trace = Trace::default();
            let spawn = |name: &'static str, wake: WakeUp| {
                let trace = trace.clone();
                let mut first = true;
                tamam::spawn(poll_fn(move |cx| {
                    trace.note(name);
                    if mem::take(&mut first) {
                        wake(cx.waker());
                        trace.note("woken");
                    }
                    Poll::<()>::Pending
                }))
            };
            let tasks = [spawn("A", wake), spawn("B", |_| {}), spawn("C", |_| {})];
            rounds().await;
            assert_eq!(trace.take(), ["A", "woken", "B", "woken", "C", "woken", "A"]);
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK7. Several wakes between two polls are one poll too, whether they come from home, from
/// elsewhere, or from both before the next turn.
#[test]
fn tk7_wakes_between_polls_are_one_poll() {
    run(|| async {
        let polls = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let task: JoinHandle<()> = tamam::spawn({
            let (polls, waker) = (polls.clone(), waker.clone());
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
        });
        rounds().await;
        let waker = waker.take().expect("it was polled");
        for _ in 0..5 {
            waker.wake_by_ref();
        }
        rounds().await;
        assert_eq!(polls.get(), 2);
        let elsewhere = waker.clone();
        let thread = thread::spawn(move || (0..5).for_each(|_| elsewhere.wake_by_ref()));
        thread.join().expect("it does not panic");
        rounds().await;
        assert_eq!(polls.get(), 3);
        task.abort();
    });
}

// ---- TK8: wakes at any time, from anywhere -------------------------------------------------

/// Dies on the thread it was made on, and is counted.
struct Homebound {
    home: ThreadId,
    deaths: Arc<AtomicUsize>,
}

impl Drop for Homebound {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "futures and outputs die at home");
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }
}

/// TK8. 1 tasks that will finish, panic, be aborted, or be waiting when their runtime goes; 2 four
/// threads hold wakers of them all and use them without pause; 3 the tasks end, the handles go,
/// the runtime goes, in the midst of it; 4 the threads go on, then drop their wakers. Futures and
/// outputs died at home, once; no memory is left, none was touched after its end.
#[test]
fn tk8_wakers_in_threads_outlive_everything() {
    common::alone("tk8_wakers_in_threads_outlive_everything", || {
        each::engine(|runtime| {
            let mut held = Vec::new();
            for round in 0..60 {
                let _watchdog = common::Watchdog::start();
                let deaths = Arc::new(AtomicUsize::new(0));
                let made = wakers_outlive_everything(runtime(), round, &deaths);
                assert_eq!(deaths.load(Ordering::SeqCst), made, "each future and output dies once");
                drop(deaths);
                held.push(common::quarantine::live());
            }
            // What std keeps for threads varies by a little; a leak of task memory adds up.
            let (early, late) = (held[10], held[59]);
            assert!(late - early < 50 * 64, "the heap grew from {early} to {late} bytes");
        });
    });
}

fn wakers_outlive_everything(runtime: Runtime, round: u64, deaths: &Arc<AtomicUsize>) -> usize {
    const TASKS: usize = 16;
    let mut random = common::Random(round + 1);
    let homebound = || Homebound { home: thread::current().id(), deaths: deaths.clone() };
    let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<JoinHandle<Homebound>> = (0..TASKS)
        .map(|kind| {
            let (wakers, future, output) = (wakers.clone(), homebound(), homebound());
            let mut output = Some(output);
            let mut polls = random.below(50);
            runtime.spawn(poll_fn(move |cx| {
                let _ = &future;
                wakers.lock().expect("not poisoned").push(cx.waker().clone());
                polls = polls.saturating_sub(1);
                match (polls, kind % 4) {
                    (0, 0) => Poll::Ready(output.take().expect("ready once")),
                    (0, 1) => std::panic::resume_unwind(Box::new("quietly")),
                    _ => Poll::Pending,
                }
            }))
        })
        .collect();
    runtime.block_on(yield_now());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (wakers, stop) = (wakers.clone(), stop.clone());
            thread::spawn(move || {
                let mut mine = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    mine.extend(wakers.lock().expect("not poisoned").drain(..));
                    mine.iter().for_each(Waker::wake_by_ref);
                    if mine.len() > 64 {
                        mine.drain(..32).for_each(Waker::wake);
                    }
                }
                // The runtime is gone, the handles too.
                for waker in mine {
                    waker.wake_by_ref();
                    Waker::wake(waker.clone());
                }
            })
        })
        .collect();
    for handle in handles.iter().skip(2).step_by(4) {
        runtime.block_on(async {
            sleep(Duration::from_micros(200)).await;
            handle.abort();
        });
    }
    runtime.block_on(sleep(Duration::from_millis(1)));
    if round % 2 == 0 {
        drop(handles);
        drop(runtime);
    } else {
        drop(runtime);
        assert!(handles.iter().all(JoinHandle::is_finished));
        drop(handles);
    }
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    2 * TASKS
}

/// TK8. No wake from a thread is lost, however it meets the runtime: going to sleep, asleep,
/// waking up. 1 the task waits for a number; 2 a thread stores it, then wakes; 3 the task answers,
/// the thread stores the next.
#[test]
fn tk8_no_wake_of_a_thread_is_lost() {
    const NUMBERS: usize = 20_000;
    for (name, builder) in common::engines() {
        eprintln!("-- {name}");
        common::with(builder, || async {
            let number = Arc::new(AtomicUsize::new(0));
            let (waker_out, waker_in) = mpsc::channel::<Waker>();
            let (answer_out, answer_in) = mpsc::channel::<usize>();
            let thread = {
                let number = number.clone();
                thread::spawn(move || {
                    let waker = waker_in.recv().expect("the task sends its waker");
                    for next in 1..=NUMBERS {
                        number.store(next, Ordering::SeqCst);
                        waker.wake_by_ref();
                        let answer = answer_in.recv().expect("the task answers");
                        assert_eq!(answer, next);
                    }
                })
            };
            let mut seen = 0;
            poll_fn(move |cx| {
                if seen == 0 {
                    let _ = waker_out.send(cx.waker().clone());
                }
                let now = number.load(Ordering::SeqCst);
                if now > seen {
                    seen = now;
                    answer_out.send(now).expect("the thread listens");
                }
                if seen == NUMBERS { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            common::join(thread).await;
        });
    }
}

/// TK8. A wake at home while the runtime does not turn; wakes of a main future that is over.
#[test]
fn tk8_wakes_between_two_block_ons() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        let steps = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let watch = || {
            let (steps, waker) = (steps.clone(), waker.clone());
            poll_fn(move |cx| {
                steps.set(steps.get() + 1);
                waker.replace(Some(cx.waker().clone()));
                if steps.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            })
        };
        let task = runtime.spawn(watch());
        runtime.block_on(rounds());
        assert_eq!(steps.get(), 1);
        waker.take().expect("it was polled").wake();
        runtime.block_on(task).expect("it was woken");

        steps.set(1);
        runtime.block_on(watch()); // ready at once
        let stale = waker.take().expect("it was polled");
        stale.wake_by_ref();
        let polls = runtime.metrics().polls;
        runtime.block_on(async {
            stale.wake_by_ref();
            yield_now().await;
        });
        assert_eq!(runtime.metrics().polls, polls + 2, "only the new main future is polled");
        drop(runtime);
        stale.wake();
    });
}

/// TK8, H32. A waker of others that uses the runtime while it is woken: it spawns, aborts, drops a
/// timer and a stream with a receive in flight, and wakes others. It is called where it may.
#[test]
fn tk8_waker_that_uses_the_runtime() {
    thread_local! {
        static DO: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }
    struct Does;
    impl Wake for Does {
        fn wake(self: Arc<Self>) {
            if let Some(act) = DO.take() {
                act();
            }
        }
    }
    /// Makes `event` happen to something that was polled with a waker like `Does`.
    type Event = fn(&mut Context<'_>) -> Box<dyn FnOnce()>;
    let events: [(&str, Event); 3] = [
        ("a timer", |cx| {
            let mut timer = Box::pin(sleep(Duration::MAX));
            assert!(timer.as_mut().poll(cx).is_pending());
            timer.reset(Instant::now());
            Box::new(|| drop(timer))
        }),
        ("the end of a task", |cx| {
            let mut task = tamam::spawn(yield_now());
            assert!(Pin::new(&mut task).poll(cx).is_pending());
            Box::new(|| drop(task))
        }),
        ("an abort", |cx| {
            let mut task = tamam::spawn(pending::<()>());
            assert!(Pin::new(&mut task).poll(cx).is_pending());
            task.abort();
            Box::new(|| drop(task))
        }),
    ];
    for (name, event) in events {
        eprintln!("-- {name}");
        common::everywhere(|| async {
            let (stream, peer) = common::pair().await;
            let stream = Rc::new(stream);
            let receives = tamam::spawn({
                let stream = stream.clone();
                async move { stream.recv().await.map(drop) }
            });
            let mut timer = Box::pin(sleep(Duration::from_secs(3600)));
            assert!(common::poll_once(&mut timer).await.is_pending());
            rounds().await;
            let spawned = Rc::new(RefCell::new(None));
            let slot = spawned.clone();
            DO.set(Some(Box::new(move || {
                receives.abort();
                drop((timer, stream));
                slot.replace(Some(tamam::spawn(async move { drop((receives.await, peer)) })));
            })));
            let keep = event(&mut Context::from_waker(&Waker::from(Arc::new(Does))));
            while spawned.borrow().is_none() {
                rounds().await;
            }
            keep();
            let spawned = spawned.take().expect("just seen");
            spawned.await.expect("it runs as any other");
        });
    }
}

// ---- TK9: signals --------------------------------------------------------------------------

/// TK9. A waker is not for signal handlers; a write to a descriptor that a task reads is. 1 a task
/// waits in `recv`; 2 a signal interrupts the thread's sleep, its handler writes to the other end;
/// 3 the task reads it. A hundred times.
#[test]
fn tk9_handler_writes_to_what_a_task_reads() {
    static PEER: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn handler(_: libc::c_int) {
        let byte = [b'!'];
        // SAFETY: write(2) may be called in a handler; the byte is readable.
        let written = unsafe { libc::write(PEER.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
        assert_eq!(written, 1);
    }

    common::alone("tk9_handler_writes_to_what_a_task_reads", || {
        // SAFETY: zero is a valid value of the struct: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler calls nothing that a handler must not call.
        let done = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        assert_eq!(done, 0);
        run(|| async {
            let (stream, peer) = common::pair().await;
            PEER.store(std::os::fd::AsRawFd::as_raw_fd(&peer), Ordering::Relaxed);
            // SAFETY: no condition; it names the calling thread.
            let me = unsafe { libc::pthread_self() };
            let (read_out, read_in) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                for _ in 0..100 {
                    // SAFETY: that thread lives until it has joined this one.
                    assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGUSR1) }, 0);
                    read_in.recv().expect("the task goes on");
                }
            });
            for _ in 0..100 {
                let chunk = stream.recv().await.expect("no error").expect("no end");
                assert_eq!(&chunk[..], b"!");
                read_out.send(()).expect("the thread goes on");
            }
            common::join(thread).await;
            drop(peer);
        });
    });
}

// ---- TK10, TK11: order and fairness --------------------------------------------------------

/// Never waits, never ends.
async fn spin() {
    loop {
        yield_now().await;
    }
}

/// TK10. With any number of tasks that are always ready, one and ten thousand, and any budget: a
/// turn polls no more tasks than its budget, and timers, receives and wakes of threads, which the
/// turn serves, come through.
#[test]
fn tk10_io_and_timers_are_served_beside_spinners() {
    for (spinners, budget) in [(1, 128), (1, 1), (200, 7), (10_000, 128)] {
        for (name, builder) in common::engines() {
            eprintln!("-- {spinners} spinners, a budget of {budget}, {name}");
            common::with(builder.budget(budget), || async {
                let tasks: Vec<_> = (0..spinners).map(|_| tamam::spawn(spin())).collect();
                let before = tamam::metrics();
                let slept = tamam::spawn(async {
                    for _ in 0..3 {
                        sleep(Duration::from_micros(100)).await;
                    }
                });
                let (stream, mut peer) = common::pair().await;
                let echo = tamam::spawn(async move {
                    for _ in 0..3 {
                        let chunk = stream.recv().await.expect("no error").expect("no end");
                        stream.send_all(chunk).await.expect("the peer reads");
                    }
                });
                let client = thread::spawn(move || {
                    for byte in 0..3 {
                        peer.write_all(&[byte]).expect("the stream is open");
                        let mut answer = [9];
                        std::io::Read::read_exact(&mut peer, &mut answer).expect("an answer");
                        assert_eq!(answer, [byte]);
                    }
                });
                slept.await.expect("no panic");
                echo.await.expect("no panic");
                common::join(client).await; // the main future is polled and sleeps
                let after = tamam::metrics();
                let (polls, turns) = (after.polls - before.polls, after.turns - before.turns);
                assert!(polls <= (turns + 1) * u64::from(budget), "{polls} polls in {turns} turns");
                tasks.iter().for_each(JoinHandle::abort);
                for task in tasks {
                    assert!(is_cancelled(task.await));
                }
            });
        }
    }
}

/// TK10. How late a timer is, in polls: due, it is noticed within a budget of polls, and its task
/// goes behind those who are ready.
#[test]
fn tk10_timer_comes_within_a_round() {
    const BUDGET: u64 = 128;
    for spinners in [1_u64, 1000, 10_000] {
        run(|| async {
            let deadline = Instant::now() + Duration::from_millis(30);
            // How many polls there were when the first spinner saw that the timer is due.
            let due = Rc::new(Cell::new(None::<u64>));
            let tasks: Vec<_> = (0..spinners)
                .map(|_| {
                    let due = due.clone();
                    tamam::spawn(async move {
                        loop {
                            if due.get().is_none() && Instant::now() >= deadline {
                                due.set(Some(tamam::metrics().polls));
                            }
                            yield_now().await;
                        }
                    })
                })
                .collect();
            tamam::time::sleep_until(deadline).await;
            let late = due.get().map_or(0, |due| tamam::metrics().polls - due);
            assert!(late <= spinners + 2 * BUDGET, "{late} polls late among {spinners}");
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK10. The main future is one of the polled: it waits for one round of the others, not more and
/// not less, whatever the budget.
#[test]
fn tk10_main_future_is_one_of_the_polled() {
    const SPINNERS: u64 = 300;
    for budget in [1, 2, 128, 1000] {
        common::with_both(Runtime::builder().budget(budget), || async {
            let tasks: Vec<_> = (0..SPINNERS).map(|_| tamam::spawn(spin())).collect();
            for _ in 0..20 {
                let before = tamam::metrics().polls;
                yield_now().await;
                assert_eq!(tamam::metrics().polls - before, SPINNERS + 1);
            }
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK10. A main future that spins alone does not starve its timers and tasks, and the thread is
/// not put to sleep under it.
#[test]
fn tk10_main_future_that_spins() {
    run(|| async {
        let task = tamam::spawn(async {
            for _ in 0..3 {
                sleep(Duration::from_micros(500)).await;
            }
        });
        while !task.is_finished() {
            yield_now().await;
        }
    });
}

/// TK11. Every task that was ready before runs first, and those only: what becomes ready later
/// goes behind.
#[test]
fn tk11_yield_goes_to_the_back() {
    for budget in [1, 3, 128] {
        common::with_both(Runtime::builder().budget(budget), || async {
            let trace = Trace::default();
            for name in ["A", "B", "C"] {
                let trace = trace.clone();
                tamam::spawn(async move {
                    trace.note(format!("{name}1"));
                    if name == "B" {
                        let trace = trace.clone();
                        tamam::spawn(async move { trace.note("D1") });
                    }
                    yield_now().await;
                    trace.note(format!("{name}2"));
                });
            }
            trace.note("main1");
            yield_now().await;
            trace.note("main2");
            yield_now().await;
            trace.note("main3");
            assert_eq!(
                trace.take(),
                ["main1", "A1", "B1", "C1", "main2", "A2", "D1", "B2", "C2", "main3"]
            );
        });
    }
}

/// TK11. It needs no runtime: under another executor it yields as well.
#[test]
fn tk11_yield_under_tokio() {
    let trace = Trace::default();
    tokio::task::LocalSet::new().block_on(&tokio(), async {
        let other = trace.clone();
        tokio::task::spawn_local(async move { other.note("task") });
        trace.note("before");
        yield_now().await;
        yield_now().await;
        trace.note("after");
    });
    assert_eq!(trace.take(), ["before", "task", "after"]);
}

// ---- G1, G9 --------------------------------------------------------------------------------

/// G1. `spawn` polls nothing by itself; a task dropped before its first poll never happened.
#[test]
fn g1_spawn_polls_nothing() {
    each::engine(|runtime| {
        let trace = Trace::default();
        let runtime = runtime();
        let spawn = |name: &'static str| {
            let (trace, guard) = (trace.clone(), trace.guard(name));
            async move {
                let _guard = guard;
                trace.note("polled");
            }
        };
        runtime.block_on(async {
            let task = tamam::spawn(spawn("aborted"));
            trace.note("spawned");
            task.abort();
            assert!(is_cancelled(task.await));
        });
        assert_eq!(trace.take(), ["spawned", "drop aborted"]);
        let task = runtime.spawn(spawn("left"));
        drop(runtime);
        assert!(is_cancelled(answer(task)));
        assert_eq!(trace.take(), ["drop left"]);
    });
}

/// G9. A task that receives from a flooding peer pauses after 128 chunks at most, and what is
/// parked (by the ring) or still in the socket (under epoll) stays.
#[test]
fn g9_receiving_loop_lets_others_run() {
    const LEN: usize = 1000;
    let builder = Runtime::builder().buffer_size(1).buffer_count(2048);
    common::with_both(builder, || async {
        let (stream, mut peer) = common::pair().await;
        peer.write_all(&common::pattern(LEN)).expect("the stream is open");
        if common::on_epoll() {
            assert_eq!(common::unread(&stream), LEN);
        } else {
            assert!(common::poll_once(&mut Box::pin(stream.recv())).await.is_pending());
            // More than two budgets of them shall be parked, if the receive stays for so many.
            while tamam::metrics().buffers_lent <= 256 && tamam::metrics().ops > 0 {
                yield_now().await;
            }
        }
        let polls = Rc::new(Cell::new(0));
        let other = tamam::spawn({
            let polls = polls.clone();
            async move {
                loop {
                    polls.set(polls.get() + 1);
                    yield_now().await;
                }
            }
        });
        let mut bytes = Vec::new();
        let mut at_once = 0;
        let mut seen = (polls.get(), 0);
        while bytes.len() < LEN {
            bytes.extend_from_slice(&stream.recv().await.expect("no error").expect("no end"));
            seen = if seen.0 == polls.get() { (seen.0, seen.1 + 1) } else { (polls.get(), 1) };
            at_once = at_once.max(seen.1);
        }
        assert!(at_once <= 128, "{at_once} chunks in one poll");
        assert_eq!(bytes, common::pattern(LEN));
        other.abort();
    });
}

/// G9. The budget is one of a task's poll. Outside of any, under a foreign executor, what is ready
/// is ready, however often: nobody is there to give a new budget.
#[test]
fn g9_outside_a_poll_nothing_is_spent() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        runtime.block_on(async {
            for _ in 0..128 {
                sleep(Duration::ZERO).await; // the last poll of the turn spends all it has
            }
        });
        let _guard = runtime.enter();
        let mut polls = 0;
        let mut sleeps = Box::pin(async {
            for _ in 0..1000 {
                sleep(Duration::ZERO).await;
            }
        });
        let ended = block_on_by_parking(poll_fn(|cx| {
            polls += 1;
            match sleeps.as_mut().poll(cx) {
                Poll::Pending if polls > 10_000 => Poll::Ready(false),
                poll => poll.map(|()| true),
            }
        }));
        assert!(ended, "still waiting after {polls} polls for what is ready");
    });
}

/// The counting waker is woken by what it waits for: the tools themselves are checked where a
/// foreign waker stands in for a task's.
#[test]
fn tk8_foreign_waker_is_woken_once_by_an_end() {
    run(|| async {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut task = tamam::spawn(yield_now());
        for _ in 0..3 {
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        rounds().await;
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(answer(task).is_ok());
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "no waker is kept");
    });
}
