//! Traces of what the executor does, one per promise, and a naive model with random steps.

use core::future::{Future, pending, poll_fn};
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::thread;

use super::*;

type Trace = Rc<RefCell<Vec<String>>>;

fn executor() -> Executor {
    Executor::new(Waker::noop().clone())
}

/// Makes the executor the thread's until dropped.
struct Entered(Option<Rc<Home>>);

impl Drop for Entered {
    fn drop(&mut self) {
        drop(waker::replace_home(self.0.take()));
    }
}

impl Executor {
    fn enter(&self) -> Entered {
        Entered(waker::replace_home(Some(self.home.clone())))
    }
}

/// Polls what is ready until nothing is, without a main future.
fn settle(executor: &Executor) {
    let main = executor.main_task();
    while !executor.is_idle() {
        let flow = executor.run_ready(128, &main, &mut |_| ControlFlow::Continue(()));
        assert!(flow.is_continue());
    }
}

/// What a handle has to say now.
fn ask<T>(handle: &mut JoinHandle<T>) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(Waker::noop()))
}

fn answer<T>(handle: &mut JoinHandle<T>) -> Result<T, JoinError> {
    match ask(handle) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the task is not finished"),
    }
}

/// Notes its drop.
struct Noted(Trace, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push(format!("drop {}", self.1));
    }
}

/// Panics when dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(self.0);
    }
}

/// A payload that panics when dropped, with one that does so too.
struct Nested(u32);

impl Drop for Nested {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Nested(self.0 - 1));
        }
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn message(error: JoinError) -> &'static str {
    *error.into_panic().downcast::<&'static str>().expect("a str payload")
}

#[test]
fn tk1_a_handle_after_the_executor_is_gone() {
    let executor = executor();
    let mut finished = executor.spawn(async { 7 });
    settle(&executor);
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
        settle(&executor);
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
        settle(&executor);
        assert_eq!(*trace.borrow(), ["drop queued", "drop idle"]);
        assert!(answer(&mut idle).unwrap_err().is_cancelled());
        assert!(answer(&mut queued).unwrap_err().is_cancelled());

        let mut finished = executor.spawn(async { 3 });
        settle(&executor);
        finished.abort();
        settle(&executor);
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
    settle(&executor);
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
    settle(&executor);
    assert_eq!(answer(&mut ready).unwrap(), 5);

    let mine = own.clone();
    let mut waits: JoinHandle<()> = executor.spawn(async move {
        mine.borrow().as_ref().unwrap().abort();
        yield_now().await;
        unreachable!("ended at the yield");
    });
    *own.borrow_mut() = Some(waits.abort_handle());
    settle(&executor);
    assert!(answer(&mut waits).unwrap_err().is_cancelled());
}

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
    settle(&executor);
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
    settle(&executor);
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
    settle(&executor);
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
    settle(&executor);
    assert_eq!(answer(&mut task).unwrap(), 4);
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
                settle(&executor);
                assert_eq!(*trace.borrow(), ["drop detached"]);
                drop(handle);
            }
        }
    }
    drop(executor);
    assert_eq!(*trace.borrow(), ["drop detached", "drop dropped late"]);
}

#[test]
fn tk7_wakes_during_the_poll() {
    let (executor, trace) = (executor(), Trace::default());
    let _entered = executor.enter();
    let note = trace.clone();
    let mut polls = 0;
    drop(executor.spawn(poll_fn(move |cx| {
        polls += 1;
        note.borrow_mut().push(format!("self {polls}"));
        if polls < 3 {
            for _ in 0..3 {
                cx.waker().wake_by_ref();
                let clone = cx.waker().clone();
                clone.wake();
            }
        }
        Poll::<()>::Pending
    })));
    for name in ["a", "b"] {
        let note = trace.clone();
        drop(executor.spawn(async move { note.borrow_mut().push(name.to_string()) }));
    }
    settle(&executor);
    assert_eq!(*trace.borrow(), ["self 1", "a", "b", "self 2", "self 3"]);
    assert_eq!(executor.tasks(), 1);
}

