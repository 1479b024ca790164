//! Those who wait for something to happen to an object.
//!
//! No answer is reserved for one of them: an arrival wakes all, and who finds nothing waits again.
//! A forgotten future cannot be told from a slow one, so every scheme that wakes one, or hands
//! over on drop, loses a wake to `mem::forget` (SEMANTICS G2).

use std::task::Waker;

use super::queue::Queue;

/// Names one waiting future among those of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId(u64);

#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "tls"))]
impl WaiterId {
    /// Whoever polls the object without a future of its own: one for each list, the last wins.
    pub(crate) const POLLER: WaiterId = WaiterId(0);
}

/// Wakers in order of arrival.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Queue<(WaiterId, Waker)>,
    next_id: u64,
}

impl Waiters {
    /// Lets `waker` be woken by the next arrival; the future is `id`, or new. Returns the waker
    /// that this one replaces: drop it when no borrow is held.
    #[must_use]
    pub(crate) fn register(&mut self, id: &mut Option<WaiterId>, waker: Waker) -> Option<Waker> {
        let id = *id.get_or_insert_with(|| {
            self.next_id += 1;
            WaiterId(self.next_id)
        });
        if !self.waiting.is_empty() {
            if let Some((_, old)) = self.waiting.iter_mut().find(|(other, _)| *other == id) {
                return Some(std::mem::replace(old, waker));
            }
        }
        self.waiting.push((id, waker));
        None
    }

    /// Takes the future's waker out, to be dropped when no borrow is held.
    #[must_use]
    #[inline]
    pub(crate) fn remove(&mut self, id: Option<WaiterId>) -> Option<Waker> {
        let id = id?;
        if self.waiting.is_empty() {
            return None; // an arrival has taken it
        }
        let index = self.waiting.iter().position(|(other, _)| *other == id)?;
        Some(self.waiting.remove(index).1)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An arrival: everybody is to be woken.
    #[inline]
    pub(crate) fn wake(&mut self, woken: &mut Vec<Waker>) {
        while let Some((_, waker)) = self.waiting.pop() {
            woken.push(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_has_one_entry_and_an_arrival_takes_all() {
        let (mut waiters, mut a, mut b) = (Waiters::default(), None, None);
        assert!(waiters.register(&mut a, Waker::noop().clone()).is_none());
        assert!(waiters.register(&mut b, Waker::noop().clone()).is_none());
        assert!(waiters.register(&mut a, Waker::noop().clone()).is_some());
        assert!(waiters.remove(a).is_some() && waiters.remove(a).is_none());
        assert!(waiters.register(&mut a, Waker::noop().clone()).is_none());
        let mut woken = Vec::new();
        waiters.wake(&mut woken);
        assert_eq!((woken.len(), waiters.is_empty()), (2, true));
    }
}
