//! Time (SEMANTICS section 9): nothing is early, nothing is lost, nothing is left behind.
//!
//! No test asks how late something is, only that it is not early: a loaded machine is slow. Where
//! a consumer has to be late it blocks the thread, so that it is late for certain.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/each.rs"]
mod each;

mod never_early;
mod fairness;
mod for_ever;
mod elsewhere;
mod abandoned;
mod intervals;
mod limits;
mod order;

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::time::{
    Interval, MissedTickBehavior, Sleep, interval, interval_at, sleep, sleep_until, timeout,
    timeout_at,
};

const MS: Duration = Duration::from_millis(1);

/// In nanoseconds this passes what 64 bits hold, by some years.
const CENTURIES: Duration = Duration::from_secs(600 * 365 * 86_400);

/// And this is some years short of it.
const ALMOST_CENTURIES: Duration = Duration::from_secs(580 * 365 * 86_400);

/// Runs a test on each engine, on a runtime with the default sizes.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    common::with_both(Runtime::builder(), test);
}

/// How many timers the runtime of this thread has.
fn registered() -> usize {
    tamam::metrics().timers
}

const HOUR: Duration = Duration::from_secs(3600);

/// Repeats an attempt that has to be prepared before a deadline, with more and more time for it,
/// until it says that it was.
async fn in_time<F: Future<Output = bool>>(attempt: impl Fn(Instant) -> F) {
    let mut span = 20 * MS;
    while !attempt(Instant::now() + span).await {
        span *= 2;
    }
}

/// Counts the polls of a future that never ends.
fn counting(polls: &Cell<u32>) -> impl Future<Output = ()> {
    poll_fn(|_| {
        polls.set(polls.get() + 1);
        Poll::Pending
    })
}

type Never = (&'static str, Pin<Box<dyn Future<Output = ()>>>);

/// Every way to say "never".
fn never() -> Vec<Never> {
    async fn second_tick(mut ticks: Interval) {
        ticks.tick().await;
        ticks.tick().await;
    }
    async fn first_tick_after_reset(mut ticks: Interval) {
        ticks.reset();
        ticks.tick().await;
    }
    fn late(behavior: MissedTickBehavior) -> Interval {
        let mut ticks = interval(Duration::MAX);
        ticks.set_missed_tick_behavior(behavior);
        ticks
    }
    async fn limit<F: Future>(limited: F) {
        limited.await;
    }
    fn reset(mut sleep: Sleep, to: Instant) -> Sleep {
        sleep.reset(to);
        sleep
    }
    let now = Instant::now();
    let far = now + CENTURIES;
    let almost = now + ALMOST_CENTURIES;
    // The last moment that can be told, or close to it.
    let last = sleep(Duration::MAX).deadline();
    vec![
        ("sleep(MAX)", Box::pin(sleep(Duration::MAX))),
        ("sleep of i64::MAX s", Box::pin(sleep(Duration::from_secs(i64::MAX as u64)))),
        ("sleep of centuries", Box::pin(sleep(CENTURIES))),
        ("sleep of almost that", Box::pin(sleep(ALMOST_CENTURIES))),
        ("sleep of u64::MAX ns", Box::pin(sleep(Duration::from_nanos(u64::MAX)))),
        ("sleep of u64::MAX - 1 ns", Box::pin(sleep(Duration::from_nanos(u64::MAX - 1)))),
        ("sleep_until(far)", Box::pin(sleep_until(far))),
        ("sleep_until(last)", Box::pin(sleep_until(last))),
        ("reset to far", Box::pin(reset(sleep(MS), far))),
        ("reset to last", Box::pin(reset(sleep(MS), last))),
        ("timeout(MAX)", Box::pin(limit(timeout(Duration::MAX, pending::<()>())))),
        ("timeout_at(last)", Box::pin(limit(timeout_at(last, pending::<()>())))),
        ("timeout_at(almost)", Box::pin(limit(timeout_at(almost, pending::<()>())))),
        ("interval(MAX)", Box::pin(second_tick(interval(Duration::MAX)))),
        ("interval(centuries)", Box::pin(second_tick(interval(CENTURIES)))),
        ("interval_at(last)", Box::pin(second_tick(interval_at(last, MS)))),
        ("interval(MAX), Delay", Box::pin(second_tick(late(MissedTickBehavior::Delay)))),
        ("interval(MAX), Skip", Box::pin(second_tick(late(MissedTickBehavior::Skip)))),
        ("interval(MAX), reset", Box::pin(first_tick_after_reset(interval(Duration::MAX)))),
    ]
}
