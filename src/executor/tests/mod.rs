//! Tests of the executor: one trace of what it does for each promise, and a naive model with random
//! steps.
//!
//! This file has what the tests share. Read next: `model.rs`.

mod close;
mod handles;
mod model;
mod order;
mod panics;
mod wakes;

use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::{Home, JoinError, JoinHandle, TaskExecutor, waker};

type Trace = Rc<RefCell<Vec<String>>>;

fn executor() -> TaskExecutor {
    TaskExecutor::new(Waker::noop().clone())
}

/// Makes the executor the thread's until dropped.
struct Entered(Option<Rc<Home>>);

impl Drop for Entered {
    fn drop(&mut self) {
        drop(waker::replace_home(self.0.take()));
    }
}

impl TaskExecutor {
    fn enter(&self) -> Entered {
        Entered(waker::replace_home(Some(self.home.clone())))
    }
}

/// Polls what is ready until nothing is, without a main future.
fn run_until_idle(executor: &TaskExecutor) {
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
