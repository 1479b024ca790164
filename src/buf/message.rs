//! One datagram that is sent: the message that sendmsg(2) takes, with all that it points to.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem;
use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use super::Outgoing;
use crate::sys::addr::SockAddr;
use crate::sys::control::Control;
use crate::sys::datagram::header_of;

/// A message header, and what it points to: an address, control data, and a part of a buffer.
pub(crate) struct OutgoingMessage {
    header: UnsafeCell<libc::msghdr>,
    piece: UnsafeCell<libc::iovec>,
    name: Option<SockAddr>,
    control: Control,
    /// `None` while it waits to be used again.
    outgoing: Option<Outgoing>,
}

impl OutgoingMessage {
    /// A message with the bytes of `range` of a buffer that is one piece. `used`: one that has gone
    /// out, whose memory is used again. Panics if the buffer has no such bytes.
    pub(crate) fn new(
        used: Option<Rc<OutgoingMessage>>,
        outgoing: Outgoing,
        range: Range<usize>,
        (name, control): (Option<SockAddr>, Control),
    ) -> Rc<OutgoingMessage> {
        let mut message = used.unwrap_or_else(|| {
            let piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
            Rc::new(OutgoingMessage {
                header: UnsafeCell::new(header_of(ptr::null_mut(), None, &Control::EMPTY)),
                piece: UnsafeCell::new(piece),
                name: None,
                control: Control::EMPTY,
                outgoing: None,
            })
        });
        let this = Rc::get_mut(&mut message).expect("what has gone out is shared with nobody");
        (this.name, this.control) = (name, control);
        let bytes = this.outgoing.insert(outgoing).as_one(0).expect("a buffer of one piece");
        let bytes = &bytes[range];
        let piece =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // From the shared value, which is not moved or borrowed mutably while it is in flight.
        let this = &*message;
        let header = header_of(this.piece.get(), this.name.as_ref(), &this.control);
        // SAFETY: nobody else has the message yet, so nobody uses either of the two.
        unsafe {
            this.piece.get().write(piece);
            this.header.get().write(header);
        }
        message
    }

    /// The header. It stays where it is as long as the message does. All that it points to lives as
    /// long: in the message itself, or on the heap.
    pub(crate) fn header(&self) -> *mut libc::msghdr {
        self.header.get()
    }

    /// Takes the buffer of a message that has gone out, or will not. What is left can be used for
    /// the next one. Panics if an op has the message still.
    pub(crate) fn take_outgoing(self: &mut Rc<Self>) -> Outgoing {
        let this = Rc::get_mut(self).expect("an op that has ended shares nothing");
        mem::take(&mut this.outgoing).expect("a message is sent with its buffer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_leads_to_all_parts() {
        let addr = "127.0.0.1:9".parse().expect("an address");
        let mut control = Control::EMPTY;
        control.push(1, 2, &[3; 4]);
        let envelope = (Some(SockAddr::new(addr)), control);
        let mut message = OutgoingMessage::new(None, Outgoing::one("abcdef"), 2..5, envelope);
        for (round, expected) in [&b"cde"[..], b"f"].into_iter().enumerate() {
            // SAFETY: the header and what it points to live as long as the message.
            let (header, bytes) = unsafe {
                let header = &*message.header();
                let piece = &*header.msg_iov;
                (header, std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len))
            };
            assert_eq!((bytes, header.msg_iovlen), (expected, 1));
            assert_eq!(header.msg_name.is_null(), round == 1);
            assert_eq!(header.msg_controllen, [24, 0][round]);
            let used = message.take_outgoing();
            assert_eq!(used.take::<&str>(), "abcdef");
            let outgoing = Outgoing::one("abcdef");
            message = OutgoingMessage::new(Some(message), outgoing, 5..6, (None, Control::EMPTY));
        }
    }
}
