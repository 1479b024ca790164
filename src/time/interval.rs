//! `Interval`: one deadline after the other, and what happens when ticks are missed. The last file
//! of this folder.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{Sleep, saturating_add, sleep_until};

/// Ticks at once, then every `period`.
///
/// # Panics
/// If `period` is zero. [`tick`](Interval::tick) panics outside a runtime; calling `interval`
/// itself is fine anywhere.
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// tamam::run(async {
///     let start = Instant::now();
///     let mut interval = tamam::time::interval(Duration::from_millis(1));
///     interval.tick().await; // at once
///     interval.tick().await;
///     interval.tick().await;
///     assert!(start.elapsed() >= Duration::from_millis(2));
/// });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks at `start`, then every `period`.
///
/// # Panics
/// If `period` is zero. [`tick`](Interval::tick) panics outside a runtime; calling `interval_at`
/// itself is fine anywhere.
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// tamam::run(async {
///     let start = Instant::now() + Duration::from_millis(1);
///     let mut interval = tamam::time::interval_at(start, Duration::from_millis(2));
///     assert_eq!(interval.tick().await, start);
///     assert_eq!(interval.tick().await, start + Duration::from_millis(2));
/// });
/// ```
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "the period of an interval must not be zero");
    Interval { sleep: sleep_until(start), period, missed: MissedTickBehavior::default() }
}

/// Ticks at a fixed period; from [`interval()`] and [`interval_at`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::time::{MissedTickBehavior, interval};
///
/// tamam::run(async {
///     let mut ticks = interval(Duration::from_millis(2));
///     ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
///     let first = ticks.tick().await;
///     let second = ticks.tick().await;
///     assert!(second - first >= ticks.period());
/// });
/// ```
pub struct Interval {
    /// Its deadline is the time of the next tick.
    sleep: Sleep,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and returns the time when it was due.
    ///
    /// # Panics
    /// When polled outside a runtime.
    /// # Cancel safety
    /// Cancel safe: only a future that returns a tick takes it.
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::time::{interval, timeout};
    ///
    /// tamam::run(async {
    ///     let mut interval = interval(Duration::from_millis(2));
    ///     let first = interval.tick().await;
    ///     while timeout(Duration::from_millis(1), interval.tick()).await.is_err() {}
    ///     let third = interval.tick().await;
    ///     assert_eq!(third - first, Duration::from_millis(4)); // none was lost
    /// });
    /// ```
    pub fn tick(&mut self) -> impl Future<Output = Instant> {
        Tick(self)
    }

