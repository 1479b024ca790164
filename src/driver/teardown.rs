//! The end of a driver: it cancels the ops in flight and waits for them. The memory of ops that do
//! not end is leaked, and never freed early.
//!
//! The order in which a runtime ends its parts is not here, but in `runtime.rs`. Read next:
//! `mod.rs`.

use std::mem;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::op::{Completion, Payload};
use super::ring::SleepLimit;
use super::{CANCEL_WAIT_SLICE, Driver, DriverState};
use crate::deferred::Deferred;
use crate::panics::contain;
use crate::sys;

/// How long teardown waits without progress before it leaks what is left.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl Driver {
    /// Teardown begins. From now on the driver takes no ops.
    pub(crate) fn begin_close(&self) {
        if self.state.get() == DriverState::Open {
            self.state.set(DriverState::Closing);
        }
    }

    /// Cancels the ops in flight, waits until they have ended, and closes the engine. The memory of
    /// ops that do not end within five seconds is leaked. In a forked child nothing is cancelled:
    /// only the child's own memory and descriptors are given back.
    pub(crate) fn close(&self) {
        if self.is_forked_copy() {
            return self.close_in_child();
        }
        self.begin_close();
        let mut deferred = self.deferred.take();
        let has_drained = self.is_in_use() && self.drain(&mut deferred);
        self.sleeper.close();
        self.state.set(DriverState::Gone);
        let engine = self.submissions.take_engine();
        drop(self.descriptors.take_sockets());
        if !has_drained {
            self.leak_what_is_left();
        } else if let Some(engine) = &engine {
            engine.unregister_pools();
        }
        drop(engine); // only now that the table is empty, or leaked (invariant 6)
        deferred.run();
        self.descriptor_closed();
    }

    /// Leaks the ops that have not ended, and the pools: the kernel may still write to their memory.
    /// Says so on stderr if there are any.
    fn leak_what_is_left(&self) {
        let left = self.submissions.take_all();
        if !left.is_empty() {
            eprintln!(
                "tamam: {} operations did not end within {} s; their memory is leaked",
                left.len(),
                DRAIN_TIMEOUT.as_secs()
            );
        }
        mem::forget((left, self.pools.all()));
    }

    /// In a forked child: the ring belongs to the parent and is not mapped here. Its descriptor and
    /// the memory are the child's own.
    fn close_in_child(&self) {
        self.state.set(DriverState::Gone);
        if let Some(engine) = self.submissions.take_engine() {
            engine.close_in_child();
        }
        self.submissions.take_all().into_iter().for_each(|op| contain(|| drop(op)));
        drop(self.descriptors.take_sockets());
        self.sleeper.close_in_child();
    }

    /// Waits until everything in flight has ended. The work that follows goes to `deferred`. False:
    /// it gave up, because the engine has failed, or nothing ended for [`DRAIN_TIMEOUT`].
    fn drain(&self, deferred: &mut Deferred) -> bool {
        let mut progress = Instant::now();
        loop {
            let in_flight = self.submissions.in_flight();
            if in_flight == 0 {
                return true;
            }
            self.submissions.cancel_all();
            let deadline = sys::monotonic_ns() + CANCEL_WAIT_SLICE.as_nanos() as u64;
            let want = self.submissions.with_engine(Engine::completions_max).min(in_flight as u32);
            self.enter(want, SleepLimit::Until(deadline));
            self.reap(deferred);
            if matches!(self.state.get(), DriverState::Broken(_)) {
                return false;
            }
            if self.submissions.in_flight() < in_flight {
                progress = Instant::now();
            } else if progress.elapsed() > DRAIN_TIMEOUT {
                return false;
            }
        }
    }

    /// The engine has failed for good with `errno`. Every owner is told; the work that follows is
    /// left to the next turn. Memory that the kernel may still write to is leaked.
    #[cold]
    pub(super) fn fail(&self, errno: i32) {
        let mut deferred = Deferred::default();
        self.dispatch(&mut deferred);
        self.state.set(DriverState::Broken(errno));
        for op in self.submissions.take_all() {
            mem::forget(op.payload);
            // The kernel may still use the descriptor in submissions that it has not taken, so the
            // owner keeps it open.
            mem::forget(op.owner.clone());
            // The future that waits is polled again, and `check` tells it what has failed.
            let done = Completion::cancelled();
            contain(|| op.owner.complete(op.role, done, &mut Payload::None, &mut deferred));
        }
        self.deferred.borrow_mut().append(&mut deferred);
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::rc::{Rc, Weak};

    use super::super::op::testing::{self, NoOwner};
    use super::super::{Backend, BufferPool, Owner, Role, Settings};
    use super::*;
    use crate::buf::Fill;

    /// What an op in flight keeps, as seen from outside.
    struct Kept {
        memory: Weak<Fill<dyn Any>>,
        owner: Weak<NoOwner>,
        pool: Weak<BufferPool>,
    }

    impl Kept {
        fn lives(&self) -> [bool; 3] {
            let (memory, owner) = (self.memory.strong_count(), self.owner.strong_count());
            [memory, owner, self.pool.strong_count()].map(|count| count > 0)
        }
    }

    /// A driver with one op in flight, which nobody else keeps.
    fn with_an_op() -> (Rc<Driver>, Kept) {
        let driver = Driver::new(Settings::small(Backend::Epoll));
        let driver = driver.unwrap_or_else(|error| panic!("epoll: {error}"));
        let memory: Rc<Fill<dyn Any>> = Rc::new(Fill::new(Vec::<u8>::with_capacity(64), 64));
        let owner = Rc::new(NoOwner);
        let kept = Kept {
            memory: Rc::downgrade(&memory),
            owner: Rc::downgrade(&owner),
            pool: Rc::downgrade(driver.pool()),
        };
        let op = testing::wait_with(5, Payload::Fill(memory));
        let owner: Rc<dyn Owner> = owner;
        driver.submissions.start(op, owner, Role::Recv);
        assert_eq!(driver.in_flight(), 1);
        (driver, kept)
    }

    #[test]
    fn an_op_that_ends_takes_its_memory_with_it() {
        let (driver, kept) = with_an_op();
        driver.close();
        drop(driver);
        assert_eq!(kept.lives(), [false; 3]);
    }

    #[test]
    fn a_failed_engine_leaks_what_the_kernel_may_still_use() {
        let (driver, kept) = with_an_op();
        driver.fail(libc::EBADF);
        assert_eq!((kept.lives(), driver.in_flight()), ([true; 3], 0));
        driver.close();
        drop(driver);
        assert_eq!(kept.lives(), [true; 3]);
    }

    #[test]
    fn an_op_that_does_not_end_is_leaked() {
        let (driver, kept) = with_an_op();
        driver.begin_close();
        driver.leak_what_is_left();
        drop(driver);
        assert_eq!(kept.lives(), [true; 3]);
    }
}
