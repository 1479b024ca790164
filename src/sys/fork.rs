//! Tells a forked child from the process that set its runtime up.
//!
//! A child of fork(2) shares the ring with its parent; touching it would corrupt the parent's
//! submissions. One word of memory that the kernel wipes in a child (madvise(2), MADV_WIPEONFORK,
//! Linux 4.14) tells the two apart at the cost of a load.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Mapping;

/// Holds the id of the process that made it; wiped to zero in its children, until one of them
/// makes a mark of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkMark {
    word: &'static AtomicU32,
    process: u32,
}

impl ForkMark {
    /// The mark of this process; makes it at the first call, for the life of the process.
    pub(crate) fn get() -> io::Result<ForkMark> {
        static MARK: OnceLock<usize> = OnceLock::new();
        let address = match MARK.get() {
            Some(address) => *address,
            None => {
                let page = Mapping::new(4096)?;
                // SAFETY: the range is the mapping's own; the advice changes nothing here.
                let advised = unsafe {
                    libc::madvise(page.start().cast(), page.len(), libc::MADV_WIPEONFORK)
                };
                if advised == -1 {
                    return Err(io::Error::last_os_error());
                }
                let address = *MARK.get_or_init(|| page.start() as usize);
                if address == page.start() as usize {
                    std::mem::forget(page); // lives as long as the process
                }
                address
            }
        };
        // SAFETY: a page is aligned for u32, was zeroed, is never unmapped once published in
        // MARK, and is only ever touched through this atomic.
        let word = unsafe { &*(address as *const AtomicU32) };
        let process = std::process::id();
        word.store(process, Ordering::Relaxed);
        Ok(ForkMark { word, process })
    }

    /// Whether this is a child forked from the process that made the mark.
    #[inline]
    pub(crate) fn is_child(self) -> bool {
        self.word.load(Ordering::Relaxed) != self.process
    }
}
