//! `Sleep`: a deadline, and a place in the wheel of the runtime that polls it.
//!
//! The deadline is an `Instant`, which means the same in every runtime. A poll takes the place in
//! the wheel, and moves to another wheel if another runtime polls; the drop gives it up. Read next:
//! `timeout.rs`.

use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::wheel::TimerKey;
use super::{Timers, saturating_add};
use crate::context;

/// Waits for a length of time.
///
/// The deadline is fixed by this call, not by the first poll. A `duration` of zero is over at the
/// first poll. A `duration` too long to be represented never ends.
///
/// # Panics
/// When polled outside a runtime. Calling `sleep` itself is fine anywhere.
/// # Cancel safety
/// Cancel safe: dropping it unregisters at once and loses nothing.
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// tamam::run(async {
///     let before = Instant::now();
///     tamam::time::sleep(Duration::from_millis(2)).await;
///     assert!(before.elapsed() >= Duration::from_millis(2));
/// });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(saturating_add(Instant::now(), duration))
}

/// Waits for a point in time. A `deadline` in the past is over at the first poll.
///
/// # Panics
/// When polled outside a runtime. Calling `sleep_until` itself is fine anywhere.
/// # Cancel safety
/// Cancel safe: dropping it unregisters at once and loses nothing.
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// tamam::run(async {
///     let deadline = Instant::now() + Duration::from_millis(2);
///     tamam::time::sleep_until(deadline).await;
///     assert!(Instant::now() >= deadline);
/// });
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, place: Place::Nowhere }
}

/// Future of [`sleep()`] and [`sleep_until`].
///
/// You may poll it again after it was ready, and in one runtime after another: it registers with
/// the one that polls it.
///
/// # Panics
/// When polled outside a runtime.
/// # Examples
/// One deadline over many waits:
/// ```
/// use std::time::Duration;
/// use std::pin::pin;
/// use futures_util::future::{Either, select};
/// use tamam::time::{interval, sleep};
///
/// tamam::run(async {
///     let mut end = sleep(Duration::from_millis(3));
///     let mut ticks = interval(Duration::from_millis(1));
///     let mut count = 0;
///     while let Either::Left(_) = select(pin!(ticks.tick()), &mut end).await {
///         count += 1;
///     }
///     assert!(count >= 1 && end.is_elapsed());
/// });
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    place: Place,
}

enum Place {
    /// Not registered: not polled yet, or ready.
    Nowhere,
    /// A poll registered it in this wheel. Since then the runtime may have ended, or the timer may
    /// have fired, so that the key is stale. The `Weak` keeps the allocation, so its address
    /// identifies the runtime.
    Wheel(Weak<Timers>, TimerKey),
}

impl Sleep {
    /// When the sleep is over. For one that never ends, an `Instant` in the far future.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tamam::time::{sleep, sleep_until};
    ///
    /// let deadline = Instant::now() + Duration::from_secs(1);
    /// assert_eq!(sleep_until(deadline).deadline(), deadline);
    /// assert!(!sleep(Duration::MAX).is_elapsed());
    /// ```
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has passed.
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Moves the deadline, whether it has passed or not.
    ///
    /// A task that already waits on this future is woken at the new deadline, not at the old one.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// tamam::run(async {
    ///     let mut sleep = tamam::time::sleep(Duration::MAX);
    ///     let deadline = Instant::now() + Duration::from_millis(1);
    ///     sleep.reset(deadline);
    ///     (&mut sleep).await;
    ///     assert!(Instant::now() >= deadline && sleep.is_elapsed());
    /// });
    /// ```
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let Place::Wheel(timers, key) = &mut self.place else { return };
        let Some(timers) = timers.upgrade() else { return };
        if let Some(waker) = timers.remove(*key) {
            *key = timers.insert(timers.to_ns(deadline), waker);
        }
    }

    /// Like `poll`, but takes nothing from the budget of the task. Ready: the deadline has passed,
    /// and [`Waited`] tells whether the task had to wait for it. Pending: the waker of `cx` is
    /// registered. Panics outside a runtime.
    #[track_caller]
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        let Some(current) = context::timers() else { panic!("{}", context::missing()) };
        if let Place::Wheel(timers, key) = &self.place {
            if timers.as_ptr() == Rc::as_ptr(&current) {
                if current.update(*key, cx.waker()) {
                    // The wheel turns between polls only. A future may be polled again and again in
                    // one poll of its task, so the clock decides (SEMANTICS TM8).
                    if !self.is_elapsed() {
                        return Poll::Pending;
                    }
                    self.unregister();
                    return Poll::Ready(Waited::No);
                }
                self.place = Place::Nowhere;
                // The key is stale, but that does not mean that the deadline has passed: a timer
                // that had fired may have been reset since, or the runtime has cleared its wheel.
                if current.has_reached(current.to_ns(self.deadline)) {
                    return Poll::Ready(Waited::Yes);
                }
            } else {
                self.unregister();
            }
        }
        if self.is_elapsed() {
            return Poll::Ready(Waited::No);
        }
        let key = current.insert(current.to_ns(self.deadline), cx.waker().clone());
        self.place = Place::Wheel(Rc::downgrade(&current), key);
        Poll::Pending
    }

    /// Gives up the place in the wheel, if there is one.
    fn unregister(&mut self) {
        if let Place::Wheel(timers, key) = std::mem::replace(&mut self.place, Place::Nowhere) {
            // The wheel is not borrowed any more when this drops the waker.
            drop(timers.upgrade().and_then(|timers| timers.remove(key)));
        }
    }
}

