//! Tasks and wakers (SEMANTICS section 8): what becomes of a handle, an abort, a panic and a wake,
//! at whatever moment they come, and in which order tasks are polled.
//!
//! Most tests record a trace and compare it to a list. The traces are exact: the order of polls is
//! a promise.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/each.rs"]
mod each;

mod handles;
mod abort;
mod panics;
mod wakes;
mod fairness;
mod ready_at_once;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use tamam::{JoinError, JoinHandle, Runtime, yield_now};

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
