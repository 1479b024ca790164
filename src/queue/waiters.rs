//! The futures that wait for an event of an object.
//!
//! An arrival wakes all of them, and a future that finds nothing waits again. The object cannot
//! tell a forgotten future from a slow one. If it woke only one future, `mem::forget` could lose
//! the wake (SEMANTICS G2). Read next: `stream/receive.rs`.

use std::mem;
use std::task::Waker;

use super::line::{Key, Line};
use crate::deferred::Deferred;

/// The name of one waiting future among those of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaiterId {
    /// Its waker is in line, unless an arrival has woken it.
    Future { key: Key, round: u32 },
    /// A caller that polls the object without a future. There is one; the last caller's waker is
    /// kept.
    Poller,
}

/// Wakers in order of arrival.
#[derive(Default)]
pub(crate) struct Waiters {
    line: Line<Waker>,
    poller: Option<Waker>,
    /// How many arrivals there were. An id of an earlier round names no waker.
    round: u32,
}

impl Waiters {
    /// Whether the future `id` must [`register`](Self::register) to be woken by `waker`: it is new
    /// (`None`), was woken, or has registered another waker.
    #[inline]
    pub(crate) fn wants(&self, id: Option<WaiterId>, waker: &Waker) -> bool {
        let registered = match id {
            Some(WaiterId::Poller) => self.poller.as_ref(),
            Some(WaiterId::Future { key, round }) if round == self.round => self.line.get(key),
            _ => None,
        };
        !registered.is_some_and(|registered| registered.will_wake(waker))
    }

    /// The next arrival will wake `waker`. The future is `id`; one that is new (`None`), or that
    /// was woken, gets a new id here. The waker that it had before goes to `deferred`.
    pub(crate) fn register(
        &mut self,
        id: &mut Option<WaiterId>,
        waker: Waker,
        deferred: &mut Deferred,
    ) {
        let replaced = match id {
            Some(WaiterId::Poller) => self.poller.replace(waker),
            Some(WaiterId::Future { key, round }) if *round == self.round => {
                let registered = self.line.get_mut(*key).expect("a waker stays until an arrival");
                Some(mem::replace(registered, waker))
            }
            _ => {
                let (key, round) = (self.line.push(waker), self.round);
                *id = Some(WaiterId::Future { key, round });
                None
            }
        };
        if let Some(waker) = replaced {
            deferred.discard(waker);
        }
    }

    /// The future stops waiting, and its waker goes to `deferred`. No effect if an arrival has
    /// woken it, or it never waited (`None`).
    #[inline]
    pub(crate) fn remove(&mut self, id: Option<WaiterId>, deferred: &mut Deferred) {
        let waker = match id {
            Some(WaiterId::Future { key, round }) if round == self.round => self.line.remove(key),
            Some(WaiterId::Poller) => self.poller.take(),
            _ => None, // an arrival has woken it
        };
        if let Some(waker) = waker {
            deferred.discard(waker);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.poller.is_none()
    }

    /// Something has arrived: every waiting future will be woken by `deferred`, and waits no
    /// longer.
    #[inline]
    pub(crate) fn wake(&mut self, deferred: &mut Deferred) {
        if !self.is_empty() {
            self.wake_all(deferred);
        }
    }

    /// As [`wake`](Self::wake), when at least one future waits.
    fn wake_all(&mut self, deferred: &mut Deferred) {
        self.round = self.round.wrapping_add(1);
        match mem::take(&mut self.line) {
            Line::Empty => {}
            Line::One { value, .. } => deferred.wake(value),
            mut many => {
                while let Some(waker) = many.pop() {
                    deferred.wake(waker);
                }
            }
        }
        if let Some(waker) = self.poller.take() {
            deferred.wake(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn a_future_has_one_entry_and_an_arrival_takes_all() {
        let (mut waiters, mut deferred) = (Waiters::default(), Deferred::default());
        let (mut a, mut b, mut poller) = (None, None, Some(WaiterId::Poller));
        waiters.register(&mut a, waker(), &mut deferred);
        waiters.register(&mut b, waker(), &mut deferred);
        assert!(deferred.is_empty());
        assert!(!waiters.wants(a, &waker()) && waiters.wants(None, &waker()));
        waiters.register(&mut a, waker(), &mut deferred);
        waiters.register(&mut poller, waker(), &mut deferred);
        assert_eq!(deferred.counts(), (0, 1), "a replaced waker is dropped later");
        waiters.remove(a, &mut deferred);
        assert_eq!(deferred.counts(), (0, 2));
        a = None;
        waiters.register(&mut a, waker(), &mut deferred);
        waiters.wake(&mut deferred);
        assert_eq!(deferred.counts(), (3, 2));
        assert!(waiters.is_empty());
        waiters.remove(b, &mut deferred);
        assert_eq!(deferred.counts(), (3, 2), "the arrival has taken its waker");
    }

    #[test]
    fn an_id_of_an_earlier_round_does_not_touch_its_successor() {
        let (mut waiters, mut deferred) = (Waiters::default(), Deferred::default());
        let (mut old, mut new) = (None, None);
        waiters.register(&mut old, waker(), &mut deferred);
        waiters.wake(&mut deferred);
        waiters.register(&mut new, waker(), &mut deferred);
        waiters.remove(old, &mut deferred);
        assert!(!waiters.is_empty());
        waiters.register(&mut old, waker(), &mut deferred);
        waiters.wake(&mut deferred);
        assert_eq!(deferred.counts(), (3, 0));
    }
}
