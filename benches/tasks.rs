//! What does a task cost, and what does a yield?
//!
//! - `spawn_join/1`: spawn a task and await it, one at a time;
//! - `spawn_join/1000`: spawn 1000, then await them; per task;
//! - `yield/1`: `yield_now` in a task that is alone;
//! - `yield/1000`: `yield_now` among 1000 tasks that do the same; per yield;
//! - `self_wake/1`, `self_wake/1000`: the same with a future that wakes itself once. A runtime may give
//!   its I/O a turn at every `yield_now` (tokio does); after a mere wake it need not.
//!
//! Against tokio's current-thread runtime. Everything runs inside a spawned task, as it would in a
//! program. No I/O is done, but both runtimes look after their I/O at their own pace.
//!
//! ```text
//! cargo bench -p tamam-benches --bench tasks             criterion; a figure of a /1000 is per 1000
//! PAIRED=10 cargo bench -p tamam-benches --bench tasks   interleaved: time per operation, ratios
//! ```

mod support;

use std::future::poll_fn;
use std::task::Poll;
use support::rows::{self, Row, tamam_run, tokio_run};
use tamam::Backend;

const MANY: u64 = 1000;

/// The same text for both runtimes: only the name of `spawn` differs, and no function can be generic
/// over a `spawn` that takes any future.
macro_rules! spawn_workloads {
    ($runtime:ident, $spawn:path) => {
        mod $runtime {
            use super::MANY;
            use std::hint::black_box;
            use std::time::{Duration, Instant};

            pub async fn spawn_join_one(iterations: u64) -> Duration {
                $spawn(async move {
                    let start = Instant::now();
                    for at in 0..iterations {
                        let task = $spawn(async move { black_box(at) });
                        assert_eq!(task.await.expect("the task ends"), at);
                    }
                    start.elapsed()
                })
                .await
                .expect("the workload ends")
            }

            pub async fn spawn_join_many(iterations: u64) -> Duration {
                $spawn(async move {
                    let mut tasks = Vec::with_capacity(MANY as usize);
                    let start = Instant::now();
                    for _ in 0..iterations {
                        tasks.extend((0..MANY).map(|at| $spawn(async move { black_box(at) })));
                        for (at, task) in tasks.drain(..).enumerate() {
                            assert_eq!(task.await.expect("the task ends"), at as u64);
                        }
                    }
                    start.elapsed()
                })
                .await
                .expect("the workload ends")
            }
        }
    };
}

/// As above, for anything that gives the other tasks a turn.
macro_rules! yield_workloads {
    ($runtime:ident, $spawn:path, $yield_now:path) => {
        mod $runtime {
            use super::MANY;
            use std::time::{Duration, Instant};

            pub async fn yield_one(iterations: u64) -> Duration {
                $spawn(async move {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        $yield_now().await;
                    }
                    start.elapsed()
                })
                .await
                .expect("the workload ends")
            }

            /// The tasks are spawned before the clock starts; their first poll is counted.
            pub async fn yield_many(iterations: u64) -> Duration {
                $spawn(async move {
                    let yielding = || {
                        $spawn(async move {
                            for _ in 0..iterations {
                                $yield_now().await;
                            }
                        })
                    };
                    let tasks: Vec<_> = (0..MANY).map(|_| yielding()).collect();
                    let start = Instant::now();
                    for task in tasks {
                        task.await.expect("the task ends");
                    }
                    start.elapsed()
                })
                .await
                .expect("the workload ends")
            }
        }
    };
}

spawn_workloads!(spawn_tamam, tamam::spawn);
spawn_workloads!(spawn_tokio, tokio::spawn);
yield_workloads!(yield_tamam, tamam::spawn, tamam::yield_now);
yield_workloads!(yield_tokio, tokio::spawn, tokio::task::yield_now);
yield_workloads!(self_wake_tamam, tamam::spawn, crate::self_wake);
yield_workloads!(self_wake_tokio, tokio::spawn, crate::self_wake);

/// Wakes its own task and is pending, once.
fn self_wake() -> impl Future<Output = ()> + Send {
    let mut woken = false;
    poll_fn(move |cx| match std::mem::replace(&mut woken, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
}

fn main() {
    rows::run(rows);
}

fn rows() -> [Row; 6] {
    [
        Row {
            title: "spawn_join/1",
            operations: 1,
            tamam_ring: tamam_run(Backend::Ring, spawn_tamam::spawn_join_one),
            tamam_epoll: tamam_run(Backend::Epoll, spawn_tamam::spawn_join_one),
            tokio: tokio_run(spawn_tokio::spawn_join_one),
            tokio_again: tokio_run(spawn_tokio::spawn_join_one),
        },
        Row {
            title: "spawn_join/1000",
            operations: MANY,
            tamam_ring: tamam_run(Backend::Ring, spawn_tamam::spawn_join_many),
            tamam_epoll: tamam_run(Backend::Epoll, spawn_tamam::spawn_join_many),
            tokio: tokio_run(spawn_tokio::spawn_join_many),
            tokio_again: tokio_run(spawn_tokio::spawn_join_many),
        },
        Row {
            title: "yield/1",
            operations: 1,
            tamam_ring: tamam_run(Backend::Ring, yield_tamam::yield_one),
            tamam_epoll: tamam_run(Backend::Epoll, yield_tamam::yield_one),
            tokio: tokio_run(yield_tokio::yield_one),
            tokio_again: tokio_run(yield_tokio::yield_one),
        },
        Row {
            title: "yield/1000",
            operations: MANY,
            tamam_ring: tamam_run(Backend::Ring, yield_tamam::yield_many),
            tamam_epoll: tamam_run(Backend::Epoll, yield_tamam::yield_many),
            tokio: tokio_run(yield_tokio::yield_many),
            tokio_again: tokio_run(yield_tokio::yield_many),
        },
        Row {
            title: "self_wake/1",
            operations: 1,
            tamam_ring: tamam_run(Backend::Ring, self_wake_tamam::yield_one),
            tamam_epoll: tamam_run(Backend::Epoll, self_wake_tamam::yield_one),
            tokio: tokio_run(self_wake_tokio::yield_one),
            tokio_again: tokio_run(self_wake_tokio::yield_one),
        },
        Row {
            title: "self_wake/1000",
            operations: MANY,
            tamam_ring: tamam_run(Backend::Ring, self_wake_tamam::yield_many),
            tamam_epoll: tamam_run(Backend::Epoll, self_wake_tamam::yield_many),
            tokio: tokio_run(self_wake_tokio::yield_many),
            tokio_again: tokio_run(self_wake_tokio::yield_many),
        },
    ]
}
