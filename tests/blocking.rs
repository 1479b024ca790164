//! `spawn_blocking` (SEMANTICS BL1 to BL4): how many run at once, what a panic does, and what is left
//! of a closure when nobody waits for it.

mod common;
#[path = "common/each.rs"]
mod each;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::shortage::limit_memory;
use common::{PATIENCE, Watchdog, alone, everywhere, poll_once, start};
use tamam::net::lookup_host;
use tamam::time::sleep;
use tamam::{set_blocking_threads, spawn_blocking};

const MS: Duration = Duration::from_millis(1);

/// A closure comes in, and stays until the gate is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    inside_max: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.inside_max.fetch_max(inside, Ordering::SeqCst);
        let mut open = self.open.lock().expect("nothing panics while it is locked");
        while !*open {
            open = self.opened.wait(open).expect("nothing panics while it is locked");
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self) {
        *self.open.lock().expect("nothing panics while it is locked") = true;
        self.opened.notify_all();
    }

    async fn until_inside(&self, count: usize) {
        while self.inside.load(Ordering::SeqCst) < count {
            sleep(MS).await;
        }
    }
}

/// How many threads of the pool there are.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    let names = tasks.filter_map(|task| {
        // A thread that ends meanwhile has no name any more.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| name.trim_end() == "tamam-blocking").count()
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// ---- BL1 -----------------------------------------------------------------------------------

#[test]
fn bl1_eight_run_and_the_others_wait() {
    alone("bl1_eight_run_and_the_others_wait", || {
        let _watchdog = Watchdog::start();
        each::engine(|runtime| {
            runtime().block_on(async {
                let gate = Arc::new(Gate::default());
                let begun = Arc::new(Mutex::new(Vec::new()));
                let handles: Vec<_> = (0..20)
                    .map(|number| {
                        let (gate, begun) = (gate.clone(), begun.clone());
                        spawn_blocking(move || {
                            begun.lock().expect("nothing panics there").push(number);
                            gate.pass();
                            number
                        })
                    })
                    .collect();
                gate.until_inside(8).await;
                // Names are looked up all the same, on a thread more.
                lookup_host("localhost:1").await.expect("every machine has it");
                sleep(20 * MS).await;
                assert_eq!(gate.inside.load(Ordering::SeqCst), 8);
                assert!((8..=9).contains(&threads()), "{} threads", threads());
                assert!(handles.iter().all(|handle| !handle.is_finished()));
                gate.open();
                for (number, handle) in handles.into_iter().enumerate() {
                    assert_eq!(handle.await.expect("no panic"), number);
                }
                assert_eq!(gate.inside_max.load(Ordering::SeqCst), 8);
                // The first eight begin in any order, each on a thread of its own.
                let mut begun = begun.lock().expect("nothing panics there").clone();
                begun[..8].sort_unstable();
                assert_eq!(begun[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
            });
        });
        // They end when there is nothing to do.
        let until = Instant::now() + *PATIENCE;
        while threads() > 0 {
            assert!(Instant::now() < until, "{} threads stay", threads());
            thread::sleep(10 * MS);
        }
        // And others come when there is again.
        let runtime = tamam::Runtime::new().expect("an engine");
        assert_eq!(runtime.block_on(spawn_blocking(|| 7)).expect("no panic"), 7);
        assert_eq!(threads(), 1);
    });
}

#[test]
fn bl1_a_thousand_closures() {
    everywhere(async || {
        let handles: Vec<_> = (0..1000).map(|number| spawn_blocking(move || number)).collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.expect("no panic");
        }
        assert_eq!(sum, 999 * 1000 / 2);
        assert!(threads() <= 8 + 4);
    });
}

/// A handle goes wherever its output may go, and a builder to every thread.
#[test]
fn bl1_handles_and_builders_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let handle = is_send(spawn_blocking(|| 3));
    let builder = is_send(tamam::Runtime::builder().resolver(tamam::net::SystemResolver));
    let there = thread::spawn(move || {
        let runtime = builder.build().expect("an engine");
        runtime.block_on(handle).expect("no panic")
    });
    assert_eq!(there.join().expect("no panic"), 3);
}

/// A forked copy has none of the threads, and starts its own.
#[test]
fn bl1_a_forked_copy_has_threads_of_its_own() {
    alone("bl1_a_forked_copy_has_threads_of_its_own", || {
        let _watchdog = Watchdog::start();
        tamam::run(spawn_blocking(|| ())).expect("no panic");
        // SAFETY: the other threads of this process sleep, so the copy finds no lock taken; it leaves
        // by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let works = || tamam::run(spawn_blocking(|| 7)).is_ok_and(|output| output == 7);
            let works = catch_unwind(AssertUnwindSafe(works)).unwrap_or(false);
            // SAFETY: ends the copy.
            unsafe { libc::_exit(i32::from(!works)) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "no closure runs in the copy");
    });
}

