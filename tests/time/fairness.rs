//! G1, G9: nothing happens before the first poll, and loops over timers starve nobody.

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::{Elapsed, interval, interval_at, sleep, sleep_until, timeout, timeout_at};
use tamam::yield_now;

use crate::{MS, common, counting, registered, run};

/// G1. Made and dropped, nothing happened: no timer, no poll of what is inside.
#[test]
fn g1_nothing_happens_before_the_first_poll() {
    run(|| async {
        let polls = Cell::new(0);
        let mut ticks = interval(MS);
        let futures = (
            sleep(MS),
            sleep_until(Instant::now() + MS),
            timeout(MS, counting(&polls)),
            timeout_at(Instant::now() + MS, counting(&polls)),
            ticks.tick(),
        );
        assert_eq!(registered(), 0);
        drop(futures);
        assert_eq!((registered(), polls.get()), (0, 0));
        let first = ticks.tick().await;
        assert_eq!(ticks.tick().await, first + MS, "a tick that was not polled took none");
    });
}

/// G9. Futures that are ready at once, in a loop that never waits: after 128 of them at most,
/// every other task has its turn. The loops lose nothing by it.
#[test]
fn g9_loops_of_ready_futures_let_others_run() {
    const READY: usize = 2000;
    type Loop = fn() -> Pin<Box<dyn Future<Output = ()>>>;
    let loops: [(&str, Loop); 4] = [
        ("sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    sleep(Duration::ZERO).await;
                }
            })
        }),
        ("timeout of zero around sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    assert_eq!(timeout(Duration::ZERO, sleep(Duration::ZERO)).await, Ok(()));
                }
            })
        }),
        ("timeout around sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    assert_eq!(timeout(Duration::MAX, sleep(Duration::ZERO)).await, Ok(()));
                }
            })
        }),
        ("interval in a burst", || {
            Box::pin(async {
                let start = Instant::now();
                let mut ticks = interval_at(start, Duration::from_nanos(1));
                thread::sleep(MS); // a million ticks are due
                for tick in 0..READY {
                    assert_eq!(ticks.tick().await, start + Duration::from_nanos(tick as u64));
                }
            })
        }),
    ];
    for (name, ready) in loops {
        eprintln!("-- {name}");
        run(|| async {
            let polls = Rc::new(Cell::new(0));
            let other = tamam::spawn({
                let polls = polls.clone();
                async move {
                    loop {
                        polls.set(polls.get() + 1);
                        yield_now().await;
                    }
                }
            });
            ready().await;
            assert!(polls.get() >= READY / 128, "others had {} polls", polls.get());
            other.abort();
        });
    }
}

/// G9. An endless loop of ready futures, as a task, starves nobody: timers and I/O go on, and it
/// can be aborted and timed out.
#[test]
fn g9_endless_loop_starves_nobody() {
    common::everywhere(|| async {
        let endless = || async {
            loop {
                sleep(Duration::ZERO).await;
            }
        };
        let task = tamam::spawn(endless());
        let (stream, mut peer) = common::pair().await;
        peer.write_all(b"here").expect("the stream is open");
        let mut bytes = Vec::new();
        while bytes.len() < 4 {
            bytes.extend_from_slice(&stream.recv().await.expect("no error").expect("no end"));
        }
        sleep(2 * MS).await;
        let limited: Result<(), Elapsed> = timeout(2 * MS, endless()).await;
        assert!(limited.is_err());
        task.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    });
}
