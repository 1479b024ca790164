//! The submission and completion queues of io_uring: push, enter, reap. No other file touches them.
//!
//! The `io-uring` crate maps the queues. This file makes the system call itself, because the
//! crate's `submit` does not use a registered ring and its wait flags (40 ns of 391 a turn, see
//! `docs::kernels`). This file does not know what an op is. Read next: `mod.rs`.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use super::buffer_ring::BufferPool;
use super::probe::{self, Kernel, RingFeatures, SetupError};
use crate::sys;

/// How long one enter may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SleepLimit {
    /// Until there are as many completions as the caller wants.
    Long,
    /// As `Long`, but at most until this point of CLOCK_MONOTONIC, in nanoseconds.
    Until(u64),
}

/// A ring, and how this thread enters it.
pub(super) struct Ring {
    /// Dropped last by `Driver`: only when nothing is in flight (invariant 6).
    ring: IoUring,
    /// The ring's descriptor, or its index in this thread's table of registered rings.
    enter_fd: i32,
    enter_flags: u32,
    found: RingFeatures,
}

// io_uring_enter(2) flags and io_uring_register(2) opcodes that the crate does not name.
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// The longest sleep. A longer one is done as two (SEMANTICS TM2).
const SLEEP_NS_MAX: u64 = 24 * 3600 * 1_000_000_000;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_len: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    tv_sec: i64,
    tv_nsec: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingRegistration {
    offset: u32,
    reserved: u32,
    data: u64,
}

impl Ring {
    /// Sets a ring up and registers its descriptor. One enter shows whether a filter denies that
    /// call, which is an error as well.
    pub(super) fn new(
        entries: u32,
        completion_entries: u32,
        pretended: Option<Kernel>,
    ) -> Result<Ring, SetupError> {
        let (ring, mut found) = probe::set_up(entries, completion_entries, pretended)?;
        let fd = ring.as_raw_fd();
        let mut enter_fd = fd;
        let mut enter_flags = EnterFlags::GETEVENTS.bits();
        // A thread can register sixteen rings. If there is no room, enter takes the descriptor.
        if let Ok(index) = register_ring(fd) {
            enter_fd = index;
            enter_flags |= ENTER_REGISTERED_RING;
            found.registered_ring = true;
        }
        if found.no_iowait {
            enter_flags |= EnterFlags::NO_IOWAIT.bits();
        }
        let ring = Ring { ring, enter_fd, enter_flags, found };
        // A seccomp filter may allow set-up and deny enter. This call finds that out now, before
        // the first wait.
        match ring.enter(0, SleepLimit::Long) {
            Err(error) if error.raw_os_error().is_some_and(probe::is_denial) => {
                Err(SetupError::of_call("io_uring_enter", "io_uring_enter", &error))
            }
            _ => Ok(ring),
        }
    }

    pub(super) fn found(&self) -> RingFeatures {
        self.found
    }

    pub(super) fn completion_entries(&self) -> u32 {
        self.ring.params().cq_entries()
    }

    /// Records the result of the trial (`trial.rs`).
    pub(super) fn found_multishot_recv(&mut self, is_whole: bool) {
        self.found.multishot_recv = is_whole;
    }

    /// Makes a pool's buffers the ones of `group`: receives of that group pick from them. The
    /// caller keeps the pool until [`unregister_pool`](Self::unregister_pool).
    pub(super) fn register_pool(&self, pool: &BufferPool, group: u16) -> io::Result<()> {
        let (addr, count) = (pool.ring_addr(), pool.count());
        // SAFETY: the address is the start of a page-aligned mapping of `count` entries. The driver
        // keeps the mapping alive by an `Rc<BufferPool>`, and unregisters it before it drops that.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(addr, count, group, 0) }
    }

    /// Undoes [`register_pool`](Self::register_pool). Nothing of that group may be in flight.
    pub(super) fn unregister_pool(&self, group: u16) -> io::Result<()> {
        self.ring.submitter().unregister_buf_ring(group)
    }

    /// Writes a submission. False: the queue is full, and nothing was written.
    #[inline]
    pub(super) fn push(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: the `Ring` belongs to one `Driver`, whose `Rc`s keep it on its thread. No two
        // handles of one queue live at the same time: each method drops its own before it returns.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: an entry comes from an `Op`, whose memory the table keeps until the terminal
        // completion, or it has no pointer.
        unsafe { queue.push(entry) }.is_ok()
    }