    /// [`tick`](Self::tick) as a poll. It wakes the task of the latest call.
    ///
    /// # Panics
    /// Outside a runtime.
    /// # Examples
    /// As a stream:
    /// ```
    /// use std::time::Duration;
    /// use futures_util::{StreamExt, stream};
    ///
    /// tamam::run(async {
    ///     let mut interval = tamam::time::interval(Duration::from_millis(1));
    ///     let ticks = stream::poll_fn(move |cx| interval.poll_tick(cx).map(Some));
    ///     let times: Vec<_> = ticks.take(3).collect().await;
    ///     assert_eq!(times[2] - times[0], Duration::from_millis(2));
    /// });
    /// ```
    #[track_caller]
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.deadline();
        self.sleep.reset(self.missed.next(due, self.period));
        Poll::Ready(due)
    }

    /// Moves the next tick to one period from now. Later ticks follow from there.
    ///
    /// # Examples
    /// A heartbeat that is due only after a pause:
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// tamam::run(async {
    ///     let period = Duration::from_millis(2);
    ///     let mut heartbeat = tamam::time::interval(period);
    ///     heartbeat.tick().await;
    ///
    ///     // A message went out, so the next heartbeat is a period from now.
    ///     let sent = Instant::now();
    ///     heartbeat.reset();
    ///     assert!(heartbeat.tick().await >= sent + period);
    /// });
    /// ```
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// Moves the next tick to now. Later ticks follow from there.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// tamam::run(async {
    ///     let mut ticks = tamam::time::interval(Duration::from_secs(3600));
    ///     ticks.tick().await;
    ///     ticks.reset_immediately();
    ///     let second = ticks.tick().await; // not in an hour
    ///     assert!(second <= Instant::now());
    /// });
    /// ```
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// Moves the next tick to a time `after` now, which need not be the period. Later ticks follow
    /// a period apart from there. A time that is too far ahead never comes.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// tamam::run(async {
    ///     let period = Duration::from_millis(4);
    ///     let mut ticks = tamam::time::interval(period);
    ///     ticks.tick().await;
    ///     let before = Instant::now();
    ///     ticks.reset_after(period / 4);
    ///     let next = ticks.tick().await;
    ///     assert!(next >= before + period / 4);
    ///     assert_eq!(ticks.tick().await, next + period);
    /// });
    /// ```
    pub fn reset_after(&mut self, after: Duration) {
        self.reset_at(saturating_add(Instant::now(), after));
    }

    /// Moves the next tick to `deadline`; one that has passed is due at once. Later ticks follow a
    /// period apart from there.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// tamam::run(async {
    ///     let mut ticks = tamam::time::interval(Duration::from_millis(1));
    ///     let deadline = Instant::now() + Duration::from_millis(3);
    ///     ticks.reset_at(deadline);
    ///     assert_eq!(ticks.tick().await, deadline);
    /// });
    /// ```
    pub fn reset_at(&mut self, deadline: Instant) {
        self.sleep.reset(deadline);
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What happens when ticks are missed. The default is `Burst`.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets what happens when ticks are missed, from the next tick on.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::time::{MissedTickBehavior, interval};
    ///
    /// let mut ticks = interval(Duration::from_secs(1));
    /// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst);
    /// ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    /// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Skip);
    /// ```
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval")
            .field("next", &self.sleep.deadline())
            .field("period", &self.period)
            .field("missed_tick_behavior", &self.missed)
            .finish()
    }
}

/// This is not an `async fn`, so that a panic outside a runtime names the line of the `await`.
#[must_use = "futures do nothing unless awaited"]
struct Tick<'a>(&'a mut Interval);

impl Future for Tick<'_> {
    type Output = Instant;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        self.0.poll_tick(cx)
    }
}

/// What an [`Interval`] does after ticks that were due and not taken.
///
/// With a period of 10 ms, when the tick due at 20 is taken at 45, the next are due at:
///
/// | | |
/// |---|---|
/// | `Burst` | 30, 40, 50, 60: two of them at once, then as planned |
/// | `Delay` | 55, 65, 75: a period after it was taken |
/// | `Skip` | 50, 60, 70: as planned, without those that were missed |
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::time::{MissedTickBehavior, interval};
///
/// tamam::run(async {
///     let period = Duration::from_millis(1);
///     let mut ticks = interval(period);
///     ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
///     let first = ticks.tick().await;
///     std::thread::sleep(3 * period); // the ticks after 1, 2 and 3 ms are missed
///
///     assert_eq!(ticks.tick().await, first + period); // late, and taken once
///     assert!(ticks.tick().await >= first + 4 * period);
/// });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// Keeps the number of ticks: the missed ones come as fast as they are taken.
    #[default]
    Burst,
    /// Keeps the distance between ticks: a tick that is taken late moves all later ones. Late means
    /// by 5 ms, or by a period if that is shorter.
    Delay,
    /// Keeps the plan: the next tick is the first planned one after now.
    Skip,
}

impl MissedTickBehavior {
    /// When the next tick is due, if the one that was due at `due` is taken now.
    fn next(self, due: Instant, period: Duration) -> Instant {
        match self {
            MissedTickBehavior::Burst => saturating_add(due, period),
            MissedTickBehavior::Delay => next_delayed(due, period, Instant::now()),
            MissedTickBehavior::Skip => next_planned(due, period, Instant::now()),
        }
    }
}

/// A tick that is late by less is not missed. Every wake-up is a little late, and that must not add
/// up. Tokio has the same limit.
const LATE: Duration = Duration::from_millis(5);

/// A period after `due`; a period after `now` if the tick is late.
fn next_delayed(due: Instant, period: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due) >= LATE.min(period);
    saturating_add(if late { now } else { due }, period)
}

