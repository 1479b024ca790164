//! An engine: the part of the driver that completes requests.
//!
//! There are two. [`Ring`] writes submissions for the kernel and collects completions. [`Epoll`]
//! makes the system calls itself when a descriptor is ready, and gives the same answers. A runtime
//! chooses its engine when it starts. This file lists everything that an engine provides:
//!
//! | | ring | epoll |
//! |---|---|---|
//! | [`attempt`](Engine::attempt) a request | no: the kernel answers later | makes the system call, if the descriptor may be ready |
//! | [`start`](Engine::start) it | writes a submission; the queue may be full | waits for the next edge of the descriptor |
//! | [`cancel`](Engine::cancel) it | writes a submission | removes the request and answers it |
//! | [`withdraw`](Engine::withdraw) it, without an answer | no: the kernel has it | removes the request |
//! | [`enter`](Engine::enter) | io_uring_enter(2) | epoll_pwait2(2) |
//! | [`next_completion`](Engine::next_completion) | reads the completion queue | makes the system calls that the events allow |
//! | [`forget`](Engine::forget) a descriptor | does nothing | removes the descriptor from the epoll set |
//!
//! An engine knows tokens and descriptors. It does not know objects. Read next: `submissions.rs`,
//! then `ring.rs` and `epoll.rs`.

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue};

use super::buffer_ring::BufferPool;
use super::epoll::Epoll;
use super::op::{Completion, Op, Request, Target, Token};
use super::probe::{self, SetupError};
use super::ring::{Ring, SleepLimit};
use super::{BUFFER_GROUP, CANCEL, DATAGRAM_GROUP, Settings, incoming, trial};

const REGISTERING: &str = "registering the receive buffers";
const MAPPING: &str = "mapping the receive buffers (buffer_size times buffer_count)";

/// How many buffers there are for datagrams, at most: 8.5 MiB of addresses. The pages that are
/// touched are far fewer. The kernel uses all buffers in turn, so more of them cost more of the cache.
const DATAGRAM_BUFFERS_MAX: u16 = 128;

/// The engine of one driver.
pub(super) enum Engine {
    Ring(Ring),
    Epoll(Epoll),
}

/// What became of a submission that was to be pushed.
pub(super) enum Pushed {
    Yes,
    /// The queue is full. The submission must be pushed again later, in order.
    Full(squeue::Entry),
}

impl Engine {
    /// Sets up a ring, registers a pool for its receives, and tries the multishot receive. An error
    /// says why there can be no ring.
    pub(super) fn ring(settings: &Settings) -> Result<(Engine, Rc<BufferPool>), SetupError> {
        let mut ring =
            Ring::new(settings.entries, settings.completion_entries, settings.pretended)?;
        let pool = BufferPool::for_kernel(settings.buffer_len, settings.buffer_count);
        let pool = pool.map_err(|error| SetupError::of_mapping(MAPPING, &error))?;
        probe::retry_on_enomem(|| ring.register_pool(&pool, BUFFER_GROUP))
            .map_err(|error| SetupError::of_call("io_uring_register", REGISTERING, &error))?;
        let trial = trial::multishot_recv_is_whole(&ring, &pool, settings.pretended);
        ring.found_multishot_recv(trial.map_err(|error| {
            std::mem::forget(pool.clone()); // something may be in flight
            SetupError::of_call("io_uring_enter", "trying a receive", &error)
        })?);
        Ok((Engine::Ring(ring), pool))
    }

    /// An epoll engine, and the pool for its receives. A write to `eventfd` ends its waits.
    pub(super) fn epoll(
        settings: &Settings,
        eventfd: BorrowedFd<'_>,
    ) -> Result<(Engine, Rc<BufferPool>), SetupError> {
        let pool = BufferPool::for_engine(settings.buffer_len, settings.buffer_count);
        let pool = pool.map_err(|error| SetupError::of_mapping(MAPPING, &error))?;
        let epoll = Epoll::new(pool.clone(), eventfd, settings.may_wait_exactly());
        let epoll = epoll.map_err(|error| SetupError::at("epoll_create1", &error))?;
        Ok((Engine::Epoll(epoll), pool))
    }

    /// Makes the pool of datagrams, and registers it if the kernel picks. An error is that of
    /// mmap(2) or io_uring_register(2).
    pub(super) fn datagram_pool(&self, settings: &Settings) -> io::Result<Rc<BufferPool>> {
        let count = settings.buffer_count.min(DATAGRAM_BUFFERS_MAX);
        let by_kernel = matches!(self, Engine::Ring(_));
        let pool = BufferPool::for_datagrams(incoming::buffer_len(), count, by_kernel)?;
        if let Engine::Ring(ring) = self {
            probe::retry_on_enomem(|| ring.register_pool(&pool, DATAGRAM_GROUP))?;
        }
        Ok(pool)
    }

    // ---- requests ---------------------------------------------------------------------------

