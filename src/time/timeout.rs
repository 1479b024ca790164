//! `Timeout`: a future and a `Sleep`; and `Elapsed`, the error when the sleep is over first.
//!
//! The future must stay pinned, the sleep need not. So one function here projects the pin; it has
//! the only unsafe code of this folder. Read next: `interval.rs`.

#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{Sleep, saturating_add, sleep_until};
use crate::context;

/// Waits for `future`, for a length of time at most.
///
/// The deadline is fixed by this call, not by the first poll. Each poll polls the future first,
/// then looks at the deadline: if both are ready, the value of the future wins, also with a
/// `duration` of zero. A `duration` too long to be represented sets no limit.
///
/// # Errors
/// [`Elapsed`], when the deadline has passed and the future is not ready. The drop of the `Timeout`
/// drops the future; what that means stands under "Cancel safety" of that future.
/// # Panics
/// When it is polled outside a runtime and the future is not ready. Calling `timeout` itself is
/// fine anywhere.
/// # Cancel safety
/// As cancel safe as `future`.
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::time::{sleep, timeout};
///
/// tamam::run(async {
///     assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
///     assert!(timeout(Duration::from_millis(1), sleep(Duration::MAX)).await.is_err());
/// });
/// ```
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    timeout_at(saturating_add(Instant::now(), duration), future)
}

/// Waits for `future`, until a point in time at most.
///
/// Like [`timeout()`], for several futures that share one deadline.
///
/// # Errors
/// [`Elapsed`], when the deadline has passed and the future is not ready.
/// # Panics
/// When it is polled outside a runtime and the future is not ready. Calling `timeout_at` itself is
/// fine anywhere.
/// # Cancel safety
/// As cancel safe as `future`.
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use tamam::time::{Elapsed, sleep, timeout_at};
///
/// fn main() -> Result<(), Elapsed> {
///     tamam::run(async {
///         let deadline = Instant::now() + Duration::from_secs(5);
///         timeout_at(deadline, sleep(Duration::from_millis(1))).await?;
///         timeout_at(deadline, sleep(Duration::from_millis(1))).await?;
///         assert!(Instant::now() < deadline);
///         Ok(())
///     })
/// }
/// ```
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: future.into_future(), sleep: sleep_until(deadline), put_off: false }
}

/// Future of [`timeout()`] and [`timeout_at`].
///
/// # Examples
/// It can be stored and polled by reference:
/// ```
/// use std::future::{Ready, ready};
/// use std::time::Duration;
/// use tamam::time::{Timeout, timeout};
///
/// tamam::run(async {
///     let mut answer: Timeout<Ready<u32>> = timeout(Duration::from_secs(1), ready(42));
///     assert_eq!((&mut answer).await, Ok(42));
/// });
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct Timeout<F> {
    /// Pinned if the `Timeout` is.
    future: F,
    sleep: Sleep,
    /// The deadline has passed, and the future will be polled once more.
    put_off: bool,
}

impl<F> Timeout<F> {
    /// The fields. The future is pinned.
    fn project(self: Pin<&mut Self>) -> (Pin<&mut F>, &mut Sleep, &mut bool) {
        // SAFETY: nothing is moved out of `this`. `future` is pinned again on the next line, and
        // the other two fields are `Unpin`.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: `future` lies in a pinned `Timeout`, and cannot be moved out of it: this function
        // is the only access to it, `Timeout` has no `Drop` and is not `repr(packed)`, and it is
        // `Unpin` only if `F` is, since `Unpin` is an auto trait.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        (future, &mut this.sleep, &mut this.put_off)
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, sleep, put_off) = self.project();
        if let Poll::Ready(value) = future.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        ready!(sleep.poll_deadline(cx));
        // The future may be ready, and Pending only because the budget of the task is used up. So
        // it gets one more poll, with a fresh budget. It gets only one: a future that always uses
        // up the budget (a loop that receives from a flooding peer) would never time out.
        if !*put_off {
            *put_off = true;
            ready!(context::consume_budget(cx));
        }
        Poll::Ready(Err(Elapsed(())))
    }
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("deadline", &self.sleep.deadline()).finish_non_exhaustive()
    }
}

/// The error of [`timeout()`]: the deadline passed before the future was ready.
///
/// It converts to an [`io::Error`] of kind `TimedOut`, so `?` works in functions that return those.
///
/// # Examples
/// ```
/// use std::io;
/// use std::time::Duration;
/// use tamam::time::{sleep, timeout};
///
/// let result: io::Result<()> = tamam::run(async {
///     timeout(Duration::from_millis(1), sleep(Duration::MAX)).await?;
///     Ok(())
/// });
/// assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::io;
    use std::marker::PhantomPinned;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant};

    use super::super::sleep;
    use super::{Elapsed, timeout, timeout_at};
    use crate::context;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn value_wins_if_both_are_ready() {
        crate::run(async {
            assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
            let both = Instant::now() + 20 * MS;
            let mut limited = pin!(timeout_at(both, super::sleep_until(both)));
            poll_fn(|cx| {
                assert!(limited.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(limited.await, Ok(()));
            assert_eq!(timeout(Duration::MAX, sleep(MS)).await, Ok(()));
        });
    }

    #[test]
    fn elapses_after_one_poll_of_a_pending_future() {
        crate::run(async {
            let mut polls = 0;
            let count = poll_fn(|_| {
                polls += 1;
                Poll::<()>::Pending
            });
            assert_eq!(timeout(Duration::ZERO, count).await, Err(Elapsed(())));
            assert_eq!(polls, 1);
            let before = Instant::now();
            assert!(timeout(2 * MS, pending::<()>()).await.is_err());
            assert!(before.elapsed() >= 2 * MS);
            assert_eq!(context::timers().unwrap().len(), 0);
        });
    }

    /// A future that always spends the whole budget still times out; one that needs a single unit
    /// of a budget others have spent still gives its value.
    #[test]
    fn spent_budget_neither_hides_a_value_nor_the_deadline() {
        crate::run(async {
            let spender = poll_fn(|cx| {
                while context::consume_budget(cx).is_ready() {}
                Poll::<()>::Pending
            });
            assert!(timeout(Duration::ZERO, spender).await.is_err());

            let mut limited = pin!(timeout(Duration::ZERO, poll_fn(context::consume_budget)));
            let mut polls = 0;
            let value = poll_fn(|cx| {
                polls += 1;
                while polls == 1 && context::consume_budget(cx).is_ready() {}
                limited.as_mut().poll(cx)
            });
            assert_eq!(value.await, Ok(()));
            assert_eq!(polls, 2);
        });
    }

    /// A future that must not move once polled.
    #[derive(Default)]
    struct Fixed(Option<usize>, PhantomPinned);

    impl Future for Fixed {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            let address = &raw const *self as usize;
            // SAFETY: only the number is written, nothing moves.
            let known = unsafe { &mut self.get_unchecked_mut().0 };
            assert_eq!(*known.get_or_insert(address), address);
            Poll::Pending
        }
    }

    #[test]
    fn the_future_stays_where_it_was_pinned() {
        crate::run(async {
            let mut limited = pin!(timeout(MS, Fixed::default()));
            poll_fn(|cx| Poll::Ready(limited.as_mut().poll(cx).is_pending())).await;
            assert!(limited.await.is_err());
        });
    }

    #[test]
    fn becomes_an_io_error() {
        let error = io::Error::from(Elapsed(()));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "deadline has elapsed");
    }
}
