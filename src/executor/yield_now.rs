//! A future that lets other tasks run first. It works with any executor: it wakes its own waker,
//! and is Pending once.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// Lets every other ready task run before this one goes on.
///
/// The task goes to the back of the run queue; every task that was ready before it is polled
/// first. It works under any executor: the future wakes its own waker and is Pending once.
///
/// A yield does not let I/O and timers run. They have their turn when every ready task has been
/// polled, or the budget is used up ([`Builder::budget`](crate::Builder::budget)). So do not yield
/// in a loop until another task's send is out, say: on io_uring that loop uses up the budget first.
/// Wait for the event itself instead.
///
/// # Cancel safety
/// Cancel safe: it holds nothing.
/// # Examples
/// ```
/// use std::{cell::RefCell, rc::Rc};
///
/// let trace = Rc::new(RefCell::new(Vec::new()));
/// let other = trace.clone();
/// tamam::run(async move {
///     tamam::spawn(async move { other.borrow_mut().push("task") });
///     trace.borrow_mut().push("before");
///     tamam::yield_now().await;
///     trace.borrow_mut().push("after");
///     assert_eq!(*trace.borrow(), ["before", "task", "after"]);
/// });
/// ```
#[inline]
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