    /// Makes an attempt, if the engine does so and the descriptor may be ready. `Some`: the answer,
    /// and the request is over. `None`: the request must wait, and the caller passes it to
    /// [`start`](Self::start). After a partial send, `op` records how
    /// much was sent, and `start` sends the rest.
    #[inline]
    pub(super) fn attempt<R: Request, P>(&self, op: &mut Op<R, P>) -> Option<Completion> {
        match self {
            Engine::Ring(_) => None,
            Engine::Epoll(epoll) => epoll.begin::<R>(&mut op.target, &mut op.sent),
        }
    }

    /// Takes over a request that must wait. Its answers come with `token`. An attempt has sent
    /// `sent` bytes of it, which the answer includes. `Full`: the request was not taken.
    #[inline]
    pub(super) fn start<R: Request>(&self, target: &Target, sent: u32, token: Token) -> Pushed {
        match self {
            Engine::Ring(_) => self.push(R::entry(target).user_data(token.to_user_data())),
            Engine::Epoll(epoll) => {
                epoll.wait_for::<R>(token.to_user_data(), *target, sent);
                Pushed::Yes
            }
        }
    }

    /// Asks for the request of `token` to end. Its terminal answer still comes. A request that has
    /// ended already is not affected. `Full`: the cancel was not taken.
    pub(super) fn cancel(&self, token: Token) -> Pushed {
        match self {
            Engine::Ring(_) => {
                let cancel = opcode::AsyncCancel::new(token.to_user_data()).build();
                self.push(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(CANCEL))
            }
            Engine::Epoll(epoll) => {
                epoll.cancel(token.to_user_data());
                Pushed::Yes
            }
        }
    }

    /// Removes a waiting request, which then has no answer. False, and nothing has changed: the
    /// kernel has it, or it was answered.
    pub(super) fn withdraw(&self, token: Token) -> bool {
        match self {
            Engine::Ring(_) => false,
            Engine::Epoll(epoll) => epoll.withdraw(token.to_user_data()),
        }
    }

    /// Writes a submission to the ring. Panics on epoll, which has none.
    #[inline]
    pub(super) fn push(&self, entry: squeue::Entry) -> Pushed {
        match self {
            Engine::Ring(ring) if ring.push(&entry) => Pushed::Yes,
            Engine::Ring(_) => Pushed::Full(entry),
            Engine::Epoll(_) => unreachable!("nothing is pushed to epoll"),
        }
    }

    /// Submits what was pushed, and does not reap. Gives how many submissions the kernel took;
    /// epoll has none.
    pub(super) fn submit(&self) -> io::Result<u32> {
        match self {
            Engine::Ring(ring) => ring.submit(),
            Engine::Epoll(_) => Ok(0),
        }
    }

    /// Forgets a descriptor that is about to be closed or given away. No request may wait for it.
    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        if let Engine::Epoll(epoll) = self {
            epoll.forget(fd);
        }
    }

    // ---- answers ----------------------------------------------------------------------------

    /// Whether an enter that does not wait would submit or bring anything.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        match self {
            Engine::Ring(ring) => ring.has_work(),
            Engine::Epoll(epoll) => epoll.has_work(),
        }
    }

    /// Whether there are answers before the next enter. Under epoll, a cancelled request has its
    /// answer at once. On the ring, only an enter brings it.
    pub(super) fn has_answers(&self) -> bool {
        match self {
            Engine::Ring(_) => false,
            Engine::Epoll(epoll) => epoll.has_answers(),
        }
    }

    /// One system call: submits, and waits until there are `want` completions or `sleep` is over. A
    /// `want` of zero does not wait. Epoll waits for one event, however large `want` is. Gives how
    /// many submissions the kernel took. After an error nothing is lost.
    #[inline]
    pub(super) fn enter(&self, want: u32, sleep: SleepLimit) -> io::Result<u32> {
        match self {
            Engine::Ring(ring) => ring.enter(want, sleep),
            Engine::Epoll(epoll) => epoll.wait((want > 0).then_some(sleep)).map(|()| 0),
        }
    }

    /// Takes the next completion: the user_data of its op, and the answer. `None`: there are no
    /// more before the next enter.
    #[inline]
    pub(super) fn next_completion(&self) -> Option<(u64, Completion)> {
        match self {
            Engine::Ring(ring) => {
                ring.next_completion().map(|entry| (entry.user_data(), Completion::new(&entry)))
            }
            Engine::Epoll(epoll) => epoll.next_completion(),
        }
    }

    /// Whether completions wait in the kernel because the queue was full. An enter fetches them.
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

    /// How many system calls it has made, enters not counted.
    pub(super) fn calls_beside_enters(&self) -> u64 {
        match self {
            Engine::Ring(_) => 0,
            Engine::Epoll(epoll) => epoll.calls(),
        }
    }

    // ---- the end ----------------------------------------------------------------------------

    /// Makes the kernel give up the memory of the pools. Nothing may be in flight.
    pub(super) fn unregister_pools(&self) {
        if let Engine::Ring(ring) = self {
            for group in [BUFFER_GROUP, DATAGRAM_GROUP] {
                let _ = ring.unregister_pool(group); // fails only if it never was registered
            }
        }
    }

    /// In a forked child: closes the engine's descriptor, and touches nothing that the parent uses.
    pub(super) fn close_in_child(self) {
        if let Engine::Ring(ring) = self {
            ring.close_number();
        }
    }
}
