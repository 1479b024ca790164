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

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and only this drop unmaps it. An owner that
        // hands out pointers into the mapping keeps it for as long as they are used.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
