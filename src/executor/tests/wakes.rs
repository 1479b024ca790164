//! Wakes: during a poll, from other threads, from outside the context, after the end.

use core::future::poll_fn;
use core::ops::ControlFlow;
use core::task::{Poll, Waker};
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::thread;

use super::super::TaskExecutor;
use super::{Count, Trace, ask, executor, run_until_idle};

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
    run_until_idle(&executor);
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
        let executor = TaskExecutor::new(Waker::from(notified.clone()));
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
        run_until_idle(&executor);
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
            run_until_idle(&executor);
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
    let executor = TaskExecutor::new(Waker::from(Arc::new(Unpark(thread::current()))));
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
fn wakers_know_each_other_and_the_way_home() {
    let notified = Arc::new(Count(AtomicUsize::new(0)));
    let executor = TaskExecutor::new(Waker::from(notified.clone()));
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
    run_until_idle(&executor);
    let waker = slot.take().unwrap();
    let notifications = || notified.0.load(Ordering::SeqCst);
    let entered = executor.enter();
    waker.wake_by_ref();
    assert_eq!(notifications(), 0, "at home: no notifier");
    run_until_idle(&executor);
    {
        let _other = other.enter();
        waker.wake_by_ref();
        assert_eq!(notifications(), 1, "another executor is entered");
        waker.wake_by_ref();
        assert_eq!(notifications(), 1, "it is in the inbox already");
    }
    waker.wake_by_ref(); // home again, while it is in the inbox: one poll all the same
    run_until_idle(&executor);
    drop(entered);
    waker.wake_by_ref();
    assert_eq!(notifications(), 2, "outside the context");
    assert!(!executor.is_idle());
    run_until_idle(&executor);
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
    run_until_idle(&first);
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
