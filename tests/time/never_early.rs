//! TM1: never early.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::{Elapsed, sleep, sleep_until, timeout, timeout_at};
use tamam::{Backend, Runtime, yield_now};

use crate::common::{Random, child, poll_once};
use crate::{common, counting, in_time, registered, run};

/// TM1. Hundreds of sleeps of random lengths at once, some of them moved, some dropped, some with a
/// limit of their own: none is ready before its deadline, all are in the end.
#[test]
fn tm1_never_early() {
    for seed in 1..=8 {
        eprintln!("-- seed {seed}");
        run(|| async move {
            let mut random = Random(seed * 0x9e37_79b9);
            let mut tasks = Vec::new();
            for _ in 0..400 {
                // All magnitudes: from a nanosecond to 33 ms, and now and then the past.
                let magnitude = random.below(26);
                let span = Duration::from_nanos(random.below(1 << magnitude));
                let now = Instant::now();
                let deadline = match random.below(10) {
                    0 => now.checked_sub(span).unwrap_or(now),
                    _ => now + span,
                };
                let moved = random.below(4) == 0;
                let later = Duration::from_micros(random.below(5000));
                let limited = random.below(4) == 0;
                tasks.push(tamam::spawn(async move {
                    let mut sleep = sleep_until(deadline);
                    assert_eq!(sleep.deadline(), deadline);
                    let mut due = deadline;
                    if moved && poll_once(&mut sleep).await.is_pending() {
                        due = Instant::now() + later; // earlier than before, or later
                        sleep.reset(due);
                    }
                    if limited {
                        let limit = due + later;
                        timeout_at(limit, &mut sleep).await.unwrap_or_else(|Elapsed { .. }| {
                            assert!(Instant::now() >= limit, "a limit passed early");
                        });
                    }
                    sleep.await;
                    assert!(Instant::now() >= due, "early by {:?}", due - Instant::now());
                }));
                match random.below(20) {
                    0 => sleep(Duration::from_micros(random.below(300))).await,
                    1 => tasks.swap_remove(random.below(tasks.len() as u64) as usize).abort(),
                    _ => {}
                }
            }
            for task in tasks {
                task.await.expect("no sleep is early");
            }
            yield_now().await; // those that were aborted
            assert_eq!(registered(), 0);
        });
    }
}

/// TM1. Below 5.11, or behind a filter that knows no epoll_pwait2(2), epoll sleeps in whole
/// milliseconds: nothing is early for that, and the thread does not spin through the last one.
#[test]
fn tm1_never_early_in_whole_milliseconds() {
    const NAME: &str = "never_early::tm1_never_early_in_whole_milliseconds";
    if child::part(NAME).is_some() {
        let epoll = Runtime::builder().backend(Backend::Epoll);
        return common::with(epoll, || async {
            let before = tamam::metrics().enters;
            for us in [1, 300, 999, 1000, 1001, 2500, 20_000] {
                let start = Instant::now();
                sleep(Duration::from_micros(us)).await;
                assert!(start.elapsed() >= Duration::from_micros(us), "{us} us");
            }
            let enters = tamam::metrics().enters - before;
            assert!(enters < 50, "{enters} system calls: it did not sleep");
        });
    }
    for error in ["ENOSYS", "EPERM"] {
        let injection = format!("epoll_pwait2:error={error}");
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, error, &launcher);
    }
}

/// TM1. What is due is ready in the first poll, and again in the next ones.
#[test]
fn tm1_past_and_zero_are_ready_at_once() {
    run(|| async {
        let now = Instant::now();
        let long_ago = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        for mut past in [sleep(Duration::ZERO), sleep_until(now), sleep_until(long_ago)] {
            assert!(past.is_elapsed());
            for _ in 0..3 {
                assert!(poll_once(&mut past).await.is_ready());
            }
        }
        assert_eq!(registered(), 0);
    });
}

/// TM1. The value comes first, whatever the limit; a future that waits is polled once.
#[test]
fn tm1_timeout_of_zero() {
    run(|| async {
        let past = Instant::now();
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(timeout_at(past, std::future::ready(8)).await, Ok(8));
        assert_eq!(timeout(Duration::ZERO, sleep(Duration::ZERO)).await, Ok(()));

        let polls = Cell::new(0);
        let mut first = pin!(timeout(Duration::ZERO, counting(&polls)));
        let polled = poll_once(&mut first).await;
        assert!(matches!(polled, Poll::Ready(Err(Elapsed { .. }))), "within the first poll");
        assert_eq!(polls.get(), 1);
        assert!(timeout_at(past, counting(&polls)).await.is_err());
        assert_eq!(polls.get(), 2);
        assert_eq!(registered(), 0);
    });
}

/// TM1, RX17. Value and deadline are there at the same poll: the value wins.
#[test]
fn tm1_value_wins() {
    run(|| async {
        in_time(|deadline| async move {
            let mut limited = pin!(timeout_at(deadline, sleep_until(deadline)));
            let waited = poll_once(&mut limited).await.is_pending();
            if waited {
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                assert_eq!(limited.await, Ok(()));
            }
            waited
        })
        .await;
    });
}