/// Each wakes a runtime that sleeps, with nothing else to do.
#[test]
fn bl1_one_after_the_other() {
    everywhere(async || {
        for number in 0..200 {
            assert_eq!(spawn_blocking(move || number).await.expect("no panic"), number);
        }
    });
}

/// Handlers of the program do not run on these threads; faults come through.
#[test]
fn bl1_threads_get_no_signals() {
    let status = spawn_blocking(|| std::fs::read_to_string("/proc/thread-self/status"));
    let status = tamam::run(status).expect("no panic").expect("proc is mounted");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
    let blocked = u64::from_str_radix(blocked.trim(), 16).expect("in hexadecimal");
    let is_blocked = |signal: i32| blocked >> (signal - 1) & 1 == 1;
    assert!(
        [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGUSR1].iter().all(|s| is_blocked(*s))
    );
    assert!(![libc::SIGSEGV, libc::SIGBUS, libc::SIGILL].iter().any(|s| is_blocked(*s)));
    // The thread that started it has the mask that it had.
    let own = std::fs::read_to_string("/proc/thread-self/status").expect("proc is mounted");
    let own = own.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
    assert_eq!(u64::from_str_radix(own.trim(), 16).expect("in hexadecimal"), 0);
}

// ---- BL2 -----------------------------------------------------------------------------------

#[test]
fn bl2_a_panic_is_an_error_and_the_pool_goes_on() {
    everywhere(async || {
        for number in 0..20 {
            let handle = spawn_blocking(move || assert!(number > 99, "number {number} is small"));
            let id = handle.id();
            let error = handle.await.expect_err("it panicked");
            assert!(error.is_panic() && !error.is_cancelled());
            assert_eq!(error.id(), id);
            assert!(error.to_string().contains(&format!("number {number} is small")), "{error}");
        }
        assert_eq!(spawn_blocking(|| 1).await.expect("no panic"), 1);
    });
}

/// A destructor that panics, of an output that nobody takes, on a thread of the pool.
#[test]
fn bl2_a_panic_of_an_unwanted_output_is_contained() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("an output that does not want to go");
        }
    }
    everywhere(async || {
        let (gate, dropped) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let (inner, bomb) = (gate.clone(), Bomb(dropped.clone()));
        drop(spawn_blocking(move || {
            inner.pass();
            bomb
        }));
        gate.open();
        while dropped.load(Ordering::SeqCst) == 0 {
            sleep(MS).await;
        }
        for _ in 0..20 {
            spawn_blocking(|| ()).await.expect("the pool works");
        }
    });
}

#[test]
fn bl2_a_result_is_given_once() {
    everywhere(async || {
        let mut handle = spawn_blocking(|| 5);
        assert_eq!((&mut handle).await.expect("no panic"), 5);
        assert!(handle.is_finished());
        let again = std::future::poll_fn(|cx| {
            let poll = || std::pin::Pin::new(&mut handle).poll(cx).is_ready();
            Poll::Ready(catch_unwind(AssertUnwindSafe(poll)))
        });
        assert!(again.await.is_err(), "polling it again is a mistake");
    });
}

// ---- BL3 -----------------------------------------------------------------------------------

#[test]
fn bl3_detached_it_runs_on_and_its_output_is_dropped_once() {
    everywhere(async || {
        for gone in common::Gone::BOTH {
            for begun in [false, true] {
                let (gate, dropped) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
                let (inner, output) = (gate.clone(), Counted(dropped.clone()));
                let mut handle = spawn_blocking(move || {
                    inner.pass();
                    output
                });
                if begun {
                    gate.until_inside(1).await;
                    assert!(poll_once(&mut handle).await.is_pending());
                }
                gone.leave(handle);
                gate.open();
                let expected = match gone {
                    common::Gone::Dropped => 1,
                    common::Gone::Forgotten => 0, // it is in what was forgotten
                };
                while gate.inside.load(Ordering::SeqCst) > 0
                    || dropped.load(Ordering::SeqCst) < expected
                {
                    sleep(MS).await;
                }
                spawn_blocking(|| ()).await.expect("the pool works");
                assert_eq!(dropped.load(Ordering::SeqCst), expected);
            }
        }
    });
}

