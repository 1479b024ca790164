//! Work that a change of state leaves over until its borrow ends: wakers to wake, values to drop.
//!
//! Waking a waker runs foreign code. So does dropping a waker or a caller's buffer. Foreign code
//! may call the object that is being changed. So code that holds a borrow puts wakers and values
//! here, and [`Deferred::run`] does the work when no borrow is held (invariant 3). Read next:
//! `driver/mod.rs`.

use std::any::Any;
use std::rc::Rc;
use std::task::Waker;

use crate::buf::{Fill, Outgoing};
use crate::panics::{contain, wake_all};

/// The capacity that is kept between two runs: 16 KiB of wakers. The memory of a burst is given
/// back.
const KEPT: usize = 1024;

/// The wakers and values that one change leaves over.
#[derive(Default)]
pub(crate) struct Deferred {
    wakers: Vec<Waker>,
    values: Vec<Discarded>,
}

/// A value whose drop runs foreign code.
pub(crate) enum Discarded {
    Waker(#[expect(dead_code, reason = "it is only dropped")] Waker),
    Fill(#[expect(dead_code, reason = "it is only dropped")] Rc<Fill<dyn Any>>),
    Outgoing(#[expect(dead_code, reason = "it is only dropped")] Outgoing),
}

impl From<Waker> for Discarded {
    fn from(waker: Waker) -> Discarded {
        Discarded::Waker(waker)
    }
}

impl From<Rc<Fill<dyn Any>>> for Discarded {
    fn from(fill: Rc<Fill<dyn Any>>) -> Discarded {
        Discarded::Fill(fill)
    }
}

impl From<Outgoing> for Discarded {
    fn from(outgoing: Outgoing) -> Discarded {
        Discarded::Outgoing(outgoing)
    }
}

impl Deferred {
    /// Wakes `waker` later.
    #[inline]
    pub(crate) fn wake(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    /// Drops `value` later.
    pub(crate) fn discard(&mut self, value: impl Into<Discarded>) {
        self.values.push(value.into());
    }

    /// The list that due timers put their wakers into.
    pub(crate) fn wakers(&mut self) -> &mut Vec<Waker> {
        &mut self.wakers
    }

    /// Whether nothing was ever put in, so that it holds no memory.
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        self.wakers.capacity() == 0 && self.values.capacity() == 0
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.values.is_empty()
    }

    /// Moves what `other` has behind what is here. `other` is empty then.
    #[inline]
    pub(crate) fn append(&mut self, other: &mut Deferred) {
        if !other.is_empty() {
            self.wakers.append(&mut other.wakers);
            self.values.append(&mut other.values);
        }
    }

    /// Drops the values now, and keeps the wakers.
    pub(crate) fn drop_values(&mut self) {
        for value in self.values.drain(..) {
            contain(|| drop(value));
        }
        self.values.shrink_to(KEPT);
    }

    /// Wakes and drops everything, in order. The caller holds no borrow. A panic in one waker or
    /// value does not stop the others.
    #[inline]
    pub(crate) fn run(&mut self) {
        wake_all(self.wakers.drain(..));
        if self.wakers.capacity() > KEPT {
            self.wakers.shrink_to(KEPT);
        }
        if !self.values.is_empty() {
            self.drop_values();
        }
    }

    /// How many wakers and values wait.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.wakers.len(), self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    struct Noisy(Arc<AtomicU32>);

    impl Wake for Noisy {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Noisy {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("a waker that panics when it is dropped");
        }
    }

    #[test]
    fn a_panic_keeps_no_other_value_from_being_dropped() {
        let drops = Arc::new(AtomicU32::new(0));
        let mut deferred = Deferred::default();
        for _ in 0..3 {
            deferred.wake(Waker::from(Arc::new(Noisy(drops.clone()))));
            deferred.discard(Waker::from(Arc::new(Noisy(drops.clone()))));
        }
        deferred.run();
        assert_eq!((drops.load(Ordering::Relaxed), deferred.is_empty()), (6, true));
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut deferred = Deferred::default();
        for _ in 0..10 * KEPT {
            deferred.wake(Waker::noop().clone());
            deferred.discard(Waker::noop().clone());
        }
        deferred.run();
        assert!(deferred.wakers.capacity() <= KEPT && deferred.values.capacity() <= KEPT);
    }
}
