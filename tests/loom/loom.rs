//! What threads share, under loom: every order in which they can take turns.
//!
//! Two pieces of the crate are included as they are, with loom's atomics in place of std's: the word
//! that says whether a driver sleeps (`src/driver/handshake.rs`), and the inbox of woken tasks
//! (`src/executor/inbox.rs`). The former names `crate::sync`, which is below; the latter names
//! `std::sync::atomic` and nothing else of std, so `std` is loom in this crate. A wake-up that is lost
//! leaves the home thread asleep for ever, which loom reports as a deadlock.
#![no_std]
extern crate loom as std;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
}

#[path = "../../src/driver/handshake.rs"]
mod handshake;

#[allow(dead_code, reason = "the executor uses all of it")]
#[path = "../../src/executor/inbox.rs"]
mod inbox;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use handshake::Handshake;
use inbox::{Inbox, Link};

// ---- the handshake ------------------------------------------------------------------------------

/// A driver and its notifier, without the kernel.
struct Driver {
    handshake: Handshake,
    /// The eventfd under its multishot poll: each write is a completion, all are reaped at once.
    completions: Mutex<usize>,
    written: Condvar,
    /// What wakers push, one place each. Relaxed: the handshake alone makes it visible.
    work: [AtomicUsize; 2],
}

impl Driver {
    fn new() -> Arc<Driver> {
        Arc::new(Driver {
            handshake: Handshake::new(),
            completions: Mutex::new(0),
            written: Condvar::new(),
            work: [AtomicUsize::new(0), AtomicUsize::new(0)],
        })
    }

    /// A waker: pushes, then notifies, as `Notifier::wake_by_ref` does.
    fn wake(&self, who: usize) {
        self.work[who].fetch_add(1, Ordering::Relaxed);
        if self.handshake.notify() {
            *self.completions.lock().unwrap() += 1;
            self.written.notify_one();
        }
    }

    /// Home: one `Driver::park` that may sleep. Whether it did.
    fn park(&self) -> bool {
        let asleep = self.handshake.park();
        let mut completions = self.completions.lock().unwrap();
        while asleep && *completions == 0 {
            completions = self.written.wait(completions).unwrap();
        }
        *completions = 0;
        drop(completions);
        self.handshake.unpark();
        asleep
    }

    /// Home: turns until every waker's work is there.
    fn run(&self, expected: [usize; 2]) {
        let has_all = || {
            expected
                .iter()
                .zip(&self.work)
                .all(|(count, work)| work.load(Ordering::Relaxed) == *count)
        };
        while !has_all() {
            self.park();
        }
    }
}

/// 1 home looks for work and finds none; 2 it parks, while a waker pushes and notifies; 3 it does not
/// sleep, or is roused.
#[test]
fn home_never_sleeps_with_work_pending() {
    loom::model(|| {
        let driver = Driver::new();
        let waker = driver.clone();
        let thread = thread::spawn(move || waker.wake(0));
        driver.run([1, 0]);
        thread.join().unwrap();
    });
}

