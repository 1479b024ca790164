//! Bytes that are received together with descriptors: the message that recvmsg(2) fills.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::sys::TRANSFER_LEN_MAX;

/// The descriptor of the sender's process, for sockets with SO_PASSPIDFD (unix(7)). Kernel 6.5.
const SCM_PIDFD: libc::c_int = 4;
/// Room for messages that options of the socket ask for, so that they take none of the descriptors':
/// SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC.
const OTHERS_SPACE: usize = 512;

/// A message header, and the memory that it names: for bytes, and for descriptors (unix(7)).
/// Descriptors that nobody has taken are closed with it.
pub(crate) struct Parcel {
    // Fields are dropped in this order: first what points, then what it points to.
    header: UnsafeCell<libc::msghdr>,
    _piece: Box<UnsafeCell<libc::iovec>>,
    bytes: Vec<u8>,
    /// For control messages, which are aligned as a usize. Zeroes mean that there is none.
    control: Vec<UnsafeCell<usize>>,
}

impl Parcel {
    /// Room for `len` bytes and so many descriptors.
    pub(crate) fn new(len: usize, descriptors: usize) -> Parcel {
        let mut bytes: Vec<u8> = Vec::with_capacity(len);
        let base = bytes.as_mut_ptr().cast();
        let piece = libc::iovec { iov_base: base, iov_len: len.min(TRANSFER_LEN_MAX) };
        let piece = Box::new(UnsafeCell::new(piece));
        let space = control_space(descriptors) + OTHERS_SPACE;
        let words = space.div_ceil(size_of::<usize>());
        let control: Vec<_> = (0..words).map(|_| UnsafeCell::new(0)).collect();
        // SAFETY: msghdr consists of integers and raw pointers, for which zero and null are valid.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = piece.get();
        header.msg_iovlen = 1;
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = space as _;
        Parcel { header: UnsafeCell::new(header), _piece: piece, bytes, control }
    }

    /// The header. It stays where it is as long as the parcel does; everything it points to is on
    /// the heap, and lives as long as the parcel.
    pub(crate) fn header(&self) -> *mut libc::msghdr {
        self.header.get()
    }

    /// How many bytes there is room for.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// What a receive has brought that has ended: `len` bytes, zero after an error, and the
    /// descriptors. True: there were more descriptors, and the kernel has closed them.
    pub(crate) fn open(mut self, len: usize) -> (Vec<u8>, Vec<OwnedFd>, bool) {
        assert!(len <= self.bytes.capacity(), "the kernel writes no more than it was given");
        // SAFETY: the kernel has written the first `len` bytes, and the assertion above has checked
        // the capacity.
        unsafe { self.bytes.set_len(len) };
        let is_cut = self.header.get_mut().msg_flags & libc::MSG_CTRUNC != 0;
        let descriptors = self.take_descriptors();
        (mem::take(&mut self.bytes), descriptors, is_cut)
    }

    /// Takes the descriptors that a receive has brought; there are none the next time.
    fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        let mut taken = Vec::new();
        let header = self.header.get();
        // SAFETY: the header is this parcel's, no op uses it any more, and its control memory is
        // initialised: zeroes, or what the kernel has written.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: `CMSG_FIRSTHDR` and `CMSG_NXTHDR` give null, or a header within that memory.
        while let Some(message) = unsafe { next.as_ref() } {
            let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            // SAFETY: CMSG_LEN computes, and touches no memory.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            #[allow(clippy::unnecessary_cast, reason = "another C library has a shorter type")]
            let len = message.cmsg_len as usize;
            if len < before {
                break; // zeroes: nothing was written here
            }
            let pidfd = (libc::SOL_SOCKET, SCM_PIDFD);
            let kind = (message.cmsg_level, message.cmsg_type);
            let mut came = Vec::new();
            if kind == rights || kind == pidfd {
                // SAFETY: the data of a message begin behind its header.
                let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
                for index in 0..(len - before) / size_of::<RawFd>() {
                    // SAFETY: the message has so many descriptors, perhaps unaligned.
                    let fd = unsafe { data.add(index).read_unaligned() };
                    // SAFETY: the kernel has opened it for this receive, and nobody else owns it:
                    // the memory is cleared below.
                    came.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            if kind == rights {
                taken.append(&mut came); // a descriptor of the sender's process is closed
            }
            // SAFETY: as for `CMSG_FIRSTHDR`.
            next = unsafe { libc::CMSG_NXTHDR(header, message) };
        }
        self.control.iter_mut().for_each(|word| *word.get_mut() = 0);
        taken
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        drop(self.take_descriptors()); // they are closed
    }
}

/// How much control memory so many descriptors take.
pub(crate) fn control_space(descriptors: usize) -> usize {
    let len = descriptors * size_of::<RawFd>();
    // SAFETY: CMSG_SPACE computes, and touches no memory.
    unsafe { libc::CMSG_SPACE(len as libc::c_uint) as usize }
}