#[test]
fn tk8_threads_hold_wakers_past_the_executor() {
    /// Tells on which thread it was dropped.
    struct AtHome(thread::ThreadId);
    impl Drop for AtHome {
        fn drop(&mut self) {
            assert_eq!(thread::current().id(), self.0);
        }
    }
    let notified = Arc::new(Count(AtomicUsize::new(0)));
    let mut threads = Vec::new();
    for round in 0..40 {
        let executor = Executor::new(Waker::from(notified.clone()));
        let entered = executor.enter();
        let wakers = Rc::new(RefCell::new(Vec::new()));
        for task in 0..8 {
            let (wakers, at_home) = (wakers.clone(), AtHome(thread::current().id()));
            let mut handle = executor.spawn(async move {
                let at_home = at_home;
                poll_fn(|cx| {
                    wakers.borrow_mut().push(cx.waker().clone());
                    if task % 3 == 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                at_home
            });
            if task % 2 == 0 {
                drop(handle);
            } else if task == 1 {
                let _ = ask(&mut handle);
                core::mem::forget(handle.abort_handle());
            }
        }
        settle(&executor);
        for part in 0..2 {
            let wakers = wakers.borrow().clone();
            threads.push(thread::spawn(move || {
                for waker in wakers.into_iter().skip(part) {
                    waker.wake_by_ref();
                    thread::yield_now();
                    let clone = waker.clone();
                    clone.wake();
                    drop(waker);
                }
            }));
        }
        if round % 2 == 0 {
            settle(&executor);
        }
        drop(entered);
        drop(executor);
        for waker in wakers.take() {
            waker.wake();
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Each task is woken by a thread and answers it; a lost wake hangs, a wrong count fails.
#[test]
fn no_wake_from_a_thread_is_lost() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    const STEPS: usize = 2000;
    const TASKS: usize = 3;
    let executor = Executor::new(Waker::from(Arc::new(Unpark(thread::current()))));
    let _entered = executor.enter();
    let mut threads = Vec::new();
    for _ in 0..TASKS {
        let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (send, receive) = std::sync::mpsc::channel::<Waker>();
        let (at_home, to_home) = (asked.clone(), answered.clone());
        let mut send = Some(send);
        drop(executor.spawn(poll_fn(move |cx| {
            if let Some(send) = send.take() {
                send.send(cx.waker().clone()).unwrap();
            }
            let seen = at_home.load(Ordering::Relaxed); // the wake alone has to make it seen
            to_home.store(seen, Ordering::Relaxed);
            if seen == STEPS { Poll::Ready(()) } else { Poll::Pending }
        })));
        threads.push(thread::spawn(move || {
            let waker = receive.recv().unwrap();
            for step in 1..=STEPS {
                asked.store(step, Ordering::Relaxed);
                waker.wake_by_ref();
                while step % 2 == 0 && answered.load(Ordering::Relaxed) < step {
                    thread::yield_now();
                }
            }
        }));
    }
    let main = executor.main_task();
    while executor.tasks() > 0 {
        let _ = executor.run_ready(8, &main, &mut |_| ControlFlow::Continue(()));
        if executor.is_idle() && executor.tasks() > 0 {
            thread::park();
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn tk10_the_main_future_is_one_of_the_polled() {
    let (executor, trace) = (executor(), Trace::default());
    let _entered = executor.enter();
    let spin = |name: &'static str| {
        let note = trace.clone();
        drop(executor.spawn(poll_fn(move |cx| {
            note.borrow_mut().push(name.to_string());
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
    };
    spin("a");
    let main = executor.main_task();
    spin("b");
    let note = trace.clone();
    let mut left = 2;
    let mut poll_main = |cx: &mut Context<'_>| {
        note.borrow_mut().push("main".to_string());
        cx.waker().wake_by_ref();
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(executor.run_ready(4, &main, &mut poll_main).is_continue());
    assert_eq!(*trace.borrow(), ["a", "main", "b", "a"], "the budget bounds a call");
    assert!(executor.run_ready(100, &main, &mut poll_main).is_break());
    assert_eq!(*trace.borrow(), ["a", "main", "b", "a", "main"], "Break returns at once");
    assert_eq!(executor.polls(), 5);
}

#[test]
fn tk11_yield_now_lets_every_ready_task_run_first() {
    let (executor, trace) = (executor(), Trace::default());
    let _entered = executor.enter();
    for name in ["a", "b", "c"] {
        let note = trace.clone();
        drop(executor.spawn(async move {
            for step in 0..3 {
                note.borrow_mut().push(format!("{name}{step}"));
                yield_now().await;
            }
        }));
    }
    settle(&executor);
    assert_eq!(*trace.borrow(), ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]);
}

#[test]
fn cx10_close_drops_in_spawn_order() {
    let (executor, trace) = (executor(), Trace::default());
    let mut wakers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let noted = Noted(trace.clone(), name);
        let handle = executor.spawn(async move {
            let _noted = noted;
            if name == "b" {
                return;
            }
            pending::<()>().await
        });
        settle(&executor);
        wakers.push(handle);
    }
    wakers[3].abort(); // queued first, dropped last
    trace.borrow_mut().clear();
    executor.close();
    assert_eq!(*trace.borrow(), ["drop a", "drop c", "drop d"]);
    executor.close();
    assert!(executor.is_idle());
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn cx11_a_drop_in_close_spawns_wakes_and_aborts() {
    struct Busy(Rc<Executor>, Rc<RefCell<Vec<AbortHandle>>>, Rc<RefCell<Vec<Waker>>>, Trace);
    impl Drop for Busy {
        fn drop(&mut self) {
            let noted = Noted(self.3.clone(), "spawned");
            let mut handle: JoinHandle<()> = self.0.spawn(async move {
                let _noted = noted;
                unreachable!("never polled")
            });
            assert!(answer(&mut handle).unwrap_err().is_cancelled());
            self.1.borrow().iter().for_each(AbortHandle::abort);
            self.2.borrow().iter().for_each(Waker::wake_by_ref);
            self.3.borrow_mut().push("busy".to_string());
        }
    }
    let (executor, trace) = (Rc::new(executor()), Trace::default());
    let _entered = executor.enter();
    let (aborts, wakers) = (Rc::default(), Rc::default());
    for _ in 0..2 {
        let busy = Busy(executor.clone(), Rc::clone(&aborts), Rc::clone(&wakers), trace.clone());
        let noted = Noted(trace.clone(), "idle");
        let (wakers, aborts) = (wakers.clone(), aborts.clone());
        drop(executor.spawn(async move {
            let _busy = busy;
            pending::<()>().await
        }));
        let handle = executor.spawn(async move {
            let _noted = noted;
            poll_fn(|cx| {
                wakers.borrow_mut().push(cx.waker().clone());
                Poll::<()>::Pending
            })
            .await
        });
        aborts.borrow_mut().push(handle.abort_handle());
    }
    settle(&executor);
    executor.close();
    let once = ["drop spawned", "busy", "drop idle"];
    assert_eq!(*trace.borrow(), [once, once].concat());
    assert!(executor.is_idle());
}

#[test]
fn a_handle_polled_while_its_executor_dies() {
    // 1 the handle is polled, 2 it clones the waker, 3 which drops the executor: no wake can come.
    thread_local!(static VICTIM: RefCell<Option<Executor>> = const { RefCell::new(None) });
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
    settle(&executor);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&count), 2);
}

#[test]
fn wakers_know_each_other_and_the_way_home() {
    let notified = Arc::new(Count(AtomicUsize::new(0)));
    let executor = Executor::new(Waker::from(notified.clone()));
    let other = self::executor();
    let slot = Rc::new(RefCell::new(None));
    let to = slot.clone();
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    drop(executor.spawn(poll_fn(move |cx| {
        let clone = cx.waker().clone();
        assert!(clone.will_wake(cx.waker()) && cx.waker().will_wake(&clone));
        *to.borrow_mut() = Some(clone);
        count.set(count.get() + 1);
        Poll::<()>::Pending
    })));
    settle(&executor);
    let waker = slot.take().unwrap();
    let notifications = || notified.0.load(Ordering::SeqCst);
    let entered = executor.enter();
    waker.wake_by_ref();
    assert_eq!(notifications(), 0, "at home: no notifier");
    settle(&executor);
    {
        let _other = other.enter();
        waker.wake_by_ref();
        assert_eq!(notifications(), 1, "another executor is entered");
        waker.wake_by_ref();
        assert_eq!(notifications(), 1, "it is in the inbox already");
    }
    waker.wake_by_ref(); // home again, while it is in the inbox: one poll all the same
    settle(&executor);
    drop(entered);
    waker.wake_by_ref();
    assert_eq!(notifications(), 2, "outside the context");
    assert!(!executor.is_idle());
    settle(&executor);
    assert_eq!(polls.get(), 4);
    drop(executor);
    waker.wake_by_ref();
    assert_eq!(notifications(), 2, "the inbox is closed");
}

#[test]
fn entered_guards_forgotten_or_out_of_order_leave_nothing_dangling() {
    let first = executor();
    let second = executor();
    let outer = first.enter();
    let inner = second.enter();
    drop(outer); // the wrong one
    drop(inner); // `first` is what it came from
    core::mem::forget(first.enter());
    let slot = Rc::new(RefCell::new(None));
    let to = slot.clone();
    drop(first.spawn(poll_fn(move |cx| {
        *to.borrow_mut() = Some(cx.waker().clone());
        Poll::<()>::Pending
    })));
    settle(&first);
    drop(first);
    slot.take().unwrap().wake();
    drop(second);
    let unwound = catch_unwind(|| {
        let third = executor();
        let _entered = third.enter();
        panic_any("with a guard");
    });
    assert!(unwound.is_err());
}

#[test]
fn g9_units_are_given_to_each_poll() {
    let executor = Rc::new(executor());
    let _entered = executor.enter();
    let spent = Rc::new(Cell::new(0));
    let count = spent.clone();
    drop(executor.spawn(poll_fn(move |cx| {
        while spend(cx).is_ready() {
            count.set(count.get() + 1);
        }
        if count.get() < 300 { Poll::Pending } else { Poll::Ready(()) }
    })));
    settle(&executor);
    assert_eq!(spent.get(), 3 * 128, "Pending came with a wake");
}

#[test]
fn g9_a_run_ends_with_the_poll_that_takes_the_last_unit() {
    let executor = Rc::new(executor());
    let _entered = executor.enter();
    let main = executor.main_task();
    let trace = Rc::new(RefCell::new(Vec::new()));
    for (name, units) in [("all but one", 127), ("all", 128), ("more", 1000), ("none", 0)] {
        let trace = trace.clone();
        drop(executor.spawn(poll_fn(move |cx| {
            trace.borrow_mut().push(name);
            for _ in 0..units {
                ready!(spend(cx));
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
    }
    let run = || {
        let flow = executor.run_ready(5, &main, &mut |_| ControlFlow::Continue(()));
        assert!(flow.is_continue());
        trace.take()
    };
    assert_eq!(run(), ["all but one", "all"]);
    assert_eq!(run(), ["more"]);
    assert_eq!(run(), ["none", "all but one", "all"], "in order, whoever ended a run");
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
    settle(&executor);
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

/// What the model knows of a task.
#[derive(Default)]
struct Sketch {
    queued: bool,
    in_inbox: bool,
    aborted: bool,
    done: bool,
    handle: bool,
    cancelled: bool,
    panicked: bool,
}

#[derive(Clone, Copy)]
enum Next {
    Wait,
    WakeAndWait,
    AbortAndWait,
    Finish,
    Panic,
}

/// A task that does what it is told at each poll, and notes it.
struct Told {
    id: usize,
    next: Rc<Cell<Next>>,
    abort: Rc<RefCell<Option<AbortHandle>>>,
    waker: Rc<RefCell<Option<Waker>>>,
    trace: Trace,
}

impl Future for Told {
    type Output = Noted;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Noted> {
        self.trace.borrow_mut().push(format!("poll {}", self.id));
        self.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        match self.next.get() {
            Next::Wait => Poll::Pending,
            Next::WakeAndWait => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Next::AbortAndWait => {
                self.abort.borrow().as_ref().unwrap().abort();
                Poll::Pending
            }
            Next::Finish => Poll::Ready(Noted(self.trace.clone(), "output")),
            Next::Panic => resume_unwind(Box::new("told to")), // without the hook
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.trace.borrow_mut().push(format!("drop {}", self.id));
    }
}

#[derive(Default)]
struct Model {
    tasks: Vec<Sketch>,
    queue: VecDeque<usize>,
    inbox: VecDeque<usize>,
    trace: Vec<String>,
}

impl Model {
    fn wake(&mut self, id: usize, at_home: bool) {
        if !at_home {
            if !self.tasks[id].in_inbox {
                self.tasks[id].in_inbox = true;
                self.inbox.push_back(id);
            }
        } else if !self.tasks[id].queued && !self.tasks[id].done {
            self.tasks[id].queued = true;
            self.queue.push_back(id);
        }
    }

    fn abort(&mut self, id: usize, at_home: bool) {
        if !self.tasks[id].done {
            self.tasks[id].aborted = true;
            if !self.tasks[id].queued {
                self.wake(id, at_home);
            }
        }
    }

    fn end(&mut self, id: usize) {
        self.trace.push(format!("drop {id}"));
        self.tasks[id].done = true;
    }

    fn run(&mut self, budget: usize, next: impl Fn(usize) -> Next) {
        while let Some(id) = self.inbox.pop_front() {
            self.tasks[id].in_inbox = false;
            self.wake(id, true);
        }
        for _ in 0..budget {
            let Some(id) = self.queue.pop_front() else { break };
            self.tasks[id].queued = false;
            if self.tasks[id].aborted {
                self.tasks[id].cancelled = true;
                self.end(id);
                continue;
            }
            self.trace.push(format!("poll {id}"));
            match next(id) {
                Next::Wait => {}
                Next::WakeAndWait => self.wake(id, true),
                Next::AbortAndWait => {
                    self.tasks[id].cancelled = true;
                    self.end(id);
                }
                Next::Finish => {
                    self.end(id);
                    if !self.tasks[id].handle {
                        self.trace.push("drop output".to_string());
                    }
                }
                Next::Panic => {
                    self.tasks[id].panicked = true;
                    self.end(id);
                }
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn the_executor_does_what_the_model_does() {
    for seed in 1..=300 {
        random_steps(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    }
}

fn random_steps(seed: u64) {
    struct Real {
        next: Rc<Cell<Next>>,
        abort: AbortHandle,
        handle: Option<JoinHandle<Noted>>,
        waker: Rc<RefCell<Option<Waker>>>,
    }
    let mut random = Random(seed);
    let (executor, trace, mut model) = (executor(), Trace::default(), Model::default());
    let mut real: Vec<Real> = Vec::new();
    let main = executor.main_task();
    let _ = executor.run_ready(1, &main, &mut |_| ControlFlow::Continue(()));
    let mut entered = None;
    for step in 0..200 {
        let at_home = entered.is_some();
        let id = random.below(real.len().max(1));
        match random.below(12) {
            0 | 1 => {
                let (abort, waker) = (Rc::default(), Rc::default());
                let next = Rc::new(Cell::new(Next::Wait));
                let told = Told {
                    id: real.len(),
                    next: next.clone(),
                    abort: Rc::clone(&abort),
                    waker: Rc::clone(&waker),
                    trace: trace.clone(),
                };
                let handle = executor.spawn(told);
                *abort.borrow_mut() = Some(handle.abort_handle());
                let abort = handle.abort_handle();
                real.push(Real { next, abort, handle: Some(handle), waker });
                let queued = Sketch { queued: true, handle: true, ..Sketch::default() };
                model.queue.push_back(model.tasks.len());
                model.tasks.push(queued);
            }
            2 => entered = if entered.is_some() { None } else { Some(executor.enter()) },
            _ if real.is_empty() => {}
            3 | 4 => {
                if let Some(waker) = &*real[id].waker.borrow() {
                    waker.wake_by_ref();
                    model.wake(id, at_home);
                }
            }
            5 => {
                let waker = real[id].waker.borrow().clone();
                if let Some(waker) = waker {
                    thread::spawn(move || waker.wake()).join().unwrap();
                    model.wake(id, false);
                }
            }
            6 => {
                real[id].abort.abort();
                model.abort(id, at_home);
            }
            7 => {
                if let Some(handle) = real[id].handle.take() {
                    drop(handle);
                    let task = &mut model.tasks[id];
                    task.handle = false;
                    if task.done && !task.cancelled && !task.panicked {
                        model.trace.push("drop output".to_string());
                    }
                }
            }
            8 => {
                let all = [Next::WakeAndWait, Next::AbortAndWait, Next::Finish, Next::Panic];
                real[id].next.set(all[random.below(all.len())]);
            }
            _ => {
                if matches!(real[id].next.get(), Next::WakeAndWait) {
                    real[id].next.set(Next::Wait);
                }
                let budget = random.below(6);
                let inner = executor.enter(); // as block_on does; a wake in a poll is at home
                let flow = executor.run_ready(budget as u32, &main, &mut |_| unreachable!());
                assert!(flow.is_continue());
                drop(inner);
                model.run(budget, |id| real[id].next.get());
            }
        }
        assert_eq!(*trace.borrow(), model.trace, "seed {seed}, step {step}");
        assert_eq!(executor.is_idle(), model.queue.is_empty() && model.inbox.is_empty());
        assert_eq!(executor.tasks(), model.tasks.iter().filter(|task| !task.done).count());
        for (real, sketch) in real.iter().zip(&model.tasks) {
            assert_eq!(real.abort.is_finished(), sketch.done);
        }
    }
    let alive: Vec<_> = (0..real.len()).filter(|id| !model.tasks[*id].done).collect();
    trace.borrow_mut().clear();
    executor.close();
    let dropped: Vec<_> = alive.iter().map(|id| format!("drop {id}")).collect();
    assert_eq!(*trace.borrow(), dropped, "spawn order, seed {seed}");
    drop(entered);
    drop(main);
    drop(executor);
    for (real, sketch) in real.iter_mut().zip(&model.tasks) {
        let waker = real.waker.take();
        let Some(handle) = &mut real.handle else { continue };
        match answer(handle) {
            Ok(_) => assert!(sketch.done && !sketch.cancelled && !sketch.panicked),
            Err(error) if error.is_panic() => assert!(sketch.panicked),
            Err(_) => assert!(sketch.cancelled || !sketch.done),
        }
        waker.into_iter().for_each(Waker::wake);
    }
}
