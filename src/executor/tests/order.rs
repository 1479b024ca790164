//! In which order tasks are polled, and how many polls a run makes.

use core::future::poll_fn;
use core::ops::ControlFlow;
use core::task::{Context, Poll, ready};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::{consume_budget, yield_now};
use super::{Trace, executor, run_until_idle};

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
    run_until_idle(&executor);
    assert_eq!(*trace.borrow(), ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]);
}

#[test]
fn g9_units_are_given_to_each_poll() {
    let executor = Rc::new(executor());
    let _entered = executor.enter();
    let spent = Rc::new(Cell::new(0));
    let count = spent.clone();
    drop(executor.spawn(poll_fn(move |cx| {
        while consume_budget(cx).is_ready() {
            count.set(count.get() + 1);
        }
        if count.get() < 300 { Poll::Pending } else { Poll::Ready(()) }
    })));
    run_until_idle(&executor);
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
                ready!(consume_budget(cx));
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