/// As above with two wakers, of which one may find that the other has notified. Every order would take
/// minutes: those in which a thread is interrupted up to twice take a second.
#[test]
fn the_second_of_two_wakers_may_rely_on_the_first() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let driver = Driver::new();
        let threads = [0, 1].map(|who| {
            let waker = driver.clone();
            thread::spawn(move || waker.wake(who))
        });
        driver.run([1, 1]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// One waker, two pieces of work: home may have to park again between them, and a notification of
/// the first time must neither be missing nor stand in for the second.
#[test]
fn home_parks_again_and_is_roused_again() {
    loom::model(|| {
        let driver = Driver::new();
        let waker = driver.clone();
        let thread = thread::spawn(move || {
            waker.wake(0);
            waker.wake(0);
        });
        driver.run([2, 0]);
        thread.join().unwrap();
    });
}

/// What was notified before home came to park keeps it awake once, and once only.
#[test]
fn a_notification_keeps_home_awake_once() {
    loom::model(|| {
        let driver = Driver::new();
        driver.wake(0);
        assert!(!driver.park(), "notified before");
        let waker = driver.clone();
        let thread = thread::spawn(move || waker.wake(1));
        driver.run([1, 1]);
        thread.join().unwrap();
    });
}

// ---- the inbox ----------------------------------------------------------------------------------

struct Item {
    link: Link<Item>,
    data: [AtomicUsize; 2],
}

struct World {
    inbox: Inbox<Item>,
    items: [Item; 2],
    parked: AtomicBool,
}

fn world() -> Arc<World> {
    let item = || Item { link: Link::new(), data: [AtomicUsize::new(0), AtomicUsize::new(0)] };
    Arc::new(World { inbox: Inbox::new(), items: [item(), item()], parked: AtomicBool::new(false) })
}

impl World {
    /// As `schedule_remotely`; the data is what the woken task is to see.
    fn wake(&self, item: usize, who: usize) -> bool {
        let item = &self.items[item];
        item.data[who].store(1, Ordering::Relaxed);
        !item.link.claim() || self.inbox.push(core::ptr::from_ref(item).cast_mut(), &item.link)
    }

    fn link<'a>(item: *mut Item) -> &'a Link<Item> {
        // SAFETY: the items live in the world, which the caller holds.
        unsafe { &(*item).link }
    }

    /// As `drain`: what each polled item saw.
    fn poll(&self, saw: &mut [[usize; 2]; 2]) {
        let mut rest = self.inbox.take(Self::link);
        while !rest.is_null() {
            // SAFETY: the items live in `self`.
            let item = unsafe { &*rest };
            rest = item.link.next();
            item.link.release();
            let index = if core::ptr::eq(item, &self.items[0]) { 0 } else { 1 };
            saw[index] = [0, 1].map(|who| item.data[who].load(Ordering::Relaxed));
        }
    }
}

#[test]
fn two_threads_wake_one_item() {
    loom::model(|| {
        let world = world();
        let threads = [0, 1].map(|who| {
            let world = world.clone();
            thread::spawn(move || assert!(world.wake(0, who)))
        });
        let mut saw = [[0; 2]; 2];
        world.poll(&mut saw);
        for thread in threads {
            thread.join().unwrap();
        }
        world.poll(&mut saw);
        assert_eq!(saw[0], [1, 1]);
        assert!(world.inbox.is_empty());
    });
}

#[test]
fn two_threads_wake_two_items() {
    loom::model(|| {
        let world = world();
        let threads = [0, 1].map(|who| {
            let world = world.clone();
            thread::spawn(move || assert!(world.wake(who, who)))
        });
        let mut saw = [[0; 2]; 2];
        world.poll(&mut saw);
        for thread in threads {
            thread.join().unwrap();
        }
        world.poll(&mut saw);
        assert_eq!(saw, [[1, 0], [0, 1]]);
    });
}

#[test]
fn a_push_is_seen_by_home_or_sees_that_home_parks() {
    loom::model(|| {
        let world = world();
        let other = world.clone();
        let thread = thread::spawn(move || {
            assert!(other.wake(0, 0));
            other.parked.swap(false, Ordering::SeqCst) // notified
        });
        // Swaps on both sides, for loom takes SeqCst loads and stores for Acquire and Release.
        world.parked.swap(true, Ordering::SeqCst);
        let idle = world.inbox.is_empty();
        let notified = thread.join().unwrap();
        assert!(!idle || notified);
    });
}

#[test]
fn close_takes_or_refuses() {
    loom::model(|| {
        let world = world();
        let threads = [0, 1].map(|who| {
            let world = world.clone();
            thread::spawn(move || world.wake(who, who))
        });
        let mut taken = 0;
        let mut rest = world.inbox.close(World::link);
        while !rest.is_null() {
            taken += 1;
            rest = World::link(rest).next();
        }
        let pushed = threads.map(|thread| usize::from(thread.join().unwrap()));
        assert_eq!(taken, pushed[0] + pushed[1]);
        assert!(world.inbox.is_empty() && world.inbox.close(World::link).is_null());
    });
}