/// The end of a runtime waits for no closure; the handle can be polled elsewhere.
#[test]
fn bl3_a_runtime_is_dropped_while_a_closure_runs() {
    let _watchdog = Watchdog::start();
    each::mixed(|runtime| {
        let (gate, dropped) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let first = runtime();
        let in_task = {
            let (gate, output) = (gate.clone(), Counted(dropped.clone()));
            spawn_blocking(move || {
                gate.pass();
                output
            })
        };
        let kept = {
            let gate = gate.clone();
            spawn_blocking(move || {
                gate.pass();
                "kept"
            })
        };
        let kept = first.block_on(async {
            let polled = Rc::new(Cell::new(false));
            let told = polled.clone();
            tamam::spawn(async move {
                let mut in_task = in_task;
                assert!(poll_once(&mut in_task).await.is_pending());
                told.set(true);
                in_task.await.map(drop)
            });
            let kept = start(kept).await;
            while !polled.get() {
                tamam::yield_now().await;
            }
            Some(kept) // not to be awaited here
        });
        let kept = kept.expect("just made");
        drop(first); // both closures run still
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        gate.open();
        let second = runtime();
        assert_eq!(second.block_on(kept).expect("no panic"), "kept");
        second.block_on(async {
            while dropped.load(Ordering::SeqCst) == 0 {
                sleep(MS).await;
            }
        });
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

// ---- BL4 -----------------------------------------------------------------------------------

/// 1 without a thread, a lookup fails with an error that says so; 2 one thread is busy for long, and a
/// second cannot be started when it is wanted, but a moment later it can.
#[test]
fn bl4_a_thread_that_cannot_be_started_is_tried_again() {
    alone("bl4_a_thread_that_cannot_be_started_is_tried_again", || {
        let _watchdog = Watchdog::start();
        let runtime = common::build(tamam::Runtime::builder());
        runtime.block_on(async {
            limit_memory(Some(1 << 20));
            let error = lookup_host("localhost:1").await.expect_err("no thread");
            limit_memory(None);
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory, "{error}");
            assert!(error.to_string().contains("thread"), "{error}");

            let gate = Arc::new(Gate::default());
            let busy = gate.clone();
            let slow = spawn_blocking(move || busy.pass());
            gate.until_inside(1).await;
            limit_memory(Some(1 << 20));
            let quick = spawn_blocking(|| ());
            limit_memory(None);
            quick.await.expect("no panic"); // the poll tries again
            limit_memory(Some(1 << 20));
            // The thread that `quick` had is idle, and has this one; the next finds none.
            let other = gate.clone();
            let second = spawn_blocking(move || other.pass());
            gate.until_inside(2).await;
            let third = spawn_blocking(|| ());
            limit_memory(None);
            gate.open();
            second.await.expect("no panic");
            third.await.expect("no panic");
            slow.await.expect("no panic");
        });
    });
}

// ---- BL5 -----------------------------------------------------------------------------------

#[test]
fn bl5_the_number_of_threads_is_set() {
    alone("bl5_the_number_of_threads_is_set", || {
        everywhere(async || {
            let (first, second) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
            let enter = |gate: &Arc<Gate>| {
                let gate = gate.clone();
                spawn_blocking(move || gate.pass())
            };
            set_blocking_threads(2).expect("not zero");
            let handles: Vec<_> = (0..20).map(|_| enter(&first)).collect();
            first.until_inside(2).await;
            lookup_host("localhost:1").await.expect("every machine has it");
            sleep(20 * MS).await;
            assert_eq!(first.inside.load(Ordering::SeqCst), 2);
            // More begin at once, though nothing else happens.
            set_blocking_threads(12).expect("not zero");
            first.until_inside(12).await;
            // With fewer, those that run go on.
            set_blocking_threads(1).expect("not zero");
            first.open();
            for handle in handles {
                handle.await.expect("no panic");
            }
            assert_eq!(first.inside_max.load(Ordering::SeqCst), 12);
            let handles: Vec<_> = (0..3).map(|_| enter(&second)).collect();
            second.until_inside(1).await;
            sleep(20 * MS).await;
            assert_eq!(second.inside.load(Ordering::SeqCst), 1);
            second.open();
            for handle in handles {
                handle.await.expect("no panic");
            }

            let error = set_blocking_threads(0).expect_err("none would ever run");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            set_blocking_threads(usize::MAX).expect("as many as are needed");
            spawn_blocking(|| ()).await.expect("no panic");
        });
    });
}
