//! The far side of the seam: an engine that completes requests.
//!
//! There are two. [`Ring`] hands submissions to the kernel and collects completions; [`Epoll`] makes
//! the system calls itself when a descriptor is ready, and completes them alike. Which one a
//! runtime has is decided when it starts. All that they have to provide stands here, each once.
//!
//! Read next: `ring.rs`, then `epoll.rs`.

use std::io;

use super::epoll::Epoll;
use super::op::Completion;
use super::ring::{Ring, Sleep};

pub(super) enum Engine {
    Ring(Ring),
    Epoll(Epoll),
}

impl Engine {
    /// Whether an enter that does not wait would submit or bring anything.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        match self {
            Engine::Ring(ring) => ring.has_work(),
            Engine::Epoll(epoll) => epoll.has_work(),
        }
    }

    /// Whether answers are at hand without an enter. Cancelled ops have theirs at once under epoll;
    /// the ring's kernel must be asked.
    pub(super) fn has_answers(&self) -> bool {
        match self {
            Engine::Ring(_) => false,
            Engine::Epoll(epoll) => epoll.has_answers(),
        }
    }

    /// One system call: submits what there is to submit, and waits for `want` completions, or not
    /// at all. How many submissions the kernel took; with an error nothing is lost.
    #[inline]
    pub(super) fn enter(&self, want: u32, sleep: Sleep) -> io::Result<u32> {
        match self {
            Engine::Ring(ring) => ring.enter(want, sleep),
            Engine::Epoll(epoll) => epoll.wait((want > 0).then_some(sleep)).map(|()| 0),
        }
    }

    /// What has completed, one by one: whose it is, and the answer.
    #[inline]
    pub(super) fn next_completion(&self) -> Option<(u64, Completion)> {
        match self {
            Engine::Ring(ring) => {
                ring.next_completion().map(|entry| (entry.user_data(), Completion::new(&entry)))
            }
            Engine::Epoll(epoll) => epoll.next_completion(),
        }
    }

    /// Whether more completions wait in the kernel than it could hand over.
    #[inline]
    pub(super) fn has_overflow(&self) -> bool {
        match self {
            Engine::Ring(ring) => ring.has_overflow(),
            Engine::Epoll(_) => false,
        }
    }

    /// How many completions one enter can wait for.
    pub(super) fn completions_max(&self) -> u32 {
        match self {
            Engine::Ring(ring) => ring.completion_entries(),
            Engine::Epoll(_) => 1,
        }
    }
}
