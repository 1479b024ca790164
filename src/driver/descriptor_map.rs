//! What the epoll engine knows of each descriptor: its two sides, and the request that waits for each.
//!
//! There is no system call here. Read next: `epoll.rs`.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use slab::Slab;

use super::buffer_ring::BufferPool;
use super::op::{Attempt, Completion, Interest, Target};

/// The descriptors that had an op, by their numbers. A number that had none takes four bytes, since a
/// process has many descriptors that this runtime does not use.
#[derive(Default)]
pub(super) struct DescriptorMap {
    /// By the number of a descriptor: its index in `known`, or [`UNKNOWN`].
    places: Vec<u32>,
    known: Slab<Descriptor>,
    /// How many descriptors there were.
    lives: u32,
}

const UNKNOWN: u32 = u32::MAX;

impl DescriptorMap {
    /// What is known of `fd`. The first time, that is nothing. Panics if `fd` is negative.
    #[inline]
    pub(super) fn get_or_insert(&mut self, fd: RawFd) -> &mut Descriptor {
        let number = usize::try_from(fd).expect("an open descriptor is not negative");
        let place = self.places.get(number).copied().unwrap_or(UNKNOWN);
        let place = if place == UNKNOWN { self.insert(number) } else { place };
        &mut self.known[place as usize]
    }

    #[cold]
    fn insert(&mut self, number: usize) -> u32 {
        if self.places.len() <= number {
            self.places.resize(number + 1, UNKNOWN);
        }
        self.lives = self.lives.wrapping_add(1);
        let place = self.known.insert(Descriptor { life: self.lives, ..Default::default() }) as u32;
        self.places[number] = place;
        place
    }

    /// What is known of `fd`; `None` if it had no op, or was removed, or is negative.
    #[inline]
    pub(super) fn get_mut(&mut self, fd: RawFd) -> Option<&mut Descriptor> {
        let place = *self.places.get(usize::try_from(fd).ok()?)?;
        self.known.get_mut(place as usize)
    }

    /// Forgets what is known of `fd`, and gives it; `None` if there is nothing.
    pub(super) fn remove(&mut self, fd: RawFd) -> Option<Descriptor> {
        let place = self.places.get_mut(usize::try_from(fd).ok()?)?;
        let removed = self.known.try_remove(*place as usize);
        *place = UNKNOWN;
        removed
    }
}

/// What is known of a descriptor.
#[derive(Default)]
pub(super) struct Descriptor {
    /// Which of the descriptors of the engine this is. It tells events of an earlier one with the
    /// same number apart.
    pub(super) life: u32,
    pub(super) is_registered: bool,
    pub(super) read: DescriptorSide,
    pub(super) write: DescriptorSide,
}

impl Descriptor {
    /// The side that a request with this interest waits for.
    #[inline]
    pub(super) fn side(&mut self, interest: Interest) -> &mut DescriptorSide {
        match interest {
            Interest::Read => &mut self.read,
            Interest::Write => &mut self.write,
        }
    }
}

/// One direction of a descriptor, and the request that waits for it.
pub(super) struct DescriptorSide {
    /// The next attempt may succeed.
    pub(super) ready: bool,
    /// From now on, only EAGAIN shows that the side is not ready.
    pub(super) steady: bool,
    pub(super) request: Option<WaitingRequest>,
}

impl DescriptorSide {
    /// Records the flags of an event. `ready` and `steady` are the flags that make the side ready
    /// and steady. False, and nothing has changed: the event is not about this side.
    #[inline]
    pub(super) fn note_edge(&mut self, flags: u32, ready: u32, steady: u32) -> bool {
        if flags & ready == 0 {
            return false;
        }
        self.ready = true;
        self.steady |= flags & steady != 0;
        true
    }

    /// Records what an attempt shows about the descriptor. Gives the answer of the request; `None`
    /// if the attempt blocked, so that the request must wait. `sent` bytes went out before those
    /// that the attempt returned.
    #[inline]
    pub(super) fn note(&mut self, attempt: Attempt, sent: u32) -> Option<Completion> {
        if attempt.is_blocked() {
            self.ready = false;
            return None;
        }
        self.ready = !attempt.is_drained() || self.steady;
        Some(attempt.answer(sent))
    }
}

impl Default for DescriptorSide {
    /// Nothing is known, so the first request makes an attempt.
    fn default() -> DescriptorSide {
        DescriptorSide { ready: true, steady: false, request: None }
    }
}

