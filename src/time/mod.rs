//! Time: sleep until a deadline, limit a future, tick at a period.
//!
//! Deadlines are [`std::time::Instant`]s (`CLOCK_MONOTONIC`: time spent suspended does not count).
//! A future fixes its deadline when it is made, and never fires before it. A deadline too far ahead
//! to be represented never fires; [`Duration::MAX`](std::time::Duration::MAX) is fine everywhere.
//! You can make these futures anywhere, and poll them inside a runtime. A future registers with the
//! runtime that polls it, and unregisters when it is dropped.
//!
//! | | |
//! |---|---|
//! | [`sleep()`], [`sleep_until`] | wait for a deadline |
//! | [`timeout()`], [`timeout_at`] | wait for a future, until a deadline at most |
//! | [`interval()`], [`interval_at`] | wait for one deadline after the other |

// `wheel.rs` decides what is due, and knows no clock. `timers.rs` adds the clock. The other files
// are futures on top. Read next: `wheel.rs`.

mod wheel;

mod timers;

mod sleep;

mod timeout;

mod interval;

pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Elapsed, Timeout, timeout, timeout_at};
pub(crate) use timers::Timers;
#[cfg(feature = "hyper")]
pub(crate) use wheel::TimerKey;

pub use std::time::{Duration, Instant};

/// `at + by`; if that cannot be represented, an `Instant` so late that it never comes.
pub(crate) fn saturating_add(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or_else(|| {
        // std does not tell the last `Instant`. Steps of halving length end within a second of it.
        let steps = (0..u64::BITS).rev().map(|bit| Duration::from_secs(1 << bit));
        steps.fold(at, |latest, step| latest.checked_add(step).unwrap_or(latest))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::saturating_add;

    #[test]
    fn addition_saturates() {
        let now = Instant::now();
        assert_eq!(saturating_add(now, Duration::from_nanos(7)), now + Duration::from_nanos(7));
        let last = saturating_add(now, Duration::MAX);
        assert!(last - now > Duration::from_secs(u64::MAX / 2 - (1 << 40)));
        assert!(saturating_add(last, Duration::from_secs(1)) >= last);
    }
}
