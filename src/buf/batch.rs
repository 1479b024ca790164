//! Several buffers on their way out as one message: what sendmsg(2) takes.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem;

use super::Outgoing;
use crate::sys::TRANSFER_LEN_MAX;

/// How many pieces one call takes (IOV_MAX is 1024; more than this gains nothing).
const PIECES_MAX: usize = 256;

/// A message header, the list of pieces it points to, and the buffers those point into.
pub(crate) struct Batch {
    // Dropped in this order: what points, then what is pointed to.
    header: UnsafeCell<libc::msghdr>,
    _pieces: Box<[libc::iovec]>,
    outgoing: Vec<Outgoing>,
}

impl Batch {
    /// The bytes of `outgoing` in order, of the first buffer from `offset` on; also says how many
    /// those are, at most what one call transfers.
    pub(crate) fn new(outgoing: Vec<Outgoing>, offset: usize) -> (Batch, usize) {
        let mut len = 0;
        let mut pieces: Box<[libc::iovec]> = (outgoing.iter().enumerate())
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
        // SAFETY: all zeroes is a valid msghdr: no name, no control data.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len() as _;
        (Batch { header: UnsafeCell::new(header), _pieces: pieces, outgoing }, len)
    }

    /// The header; it and all it points to stay where they are while the batch does.
    pub(crate) fn header(&self) -> *mut libc::msghdr {
        self.header.get()
    }

    /// Takes the first `len` bytes off the list of pieces.
    ///
    /// # Safety
    /// `header` is a batch's, which lives and is not in use; its pieces have so many bytes.
    pub(crate) unsafe fn advance(header: *mut libc::msghdr, mut len: usize) {
        // SAFETY: the caller's promise.
        let header = unsafe { &mut *header };
        while len > 0 {
            // SAFETY: there are bytes left, so there is a piece; the list is this batch's own.
            let piece = unsafe { &mut *header.msg_iov };
            if piece.iov_len > len {
                // SAFETY: within the piece.
                piece.iov_base = unsafe { piece.iov_base.byte_add(len) };
                piece.iov_len -= len;
                return;
            }
            len -= piece.iov_len;
            // SAFETY: at most one past the end, where nobody reads: the count goes down too.
            header.msg_iov = unsafe { header.msg_iov.add(1) };
            header.msg_iovlen -= 1;
        }
    }

    /// The buffers again, in order.
    pub(crate) fn into_outgoing(self) -> Vec<Outgoing> {
        self.outgoing
    }
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
