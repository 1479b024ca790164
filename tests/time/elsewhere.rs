//! TM3: whose timer it is.

use std::future::pending;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::{interval, interval_at, sleep, timeout};

use crate::common::poll_once;
use crate::{HOUR, MS, common, each, registered};

/// TM3. 1 made before there is any runtime; 2 polled in one runtime; 3 polled in another: it leaves
/// the first one's timers; 4 and back; 5 the first runtime goes, it fires in the other.
#[test]
fn tm3_sleep_goes_where_it_is_polled() {
    each::mixed(|runtime| {
        let _watchdog = common::Watchdog::start();
        let mut timer = sleep(HOUR);
        let deadline = timer.deadline();
        let (first, second) = (runtime(), runtime());
        for _ in 0..3 {
            assert!(first.block_on(poll_once(&mut timer)).is_pending());
            assert_eq!((first.metrics().timers, second.metrics().timers), (1, 0));
            assert!(second.block_on(poll_once(&mut timer)).is_pending());
            assert_eq!((first.metrics().timers, second.metrics().timers), (0, 1));
        }
        assert!(first.block_on(poll_once(&mut timer)).is_pending());
        assert_eq!(timer.deadline(), deadline);
        drop(first);
        let deadline = Instant::now() + 5 * MS;
        timer.reset(deadline);
        second.block_on(&mut timer);
        assert!(Instant::now() >= deadline);
        assert_eq!(second.metrics().timers, 0);
    });
}

/// TM3. The deadline is fixed when the future is made, whatever it is, and not at its first poll.
#[test]
fn tm3_deadline_is_fixed_at_creation() {
    each::engine(|runtime| {
        let mut slept = sleep(5 * MS);
        let mut limited = Box::pin(timeout(5 * MS, pending::<()>()));
        let mut ticks = interval(5 * MS);
        let start = Instant::now();
        thread::sleep(10 * MS);
        runtime().block_on(async {
            assert!(poll_once(&mut slept).await.is_ready());
            assert!(matches!(poll_once(&mut limited).await, Poll::Ready(Err(_))));
            let first = poll_once(&mut Box::pin(ticks.tick())).await;
            assert!(matches!(first, Poll::Ready(due) if due <= start));
            let second = poll_once(&mut Box::pin(ticks.tick())).await;
            assert!(matches!(second, Poll::Ready(due) if due <= start + 5 * MS));
        });
    });
}

/// TM3. Timeouts and intervals move from runtime to runtime as sleeps do; also after a reset from
/// outside of both.
#[test]
fn tm3_timeouts_and_intervals_move_too() {
    each::mixed(|runtime| {
        let _watchdog = common::Watchdog::start();
        let (first, second) = (runtime(), runtime());
        let mut limited = Box::pin(timeout(HOUR, pending::<()>()));
        let mut ticks = interval_at(Instant::now() + HOUR, MS);
        let mut never = sleep(Duration::MAX);
        first.block_on(async {
            assert!(poll_once(&mut limited).await.is_pending());
            assert!(poll_once(&mut Box::pin(ticks.tick())).await.is_pending());
            assert!(poll_once(&mut never).await.is_pending());
            assert_eq!(registered(), 3);
        });
        let deadline = Instant::now() + 2 * MS;
        never.reset(deadline); // in the timers of the first
        ticks.reset();
        second.block_on(async {
            never.await;
            assert!(Instant::now() >= deadline);
            ticks.tick().await;
            assert!(poll_once(&mut limited).await.is_pending());
            assert_eq!(registered(), 1);
        });
        assert_eq!(first.metrics().timers, 0);
        drop(limited);
        assert_eq!(second.metrics().timers, 0);
    });
}