    /// Whether an enter would submit or bring anything.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        // SAFETY: as in `push`.
        let queue = unsafe { self.ring.submission_shared() };
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow() || self.has_completions()
    }

    #[inline]
    fn has_completions(&self) -> bool {
        // SAFETY: as in `push`, for the completion queue.
        !unsafe { self.ring.completion_shared() }.is_empty()
    }

    /// Whether completions wait in the kernel because the queue was full.
    pub(super) fn has_overflow(&self) -> bool {
        // SAFETY: as in `push`.
        unsafe { self.ring.submission_shared() }.cq_overflow()
    }

    /// Submits without asking for completions. Gives how many submissions the kernel took.
    pub(super) fn submit(&self) -> io::Result<u32> {
        let flags = self.enter_flags & ENTER_REGISTERED_RING;
        self.system_call(0, flags, ptr::null(), 0)
    }

    /// Submits, and waits until `want` completions are there or `sleep` is over. It does not wait
    /// if the deadline has passed. Gives how many submissions the kernel took. Errors are those of
    /// io_uring_enter(2), with nothing lost; ETIME means that the deadline came first.
    #[inline]
    pub(super) fn enter(&self, want: u32, sleep: SleepLimit) -> io::Result<u32> {
        let SleepLimit::Until(deadline) = sleep else {
            return self.system_call(want, self.enter_flags, ptr::null(), 0);
        };
        let flags = self.enter_flags | EnterFlags::EXT_ARG.bits();
        // Relative, not IORING_ENTER_ABS_TIMER: in a time namespace the kernel takes an absolute
        // time as the host's, and the wait is off by the namespace's offset (measured on 6.18).
        let left = deadline.saturating_sub(sys::monotonic_ns()).min(SLEEP_NS_MAX);
        if left == 0 {
            // Never ask for a timeout of zero: it arms a timer and costs 15 us.
            return self.system_call(0, self.enter_flags, ptr::null(), 0);
        }
        let timespec = Timespec {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_nsec: (left % 1_000_000_000) as i64,
        };
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_len: 0,
            min_wait_us: 0,
            timeout: (&raw const timespec) as u64,
        };
        self.system_call(want, flags, &raw const arg, size_of::<GetEventsArg>())
    }

    /// io_uring_enter(2) with all submissions that were pushed. Gives how many the kernel took.
    /// `arg` is null, or the argument that the flag `EXT_ARG` announces.
    #[inline]
    fn system_call(
        &self,
        want: u32,
        flags: u32,
        arg: *const GetEventsArg,
        arg_len: usize,
    ) -> io::Result<u32> {
        // SAFETY: as in `push`. The length is counted from the kernel's own head, so it is right
        // after a short or failed enter too.
        let pending = unsafe { self.ring.submission_shared() }.len() as u32;
        // SAFETY: `arg` is null, or points to an argument of `arg_len` bytes; the caller keeps it
        // and its timespec alive during the call. The table keeps alive what the submissions point
        // to.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                pending,
                want,
                flags,
                arg,
                arg_len,
            )
        };
        u32::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    /// Takes the oldest completion; `None` if the queue is empty. Taking it also tells the kernel
    /// that its place is free. Otherwise the next wait would end at once.
    #[inline]
    pub(super) fn next_completion(&self) -> Option<cqueue::Entry> {
        // SAFETY: as in `push`, for the completion queue.
        unsafe { self.ring.completion_shared() }.next()
    }
}

impl Ring {
    /// In a forked child: closes the descriptor and touches nothing else. The queues are not mapped
    /// in the child, and something else may be at their addresses.
    pub(super) fn close_number(self) {
        let ring = mem::ManuallyDrop::new(self);
        // SAFETY: `ring` is never dropped, so the descriptor is closed once.
        unsafe { libc::close(ring.ring.as_raw_fd()) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.found.registered_ring {
            unregister_ring(self.ring.as_raw_fd(), self.enter_fd);
        }
    }
}

/// Registers a ring's descriptor with this thread. Gives the index that enter takes in its place.
fn register_ring(fd: i32) -> io::Result<i32> {
    let mut registration = RingRegistration { offset: u32::MAX, reserved: 0, data: fd as u64 };
    // SAFETY: the kernel reads and writes one registration, and the pointer is to one that lives
    // during the call.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut registration, 1)
    };
    if done == 1 { Ok(registration.offset as i32) } else { Err(io::Error::last_os_error()) }
}

/// Undoes `register_ring`, which gave `index`.
fn unregister_ring(fd: i32, index: i32) {
    let registration = RingRegistration { offset: index as u32, reserved: 0, data: 0 };
    // SAFETY: the kernel reads one registration, and the pointer is to one that lives during the
    // call. After a failure the index stays registered until the thread ends.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            UNREGISTER_RING_FDS,
            &raw const registration,
            1,
        )
    };
}

/// The three system calls of a ring, each with the errno of a call with empty arguments. A seccomp
/// filter or the sysctl answers before the kernel looks at the arguments.
pub(crate) fn errnos_of_empty_calls() -> [(&'static str, i32); 3] {
    /// A descriptor that is never open.
    const NONE: libc::c_int = libc::c_int::MAX;
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let null = ptr::null::<u8>();
    // SAFETY: the kernel answers EFAULT for a null pointer.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, null) };
    let setup = errno();
    // SAFETY: the descriptor is never open, so the kernel answers EBADF and does nothing.
    unsafe { libc::syscall(libc::SYS_io_uring_enter, NONE, 0, 0, 0, null, 0_usize) };
    let enter = errno();
    // SAFETY: the descriptor is never open, as above.
    unsafe { libc::syscall(libc::SYS_io_uring_register, NONE, 0, null, 0) };
    [("io_uring_setup", setup), ("io_uring_enter", enter), ("io_uring_register", errno())]
}