/// The first `due + n * period` after `now`, and not `due` itself.
fn next_planned(due: Instant, period: Duration, now: Instant) -> Instant {
    let past = now.saturating_duration_since(due).as_nanos() % period.as_nanos();
    let past = Duration::new((past / 1_000_000_000) as u64, (past % 1_000_000_000) as u32);
    let latest = now.checked_sub(past).unwrap_or(due); // the last planned tick up to `now`
    saturating_add(latest.max(due), period)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::panic::catch_unwind;
    use std::pin::pin;
    use std::task::Poll;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::super::timeout;
    use super::{Interval, MissedTickBehavior, interval, interval_at, next_delayed, next_planned};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn plans_after_missed_ticks() {
        let due = Instant::now() + 20 * MS;
        let now = due + 25 * MS;
        assert_eq!(next_planned(due, 10 * MS, now), due + 30 * MS);
        assert_eq!(next_planned(due, 10 * MS, due), due + 10 * MS);
        assert_eq!(next_planned(due, 10 * MS, due + 10 * MS), due + 20 * MS);
        assert_eq!(next_planned(due, 10 * MS, due - MS), due + 10 * MS);
        assert_eq!(next_delayed(due, 10 * MS, now), now + 10 * MS);
        assert_eq!(next_delayed(due, 10 * MS, due + MS), due + 10 * MS);
        assert_eq!(next_delayed(due, MS, due + 2 * MS), due + 3 * MS);
        for plan in [next_planned, next_delayed] {
            assert!(plan(due, Duration::MAX, now) > now + 10_000_000 * MS);
            assert!(plan(due, Duration::from_nanos(1), now) > now);
        }
    }

    #[test]
    fn first_tick_at_once_then_every_period() {
        crate::run(async {
            let before = Instant::now();
            let mut ticks = interval(2 * MS);
            let first = ticks.tick().await;
            assert!(first >= before && first <= Instant::now());
            for n in 1..4 {
                assert_eq!(ticks.tick().await, first + n * 2 * MS);
                assert!(Instant::now() >= first + n * 2 * MS);
            }
        });
    }

    fn late(behavior: MissedTickBehavior) -> (Interval, Instant) {
        let mut ticks = interval(10 * MS);
        ticks.set_missed_tick_behavior(behavior);
        assert_eq!(ticks.missed_tick_behavior(), behavior);
        let first = ticks.sleep.deadline();
        thread::sleep(25 * MS);
        (ticks, first)
    }

    #[test]
    fn late_consumer() {
        crate::run(async {
            let (mut ticks, first) = late(MissedTickBehavior::Burst);
            for n in 0..4 {
                assert_eq!(ticks.tick().await, first + n * 10 * MS);
            }
            let (mut ticks, first) = late(MissedTickBehavior::Delay);
            assert_eq!(ticks.tick().await, first);
            assert!(ticks.tick().await >= first + 35 * MS);
            let (mut ticks, first) = late(MissedTickBehavior::Skip);
            assert_eq!(ticks.tick().await, first);
            let planned = ticks.tick().await - first;
            assert!(planned >= 30 * MS && planned.as_nanos() % 10_000_000 == 0);
        });
    }

    #[test]
    fn dropped_tick_loses_none() {
        crate::run(async {
            let start = Instant::now();
            let mut ticks = interval_at(start, 3 * MS);
            assert_eq!(ticks.tick().await, start);
            while timeout(MS, ticks.tick()).await.is_err() {}
            poll_fn(|cx| Poll::Ready(pin!(ticks.tick()).poll(cx).is_ready())).await;
            assert!(ticks.tick().await <= start + 9 * MS);
        });
    }

    #[test]
    fn reset_starts_over_and_huge_periods_never_tick() {
        crate::run(async {
            let mut ticks = interval(5 * MS);
            ticks.tick().await;
            let from = Instant::now();
            ticks.reset();
            assert!(ticks.tick().await >= from + 5 * MS);

            let mut never = interval(Duration::MAX);
            never.tick().await;
            assert!(timeout(MS, never.tick()).await.is_err());
            never.reset();
            assert!(timeout(MS, never.tick()).await.is_err());
            assert_eq!(never.period(), Duration::MAX);
        });
    }

    #[test]
    fn zero_period_panics() {
        assert!(catch_unwind(|| interval(Duration::ZERO)).is_err());
    }
}
