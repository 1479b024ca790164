//! Several buffers that are sent in one call: the message that sendmsg(2) takes.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::Outgoing;
use super::parcel::control_space;
use crate::sys::TRANSFER_LEN_MAX;

/// How many pieces one call gets. (The kernel takes 1024, IOV_MAX; more than this gains nothing.)
const PIECES_MAX: usize = 256;

/// A message header, the list of pieces it points to, and the buffers those point into.
pub(crate) struct Batch {
    // Fields are dropped in this order: first what points, then what it points to.
    header: UnsafeCell<libc::msghdr>,
    /// A Vec, not a Box: its move leaves the pointer in `header` usable.
    _pieces: Vec<libc::iovec>,
    /// The control message with the descriptors of the first buffer; empty without any.
    _control: Vec<usize>,
    outgoing: Vec<Outgoing>,
}

impl Batch {
    /// A batch of the bytes of `outgoing` in order, without the first `offset` bytes of the first
    /// buffer. Returns it with its length. That is at most what one call transfers, so bytes may be
    /// left out at the end. A buffer with descriptors that are not out is alone in its message.
    pub(crate) fn new(outgoing: Vec<Outgoing>, offset: usize) -> (Batch, usize) {
        let mut len = 0;
        let starts_described = offset == 0 && !outgoing[0].descriptors().is_empty();
        let together = (outgoing.iter().enumerate()).take_while(|(index, out)| {
            *index == 0 || !starts_described && out.descriptors().is_empty()
        });
        let mut control = match starts_described {
            true => control_message(outgoing[0].descriptors()),
            false => Vec::new(),
        };
        let mut pieces: Vec<libc::iovec> = together
            .flat_map(|(index, out)| out.pieces(if index == 0 { offset } else { 0 }))
            .take(PIECES_MAX)
            .map_while(|piece| {
                let piece = &piece[..piece.len().min(TRANSFER_LEN_MAX - len)];
                len += piece.len();
                let base = piece.as_ptr().cast_mut().cast();
                let iovec = libc::iovec { iov_base: base, iov_len: piece.len() };
                (!piece.is_empty()).then_some(iovec)
            })
            .collect();
        // SAFETY: msghdr consists of integers and raw pointers, for which zero and null are valid:
        // no name, no control data.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len() as _;
        if starts_described {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = control_space(outgoing[0].descriptors().len()) as _;
        }
        let header = UnsafeCell::new(header);
        (Batch { header, _pieces: pieces, _control: control, outgoing }, len)
    }

    /// The header. It stays where it is as long as the batch does; everything it points to is on
    /// the heap, and lives as long as the batch.
    pub(crate) fn header(&self) -> *mut libc::msghdr {
        self.header.get()
    }

    /// Removes the first `len` bytes from the list of pieces.
    ///
    /// # Safety
    /// - `header` is that of a batch that is alive and that nothing else uses at the moment.
    /// - The pieces that are left have at least `len` bytes.
    pub(crate) unsafe fn advance(header: *mut libc::msghdr, mut len: usize) {
        // SAFETY: the caller promises that the batch is alive and not in use.
        let header = unsafe { &mut *header };
        if len > 0 {
            // Descriptors go with the first byte.
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
        }
        while len > 0 {
            // SAFETY: by the contract the pieces have `len` more bytes, so there is one more piece.
            // The batch owns the list.
            let piece = unsafe { &mut *header.msg_iov };
            if piece.iov_len > len {
                // SAFETY: `len` is less than the length of the piece.
                piece.iov_base = unsafe { piece.iov_base.byte_add(len) };
                piece.iov_len -= len;
                return;
            }
            len -= piece.iov_len;
            // SAFETY: the piece is in the list, so this points into the list or one past its end.
            header.msg_iov = unsafe { header.msg_iov.add(1) };
            header.msg_iovlen -= 1;
        }
    }

    /// Returns the buffers, in order.
    pub(crate) fn into_outgoing(self) -> Vec<Outgoing> {
        self.outgoing
    }
}

/// A control message with these descriptors, which stay their owner's (unix(7)).
fn control_message(descriptors: &[OwnedFd]) -> Vec<usize> {
    let space = control_space(descriptors.len());
    let mut memory = vec![0usize; space.div_ceil(size_of::<usize>())];
    let len = size_of_val(descriptors) as libc::c_uint;
    let message: *mut libc::cmsghdr = memory.as_mut_ptr().cast();
    // SAFETY: CMSG_LEN computes, and touches no memory.
    let cmsg_len = unsafe { libc::CMSG_LEN(len) } as _;
    // SAFETY: the memory is aligned for a header and large enough for one, and for the descriptors.
    unsafe {
        (*message).cmsg_len = cmsg_len;
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
    }
    // SAFETY: as above.
    let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
    for (index, fd) in descriptors.iter().enumerate() {
        // SAFETY: there is room for all of them behind the header.
        unsafe { data.add(index).write_unaligned(fd.as_raw_fd()) };
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_every_piece_from_the_offset_on() {
        let outgoing =
            vec![Outgoing::one("abc"), Outgoing::many(vec!["", "de"]), Outgoing::one("f")];
        let (batch, len) = Batch::new(outgoing, 1);
        // SAFETY: the header and what it lists live as long as `batch`.
        let listed = unsafe {
            let header = &*batch.header();
            std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen as _)
                .iter()
                .flat_map(|piece| {
                    std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len).to_vec()
                })
                .collect::<Vec<u8>>()
        };
        assert_eq!((listed, len), (b"bcdef".to_vec(), 5));
        assert_eq!(batch.into_outgoing().len(), 3);
    }
}
