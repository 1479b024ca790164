//! Descriptors that the kernel knows by the ring's own table: each send is spared the look-up of its
//! descriptor and a count on its file.
//!
//! A socket stays open as long as the table has it. So a descriptor is taken in only when its
//! connection has shown that it is busy, and taken out before it is closed or given away. Kernels
//! before 6.13 free what is taken out in the order of all submissions, so that one send that is
//! stuck would keep the others' peers from seeing an end: there nothing is registered.
//!
//! The number in the table is the descriptor's own. Read next: `ring.rs`.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{IoUring, squeue};

use super::count;
use crate::sys;

/// After so many sends a connection is worth the two system calls.
const SENDS_MIN: u8 = 32;
/// In place of the number of sends: it is in the table, or cannot be.
const REGISTERED: u8 = u8::MAX;
const REFUSED: u8 = u8::MAX - 1;
/// How long the table is, if the limit of descriptors allows; 8 bytes of the kernel's for each.
const LEN_MAX: u64 = 4096;

pub(super) struct Registered {
    /// By descriptors: how many sends there were, as far as it matters. Empty before the first one.
    sends: RefCell<Vec<u8>>,
    table: Cell<Table>,
    /// How many system calls were made.
    calls: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// Of no use on this kernel, or not to be had.
    Off,
    /// To be made for the first connection that is busy.
    Wanted,
    Made,
}

impl Registered {
    pub(super) fn new(is_of_use: bool) -> Registered {
        let table = if is_of_use { Table::Wanted } else { Table::Off };
        Registered { sends: RefCell::default(), table: Cell::new(table), calls: Cell::new(0) }
    }

    /// Notes a send; how to name its descriptor.
    #[inline]
    pub(super) fn flags(&self, ring: &IoUring, fd: RawFd) -> squeue::Flags {
        let mut sends = self.sends.borrow_mut();
        match sends.get_mut(fd as usize) {
            Some(&mut REGISTERED) => squeue::Flags::FIXED_FILE,
            Some(sends) if *sends < SENDS_MIN => {
                *sends += 1;
                squeue::Flags::empty()
            }
            Some(&mut REFUSED) => squeue::Flags::empty(),
            Some(_) => self.take_in(&mut sends, ring, fd),
            None => {
                if sends.is_empty() && self.table.get() != Table::Off {
                    *sends = vec![0; sys::descriptors_max().min(LEN_MAX) as usize];
                }
                squeue::Flags::empty()
            }
        }
    }

    /// Registers the descriptor of a busy connection.
    #[cold]
    fn take_in(&self, sends: &mut Vec<u8>, ring: &IoUring, fd: RawFd) -> squeue::Flags {
        let submitter = ring.submitter();
        if self.table.get() == Table::Wanted {
            count(&self.calls, 1);
            if submitter.register_files_sparse(sends.len() as u32).is_err() {
                self.table.set(Table::Off);
                *sends = Vec::new();
                return squeue::Flags::empty();
            }
            self.table.set(Table::Made);
        }
        count(&self.calls, 1);
        let is_in = submitter.register_files_update(fd as u32, &[fd]).is_ok();
        sends[fd as usize] = if is_in { REGISTERED } else { REFUSED };
        if is_in { squeue::Flags::FIXED_FILE } else { squeue::Flags::empty() }
    }

    /// Takes a descriptor out that is to be closed or given away.
    pub(super) fn forget(&self, ring: &IoUring, fd: BorrowedFd<'_>) {
        let mut sends = self.sends.borrow_mut();
        let Some(sends) = sends.get_mut(fd.as_raw_fd() as usize) else { return };
        if *sends != REGISTERED {
            // Once refused, for good: there may be a socket in the entry, see below.
            *sends = if *sends == REFUSED { REFUSED } else { 0 };
            return;
        }
        count(&self.calls, 1);
        if ring.submitter().register_files_update(fd.as_raw_fd() as u32, &[-1]).is_ok() {
            *sends = 0;
        } else {
            // Denied by now. The socket stays open until the ring is closed; its peer is told of the
            // end at least, and the entry is not used again.
            *sends = REFUSED;
            let _ = sys::shutdown_write(fd);
        }
    }

    /// How many system calls were made.
    pub(super) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Takes all out: objects may outlive the ring, and are closed when their owners say.
    pub(super) fn forget_all(&self, ring: &IoUring) {
        if self.table.replace(Table::Off) == Table::Made {
            let _ = ring.submitter().unregister_files();
        }
        self.sends.take();
    }
}
