//! What does a timer cost, and how late does it fire?
//!
//! - `timer/cancel`: create a sleep of about half a minute, poll it once, drop it;
//! - `timer/10000`: create and poll 10 000 of them, then drop them all; per timer;
//! - `timer/late/1ms`: `sleep(1 ms)`; the figure is the time **above** 1 ms until the task runs.
//!
//! Against tokio's current-thread runtime, whose timers have a resolution of 1 ms by design. The first
//! two rows run beside a timer that fires every 100 ms, and yield now and then: otherwise each new timer
//! is the nearest one, which tokio answers with a write to its eventfd. A server always has a nearer one.
//!
//! ```text
//! cargo bench -p tamam-benches --bench timers             criterion; the figure of /10000 is per 10 000
//! PAIRED=10 cargo bench -p tamam-benches --bench timers   interleaved: time per timer, ratios
//! ```

mod support;

use std::time::Duration;
use support::rows::{self, Row, tamam_run, tokio_run};
use tamam::Backend;

const MANY: u64 = 10_000;

/// The same text for both runtimes: only the names differ, and no function can be generic over a
/// `spawn` that takes any future.
macro_rules! workloads {
    ($runtime:ident, $spawn:path, $sleep:path, $yield_now:path) => {
        mod $runtime {
            use super::{MANY, far_off, poll_once};
            use std::pin::pin;
            use std::time::{Duration, Instant};

            pub async fn cancel(iterations: u64) -> Duration {
                $spawn(async move {
                    let ticks = $spawn(tick());
                    $yield_now().await;
                    let start = Instant::now();
                    for at in 0..iterations {
                        let sleep = pin!($sleep(far_off(at)));
                        poll_once(sleep).await;
                        if at % 1000 == 0 {
                            $yield_now().await;
                        }
                    }
                    let elapsed = start.elapsed();
                    ticks.abort();
                    elapsed
                })
                .await
                .expect("the workload ends")
            }

            pub async fn alive(iterations: u64) -> Duration {
                $spawn(async move {
                    let ticks = $spawn(tick());
                    $yield_now().await;
                    let mut timers = Vec::with_capacity(MANY as usize);
                    let start = Instant::now();
                    for _ in 0..iterations {
                        for at in 0..MANY {
                            let mut sleep = Box::pin($sleep(far_off(at)));
                            poll_once(sleep.as_mut()).await;
                            timers.push(sleep);
                        }
                        timers.clear();
                        $yield_now().await;
                    }
                    let elapsed = start.elapsed();
                    ticks.abort();
                    elapsed
                })
                .await
                .expect("the workload ends")
            }

            async fn tick() {
                loop {
                    $sleep(Duration::from_millis(100)).await;
                }
            }

            pub async fn late(iterations: u64) -> Duration {
                $spawn(async move {
                    let length = Duration::from_millis(1);
                    let mut late = Duration::ZERO;
                    for _ in 0..iterations {
                        let start = Instant::now();
                        $sleep(length).await;
                        let elapsed = start.elapsed();
                        late += elapsed.checked_sub(length).expect("a timer is never early");
                    }
                    late
                })
                .await
                .expect("the workload ends")
            }
        }
    };
}

workloads!(on_tamam, tamam::spawn, tamam::time::sleep, tamam::yield_now);
workloads!(on_tokio, tokio::spawn, tokio::time::sleep, tokio::task::yield_now);

/// Half a minute, spread so that neighbours differ.
fn far_off(at: u64) -> Duration {
    Duration::from_millis(30_000 + at * 7919 % 1000)
}

/// A timer takes its place with its first poll.
async fn poll_once<F: Future<Output = ()>>(mut timer: std::pin::Pin<&mut F>) {
    std::future::poll_fn(|cx| {
        assert!(timer.as_mut().poll(cx).is_pending(), "the deadline is far off");
        std::task::Poll::Ready(())
    })
    .await
}

fn main() {
    rows::run(rows);
}

fn rows() -> [Row; 3] {
    [
        Row {
            title: "timer/cancel",
            operations: 1,
            tamam_ring: tamam_run(Backend::Ring, on_tamam::cancel),
            tamam_epoll: tamam_run(Backend::Epoll, on_tamam::cancel),
            tokio: tokio_run(on_tokio::cancel),
            tokio_again: tokio_run(on_tokio::cancel),
        },
        Row {
            title: "timer/10000",
            operations: MANY,
            tamam_ring: tamam_run(Backend::Ring, on_tamam::alive),
            tamam_epoll: tamam_run(Backend::Epoll, on_tamam::alive),
            tokio: tokio_run(on_tokio::alive),
            tokio_again: tokio_run(on_tokio::alive),
        },
        Row {
            title: "timer/late/1ms",
            operations: 1,
            tamam_ring: tamam_run(Backend::Ring, on_tamam::late),
            tamam_epoll: tamam_run(Backend::Epoll, on_tamam::late),
            tokio: tokio_run(on_tokio::late),
            tokio_again: tokio_run(on_tokio::late),
        },
    ]
}
