//! TM7: order and clock.

use std::cell::RefCell;
use std::future::pending;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::{sleep, sleep_until, timeout};
use tamam::{JoinHandle, yield_now};

use crate::common::{Random, poll_once};
use crate::{MS, in_time, run};

/// TM7. The same deadline: in the order of registration, which is that of the first polls; a reset
/// registers anew, a drop takes out, and who comes late comes last.
#[test]
fn tm7_same_deadline_fires_in_order_of_registration() {
    run(|| async {
        in_time(|deadline| async move {
            let mut random = Random(3);
            let trace = Rc::new(RefCell::new(Vec::new()));
            let (mut tasks, mut dropped) = (Vec::new(), Vec::new());
            for number in 0..200 {
                let (trace, resets) = (trace.clone(), random.below(3) == 0);
                let task = tamam::spawn(async move {
                    let mut timer =
                        if resets { sleep(Duration::MAX) } else { sleep_until(deadline) };
                    let _ = poll_once(&mut timer).await;
                    if resets {
                        timer.reset(deadline);
                    }
                    timer.await;
                    trace.borrow_mut().push(number);
                });
                match random.below(5) {
                    0 => dropped.push(task),
                    _ => tasks.push((number, task)),
                }
                match random.below(8) {
                    0 => sleep(Duration::from_micros(50)).await, // the clock goes on
                    1 | 2 => yield_now().await,
                    _ => {}
                }
            }
            yield_now().await;
            let in_time = Instant::now() < deadline;
            dropped.iter().for_each(JoinHandle::abort);
            for task in dropped {
                assert!(task.await.is_err() || !in_time);
            }
            let mut expected = Vec::new();
            for (number, task) in tasks {
                task.await.expect("no panic");
                expected.push(number);
            }
            assert!(!in_time || *trace.borrow() == expected, "{:?}", trace.borrow());
            in_time
        })
        .await;
    });
}

/// TM7. Different deadlines that have all passed when the runtime looks: in the order of the
/// deadlines, however they were registered.
#[test]
fn tm7_due_together_in_order_of_deadlines() {
    run(|| async {
        in_time(|first| async move {
            let mut random = Random(5);
            let trace = Rc::new(RefCell::new(Vec::new()));
            let mut numbers: Vec<u32> = (0..100).collect();
            let mut tasks = Vec::new();
            while !numbers.is_empty() {
                let number = numbers.swap_remove(random.below(numbers.len() as u64) as usize);
                let trace = trace.clone();
                tasks.push(tamam::spawn(async move {
                    sleep_until(first + number * Duration::from_micros(50)).await;
                    trace.borrow_mut().push(number);
                }));
            }
            yield_now().await;
            let in_time = Instant::now() < first;
            let last = first + 100 * Duration::from_micros(50);
            thread::sleep(last.saturating_duration_since(Instant::now()));
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(!in_time || trace.borrow().is_sorted(), "{:?}", trace.borrow());
            in_time
        })
        .await;
    });
}

/// TM7. The clock is CLOCK_MONOTONIC: of a suspended machine it counts nothing. Seen from here: a
/// sleep is not over before that clock has moved as far.
#[test]
fn tm7_clock_is_monotonic() {
    fn monotonic() -> Duration {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is writable.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
    run(|| async {
        for us in [1, 100, 3000] {
            let before = monotonic();
            sleep(Duration::from_micros(us)).await;
            assert!(monotonic() - before >= Duration::from_micros(us));
        }
    });
}

/// TM7, TM1. In a time namespace the process's monotonic clock is not the kernel's own: a wait
/// that hands the kernel a point in time would last as long as the two differ.
#[test]
fn tm7_time_namespace_changes_nothing() {
    const INSIDE: &str = "TAMAM_TEST_TIME_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return run(|| async {
            let (before, enters) = (Instant::now(), tamam::metrics().enters);
            sleep(20 * MS).await;
            assert!(timeout(20 * MS, pending::<()>()).await.is_err());
            assert!(before.elapsed() >= 40 * MS);
            assert!(before.elapsed() < Duration::from_secs(50), "far too long for 40 ms");
            let enters = tamam::metrics().enters - enters;
            assert!(enters < 50, "{enters} system calls: it did not sleep");
        });
    }
    let unshare = |offset: &str| {
        let mut command = Command::new("unshare");
        // A child: under Linux 6.1 the process that made one is not in it itself, and gets no threads.
        command.args(["--fork", "--time", "--monotonic", offset]);
        command
    };
    if !unshare("100").arg("true").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: needs unshare(1), time namespaces (5.6) and the right to make one");
        return;
    }
    // Uptime bounds how far back the clock may be set.
    for offset in ["100", "-30"] {
        if !unshare(offset).arg("true").output().is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = unshare(offset)
            .arg(std::env::current_exe().expect("a test has a binary"))
            .args(["order::tm7_time_namespace_changes_nothing", "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("just tried");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "offset {offset}: {text}");
    }
}
