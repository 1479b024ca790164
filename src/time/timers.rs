//! The timer wheel of one runtime, with its clock. Futures register with it; the turn
//! (`runtime.rs`) asks it what is due.
//!
//! Every method takes `&self`. No waker is cloned, woken or dropped while the wheel is borrowed
//! (invariant 3), because foreign code in a waker may call back into it. Read next: `sleep.rs`.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::Instant;

use super::wheel::{NEVER, TimerKey, Wheel};

/// How many `Timers` this process has made.
#[cfg(feature = "hyper")]
static MADE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Clock and timers of one runtime.
pub(crate) struct Timers {
    #[cfg(feature = "hyper")]
    serial: u64,
    start: Instant,
    /// The latest `now` that `expire` was given.
    reached: Cell<u64>,
    wheel: RefCell<Wheel>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Timers {
            #[cfg(feature = "hyper")]
            serial: MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            start: Instant::now(),
            reached: Cell::new(0),
            wheel: RefCell::new(Wheel::new()),
        }
    }

    /// A number that no other `Timers` of this process has or had.
    #[cfg(feature = "hyper")]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The time now, as the wheel counts.
    pub(crate) fn now_ns(&self) -> u64 {
        self.to_ns(Instant::now())
    }

    /// Nanoseconds since `start`: 0 before it, `u64::MAX` (never) from 584 years on. In between it
    /// is exact, because an `Instant` counts whole nanoseconds. So no timer fires early by
    /// rounding.
    pub(crate) fn to_ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(NEVER)
    }

    /// Whether `expire` has been called for `deadline_ns` or later.
    pub(crate) fn has_reached(&self, deadline_ns: u64) -> bool {
        deadline_ns <= self.reached.get()
    }

    /// Registers `waker` for a deadline, as [`to_ns`](Self::to_ns) gives it. A deadline in the past
    /// is due in the next `expire`.
    pub(crate) fn insert(&self, deadline_ns: u64, waker: Waker) -> TimerKey {
        self.wheel.borrow_mut().insert(deadline_ns, waker)
    }

    /// Makes the timer wake `waker`. Returns false if it fired or was removed: then `waker` is not
    /// kept.
    pub(crate) fn update(&self, key: TimerKey, waker: &Waker) -> bool {
        let known = self.wheel.borrow().will_wake(key, waker);
        match known {
            None => false,
            Some(true) => true,
            Some(false) => {
                // Clone and drop are foreign code, so they run before and after the borrow.
                let clone = waker.clone();
                let unneeded = self.wheel.borrow_mut().replace(key, clone);
                drop(unneeded);
                self.is_pending(key)
            }
        }
    }

    /// Unregisters a timer, and returns its waker for the caller to drop; `None` if it fired or was
    /// removed.
    pub(crate) fn remove(&self, key: TimerKey) -> Option<Waker> {
        self.wheel.borrow_mut().remove(key)
    }

    /// Whether the timer has neither fired nor been removed.
    pub(crate) fn is_pending(&self, key: TimerKey) -> bool {
        self.wheel.borrow().is_pending(key)
    }

    /// Takes out every timer that is due at `now_ns`, and appends its waker to `woken` for the
    /// caller to wake: in order of deadline, then of registration.
    pub(crate) fn expire(&self, now_ns: u64, woken: &mut Vec<Waker>) {
        self.reached.set(now_ns.max(self.reached.get()));
        self.wheel.borrow_mut().expire(now_ns, woken);
    }

    /// When to call `expire` next; see [`Wheel::next_deadline`]. It may be in the past. `None`: no
    /// timer will ever be due.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.wheel.borrow().next_deadline()
    }

    /// How many timers there are, those that never fire included.
    pub(crate) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// Takes out every timer, and returns their wakers for the caller to drop.
    pub(crate) fn clear(&self) -> Vec<Waker> {
        self.wheel.borrow_mut().clear()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::super::wheel::NEVER;
    use super::Timers;

    struct Count(Mutex<u32>);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn conversion_saturates_and_is_exact() {
        let timers = Timers::new();
        let start = timers.start;
        assert_eq!(timers.to_ns(start + Duration::from_nanos(1)), 1);
        assert_eq!(timers.to_ns(start + Duration::from_secs(3600)), 3_600_000_000_000);
        assert_eq!(timers.to_ns(start + Duration::from_nanos(NEVER - 1)), NEVER - 1);
        assert_eq!(timers.to_ns(start + Duration::from_secs(1 << 40)), NEVER);
        if let Some(before) = start.checked_sub(Duration::from_millis(1)) {
            assert_eq!(timers.to_ns(before), 0);
        }
        assert!(timers.now_ns() <= timers.now_ns());
    }

    #[test]
    fn update_tells_fired_from_pending() {
        let timers = Timers::new();
        let (one, two) = (Arc::new(Count(Mutex::new(0))), Arc::new(Count(Mutex::new(0))));
        let (first, second) = (Waker::from(one.clone()), Waker::from(two.clone()));
        let key = timers.insert(10, first.clone());
        assert!(timers.update(key, &first));
        assert!(timers.update(key, &second));
        let mut woken = Vec::new();
        timers.expire(9, &mut woken);
        assert!(woken.is_empty() && !timers.has_reached(10));
        timers.expire(10, &mut woken);
        woken.into_iter().for_each(Waker::wake);
        assert_eq!((*one.0.lock().unwrap(), *two.0.lock().unwrap()), (0, 1));
        assert!(timers.has_reached(10) && !timers.update(key, &first));
        assert_eq!(timers.len(), 0);
    }

    thread_local! {
        static TIMERS: Rc<Timers> = Rc::new(Timers::new());
    }

    /// A waker that uses the timers it is registered with, when woken and when dropped.
    struct Meddler;

    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Meddler {
        fn drop(&mut self) {
            TIMERS.with(|timers| {
                let key = timers.insert(0, Waker::noop().clone());
                assert!(timers.remove(key).is_some());
            });
        }
    }

    #[test]
    fn no_waker_is_dropped_under_the_borrow() {
        let timers = TIMERS.with(Rc::clone);
        let meddler = || Waker::from(Arc::new(Meddler));
        let key = timers.insert(10, meddler());
        assert!(timers.update(key, &meddler()));
        assert!(timers.update(key, Waker::noop()));
        assert!(timers.remove(key).is_some());
        assert!(!timers.update(key, &meddler()));

        let key = timers.insert(10, meddler());
        drop(timers.remove(key));
        timers.insert(10, meddler());
        let mut woken = Vec::new();
        timers.expire(10, &mut woken);
        woken.into_iter().for_each(Waker::wake);
        timers.insert(10, meddler());
        drop(timers.clear());
        assert_eq!(timers.len(), 0);
    }
}
