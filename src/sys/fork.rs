//! Whether this process is a forked child of the one that started the runtime.
//!
//! A child of fork(2) shares the ring with its parent. If it used the ring, it would corrupt the
//! parent's submissions. So each runtime keeps a [`ForkMark`]: a word in memory that the kernel
//! zeroes in a child (madvise(2), MADV_WIPEONFORK, Linux 4.14). The check costs one load.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Mapping;

/// The word holds the id of the process that made the mark. In a child it is zero, until the child
/// makes a mark of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkMark {
    word: &'static AtomicU32,
    process: u32,
}

impl ForkMark {
    /// The mark of this process. The first call makes it; it lasts as long as the process.
    pub(crate) fn get() -> io::Result<ForkMark> {
        static MARK: OnceLock<usize> = OnceLock::new();
        let address = match MARK.get() {
            Some(address) => *address,
            None => {
                let page = Mapping::new(4096)?;
                // SAFETY: the range is a mapping that only this function knows, and the advice does
                // not change its bytes in this process.
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
        // SAFETY: the address is the start of a page, so it is aligned. The page was zeroed. It is
        // never unmapped, for the mapping whose address is in MARK was forgotten above. All access
        // is through this atomic.
        let word = unsafe { &*(address as *const AtomicU32) };
        let process = std::process::id();
        word.store(process, Ordering::Relaxed);
        Ok(ForkMark { word, process })
    }

    /// Whether this process is a child of the one that made the mark.
    #[inline]
    pub(crate) fn is_child(self) -> bool {
        self.word.load(Ordering::Relaxed) != self.process
    }
}