/// A request that would block.
pub(super) struct WaitingRequest {
    pub(super) user_data: u64,
    pub(super) target: Target,
    pub(super) attempt: unsafe fn(&mut Target, &BufferPool) -> Attempt,
    /// How many bytes have gone out.
    pub(super) sent: u32,
}

impl WaitingRequest {
    /// The answer of a request that ends now: the bytes that went out, else ECANCELED.
    pub(super) fn cancelled(&self) -> Completion {
        match self.sent {
            0 => Completion::cancelled(),
            sent => Completion::only(Ok(sent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoll::{READ_READY, READ_STEADY, WRITE_READY, WRITE_STEADY};
    use super::super::op::Request;
    use super::super::op::testing::{self, WaitRequest};
    use super::*;

    #[test]
    fn an_attempt_tells_whether_its_side_is_still_ready() {
        let some = || Attempt::over(Ok(3));
        let failed = Attempt::over(Err(libc::ECONNRESET));
        // What was seen before, the attempt, bytes sent before; then: ready, the answer.
        for (index, (steady, attempt, sent, ready, answer)) in [
            (false, some(), 0, true, Some(Ok(3))),
            (false, some().drained(true), 0, false, Some(Ok(3))),
            (true, some().drained(true), 0, true, Some(Ok(3))),
            (false, Attempt::BLOCKED, 0, false, None),
            (true, Attempt::BLOCKED, 0, false, None),
            (false, Attempt::BLOCKED, 5, false, None),
            (false, some(), 5, true, Some(Ok(8))),
            (false, failed, 0, true, Some(Err(libc::ECONNRESET))),
            (false, failed, 5, true, Some(Ok(5))), // the next attempt fails
        ]
        .into_iter()
        .enumerate()
        {
            let mut side = DescriptorSide { steady, ..DescriptorSide::default() };
            let done = side.note(attempt, sent);
            assert_eq!(done.map(Completion::result), answer, "row {index}");
            assert_eq!((side.ready, side.steady), (ready, steady), "row {index}");
        }
    }

    #[test]
    fn an_edge_is_of_one_side_or_of_both() {
        let [reading, writing] = [(READ_READY, READ_STEADY), (WRITE_READY, WRITE_STEADY)];
        // The flag of an event; whether it makes each side ready, and keeps it so after a short
        // receive.
        for (flag, read, write) in [
            (libc::EPOLLIN, (true, false), (false, false)),
            (libc::EPOLLPRI, (true, true), (false, false)),
            (libc::EPOLLRDHUP, (true, true), (false, false)),
            (libc::EPOLLOUT, (false, false), (true, false)),
            (libc::EPOLLHUP, (true, true), (true, true)),
            (libc::EPOLLERR, (true, true), (true, true)),
        ] {
            for ((ready, steady), wanted) in [(reading, read), (writing, write)] {
                let mut side = DescriptorSide { ready: false, ..DescriptorSide::default() };
                let is_about = side.note_edge(flag as u32, ready, steady);
                assert_eq!(is_about, wanted.0, "flag {flag:#x}");
                assert_eq!((side.ready, side.steady), wanted, "flag {flag:#x}");
                side.note(Attempt::over(Ok(1)).drained(true), 0);
                assert_eq!(side.ready, wanted.1, "flag {flag:#x}");
            }
        }
    }

    #[test]
    fn a_request_that_is_cancelled_answers_with_what_went_out() {
        let target = testing::wait(5).target;
        for (sent, answer) in [(0, Err(libc::ECANCELED)), (7, Ok(7))] {
            let request =
                WaitingRequest { user_data: 1, target, attempt: WaitRequest::attempt, sent };
            assert_eq!(request.cancelled().result(), answer);
        }
    }

    /// A process has ten thousand descriptors, and this engine one of them.
    #[test]
    fn a_number_that_is_not_used_costs_little() {
        let mut map = DescriptorMap::default();
        let life = map.get_or_insert(10_000).life;
        assert!(map.places.capacity() * size_of::<u32>() <= 80_000);
        assert!(map.known.capacity() <= 8);
        assert!(map.get_mut(9_999).is_none() && map.get_mut(-1).is_none());
        assert_eq!(map.remove(10_000).expect("it had an op").life, life);
        assert!(map.get_mut(10_000).is_none() && map.remove(10_000).is_none());
        assert_ne!(map.get_or_insert(10_000).life, life, "it is another descriptor");
        for number in 0..1000 {
            map.get_or_insert(number);
            map.remove(number);
        }
        assert!(map.known.capacity() <= 8, "places are used again");
    }
}
