//! TM5: intervals.

use std::panic::catch_unwind;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{mem, thread};

use tamam::time::{Interval, MissedTickBehavior, interval, interval_at};

use crate::common::poll_once;
use crate::{MS, run};

const PERIOD: Duration = Duration::from_millis(10);

/// An interval whose consumer came too late: the first tick was due `late` ago.
fn late_consumer(behavior: Option<MissedTickBehavior>, late: Duration) -> (Interval, Instant) {
    let start = Instant::now();
    let mut ticks = interval_at(start, PERIOD);
    assert_eq!(ticks.period(), PERIOD);
    assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst, "unless it is set");
    if let Some(behavior) = behavior {
        ticks.set_missed_tick_behavior(behavior);
        assert_eq!(ticks.missed_tick_behavior(), behavior);
    }
    thread::sleep(late);
    (ticks, start)
}

/// TM5. The first tick comes at once, the others a period apart, and none is early.
#[test]
fn tm5_first_tick_at_once() {
    run(|| async {
        let before = Instant::now();
        let mut ticks = interval(2 * MS);
        let first = match poll_once(&mut Box::pin(ticks.tick())).await {
            Poll::Ready(first) => first,
            Poll::Pending => panic!("the first tick is there at once"),
        };
        assert!(first >= before && first <= Instant::now());
        for number in 1..5 {
            let due = ticks.tick().await;
            assert_eq!(due, first + number * 2 * MS);
            assert!(Instant::now() >= due);
        }
    });
}

/// TM5. Burst, and that is the default: every missed tick is made up for, at once and in order;
/// then it goes on as planned.
#[test]
fn tm5_burst() {
    run(|| async {
        let (mut ticks, start) = late_consumer(None, 5 * PERIOD);
        for number in 0..=5 {
            let tick = poll_once(&mut Box::pin(ticks.tick())).await;
            assert_eq!(tick, Poll::Ready(start + number * PERIOD), "tick {number}");
        }
        for number in 6..9 {
            let due = ticks.tick().await;
            assert_eq!(due, start + number * PERIOD);
            assert!(Instant::now() >= due);
        }
    });
}

/// TM5. Delay: the missed tick comes late, the next ones a period after it was taken.
#[test]
fn tm5_delay() {
    run(|| async {
        let (mut ticks, start) = late_consumer(Some(MissedTickBehavior::Delay), 5 * PERIOD);
        assert_eq!(ticks.tick().await, start, "the time it was due");
        let taken = Instant::now();
        let second = ticks.tick().await;
        assert!(second >= start + 6 * PERIOD && second <= taken + PERIOD);
        assert!(Instant::now() >= second);
    });
}

/// TM5. Skip: the missed tick comes late, the next is the first one planned after that.
#[test]
fn tm5_skip() {
    run(|| async {
        for late in [PERIOD / 2, 5 * PERIOD, 5 * PERIOD + PERIOD / 2] {
            let (mut ticks, start) = late_consumer(Some(MissedTickBehavior::Skip), late);
            let before = Instant::now();
            assert_eq!(ticks.tick().await, start, "the time it was due");
            let after = Instant::now();
            let second = ticks.tick().await;
            assert_eq!((second - start).as_nanos() % PERIOD.as_nanos(), 0, "as planned");
            assert!(second > before && second <= after + PERIOD);
            let third = ticks.tick().await;
            assert_eq!((third - start).as_nanos() % PERIOD.as_nanos(), 0, "as planned");
            assert!(third > second);
        }
    });
}

/// TM5. A period of zero panics, where it is asked for.
#[test]
fn tm5_zero_period_panics() {
    let makers: [fn() -> Interval; 2] =
        [|| interval(Duration::ZERO), || interval_at(Instant::now(), Duration::ZERO)];
    for maker in makers {
        let payload = catch_unwind(maker).expect_err("a period of zero");
        let text = payload.downcast_ref::<&str>().copied();
        assert!(text.is_some_and(|text| text.contains("period")));
    }
}

/// TM5. A `tick()` that is dropped, or forgotten, takes no tick with it, polled or not: those that
/// are returned have no gap and no repetition.
#[test]
fn tm5_dropped_or_forgotten_tick_loses_none() {
    async fn give_up(ticks: &mut Interval, polled: bool, forgotten: bool) -> Option<Instant> {
        let mut tick = Box::pin(ticks.tick());
        let taken = if polled { poll_once(&mut tick).await } else { Poll::Pending };
        if forgotten {
            mem::forget(tick)
        } else {
            drop(tick)
        }
        match taken {
            Poll::Ready(due) => Some(due),
            Poll::Pending => None,
        }
    }
    run(|| async {
        for forgotten in [false, true] {
            let start = Instant::now();
            let mut ticks = interval_at(start, 2 * MS);
            let mut taken = Vec::new();
            for attempt in 0..40 {
                taken.extend(give_up(&mut ticks, attempt % 2 == 0, forgotten).await);
                if attempt % 5 == 4 {
                    taken.push(ticks.tick().await);
                    assert!(Instant::now() >= taken[taken.len() - 1]);
                }
            }
            let planned: Vec<_> = (0..taken.len() as u32).map(|n| start + n * 2 * MS).collect();
            assert_eq!(taken, planned, "forgotten: {forgotten}");
        }
    });
}

/// TM5. `reset` starts a period from now.
#[test]
fn tm5_reset() {
    run(|| async {
        let mut ticks = interval(5 * MS);
        ticks.tick().await;
        let before = Instant::now();
        ticks.reset();
        let after = Instant::now();
        let due = ticks.tick().await;
        assert!(due >= before + 5 * MS && due <= after + 5 * MS);
        assert!(Instant::now() >= due);
    });
}

/// TM5. The next tick is moved, earlier and later, also into the past and out of reach; those after
/// it follow a period apart, and a tick that waits is the moved one.
#[test]
fn tm5_a_tick_is_moved() {
    run(|| async {
        let mut ticks = interval(PERIOD);
        ticks.tick().await;
        let before = Instant::now();
        ticks.reset_immediately();
        let now = ticks.tick().await;
        assert!(before <= now && now <= Instant::now());
        assert_eq!(ticks.tick().await, now + PERIOD);

        ticks.reset_after(MS);
        let moved = ticks.tick().await;
        assert!(moved >= now + PERIOD + MS && Instant::now() >= moved);
        assert_eq!(ticks.tick().await, moved + PERIOD);

        let deadline = Instant::now() + 3 * MS;
        ticks.reset_at(deadline);
        assert_eq!(ticks.tick().await, deadline);
        let past = Instant::now();
        thread::sleep(MS);
        ticks.reset_at(past);
        assert_eq!(ticks.tick().await, past);

        ticks.reset_after(Duration::MAX);
        let waits = poll_once(&mut Box::pin(ticks.tick())).await;
        assert!(waits.is_pending(), "it never comes");
        ticks.reset_after(Duration::ZERO);
        ticks.tick().await;
    });
}
