//! Memory in pages of its own: buffers and rings that the kernel is told the address of.
#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};

/// Anonymous private memory, mapped by [`new`](Self::new) and unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// mmap(2) of `len` zeroed bytes, which must be more than none. The kernel gives a page when it
    /// is first touched.
    pub(crate) fn new(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED, mmap(2) picks addresses that nothing else uses.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap never maps address zero");
        Ok(Mapping { start, len })
    }

    /// MADV_NOHUGEPAGE: touching a byte costs one page and no more, also where the system makes
    /// pages huge by itself. A kernel without huge pages refuses, and there is nothing to forbid
    /// then.
    pub(crate) fn without_huge_pages(self) -> Mapping {
        // SAFETY: the range is the one that `new` mapped. The advice changes no content.
        unsafe { libc::madvise(self.start().cast(), self.len, libc::MADV_NOHUGEPAGE) };
        self
    }

    /// MADV_DONTNEED: gives the pages from `start` on back to the system, `len` bytes of them. They
    /// are zeroed when they are touched again. Panics if the range is not within the mapping. The
    /// caller makes sure that it begins and ends with a page, and that nothing uses the memory.
    pub(crate) fn discard(&self, start: usize, len: usize) {
        assert!(start <= self.len && len <= self.len - start, "within the mapping");
        // SAFETY: the range is within the mapping, as asserted, so its pages are our own.
        let start = unsafe { self.start().add(start) };
        // SAFETY: as above. A refusal leaves the pages as they are.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// The length of a page in bytes.
pub(crate) fn page_len() -> usize {
    // SAFETY: sysconf(3) takes no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and only this drop unmaps it. An owner that
        // hands out pointers into the mapping keeps it for as long as they are used.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