/// Whether a sleep that is over has made its task wait.
pub(super) enum Waited {
    Yes,
    No,
}

impl Future for Sleep {
    type Output = ();

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.get_mut().poll_deadline(cx)) {
            Waited::Yes => Poll::Ready(()),
            Waited::No => context::consume_budget(cx),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use super::{Sleep, sleep, sleep_until};
    use crate::context;

    const MS: Duration = Duration::from_millis(1);

    /// How many timers the runtime of this thread has.
    fn registered() -> usize {
        context::timers().expect("inside a runtime").len()
    }

    async fn poll_once(sleep: &mut Sleep) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *sleep).poll(cx))).await
    }

    #[test]
    fn never_early_and_over_at_once_when_past() {
        crate::run(async {
            for us in [0, 1, 50, 100, 700, 1500] {
                let deadline = Instant::now() + Duration::from_micros(us);
                sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
            }
            assert!(poll_once(&mut sleep(Duration::ZERO)).await.is_ready());
            let mut past = sleep_until(Instant::now());
            assert!(poll_once(&mut past).await.is_ready());
            assert!(poll_once(&mut past).await.is_ready()); // and again
            assert_eq!(registered(), 0);
        });
    }

    #[test]
    fn drop_unregisters_at_once() {
        crate::run(async {
            let mut never = sleep(Duration::MAX);
            let mut later = sleep(1000 * MS);
            assert_eq!(registered(), 0);
            assert!(poll_once(&mut never).await.is_pending());
            assert!(poll_once(&mut later).await.is_pending());
            assert!(poll_once(&mut later).await.is_pending());
            assert_eq!(registered(), 2);
            drop(later);
            assert_eq!(registered(), 1);
            drop(never);
            assert_eq!(registered(), 0);
        });
    }

    #[test]
    fn outlives_its_runtime_and_moves_to_the_next() {
        let mut slow = sleep(20 * MS);
        let mut left = sleep(1000 * MS);
        crate::run(async {
            assert!(poll_once(&mut slow).await.is_pending());
            assert!(poll_once(&mut left).await.is_pending());
        });
        drop(left);
        crate::run(async {
            let deadline = slow.deadline();
            slow.await;
            assert!(Instant::now() >= deadline);
            assert_eq!(registered(), 0);
        });
    }

    #[test]
    fn reset_moves_the_deadline_both_ways() {
        crate::run(async {
            let mut timer = sleep(1000 * MS);
            assert!(poll_once(&mut timer).await.is_pending());
            timer.reset(Instant::now() + 2 * MS);
            // Waits without polling it again: the wake-up is that of the first poll.
            poll_fn(|_| if timer.is_elapsed() { Poll::Ready(()) } else { Poll::Pending }).await;
            (&mut timer).await;

            let deadline = Instant::now() + 20 * MS;
            timer.reset(deadline);
            assert!(!timer.is_elapsed());
            timer.await;
            assert!(Instant::now() >= deadline);
        });
    }

    #[test]
    fn reset_after_it_fired_unseen_is_not_early() {
        crate::run(async {
            let mut timer = sleep(MS);
            assert!(poll_once(&mut timer).await.is_pending());
            sleep(2 * MS).await;
            let deadline = Instant::now() + 20 * MS;
            timer.reset(deadline);
            assert!(poll_once(&mut timer).await.is_pending());
            timer.await;
            assert!(Instant::now() >= deadline);
        });
    }

    #[test]
    fn polled_outside_panics_with_the_reason() {
        let mut never = sleep(Duration::MAX);
        let mut cx = Context::from_waker(Waker::noop());
        let caught = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut never).poll(&mut cx)));
        let payload = caught.expect_err("no runtime here");
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        assert_eq!(text, Some(context::missing()));
    }
}
