//! A caller's buffer while the kernel may fill it, shared by the waiting future and its stream.
//!
//! The bytes that came belong to the stream until a call takes them: `start..end` below. So a
//! future that is dropped or forgotten takes no byte with it, and its buffer lives as long as
//! somebody still points to it: the op in flight, the parked bytes, or the future.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};

use super::IoBufMut;

/// A buffer being filled. Type erased as `Rc<Fill<dyn Any>>`.
pub(crate) struct Fill<B: ?Sized = dyn Any> {
    /// Start of the spare room, and its length.
    room: *mut u8,
    room_len: usize,
    /// What was received and not taken, as offsets into the room.
    start: Cell<usize>,
    end: Cell<usize>,
    /// An op points into the room.
    in_flight: Cell<bool>,
    /// `None` once the owner took the buffer back.
    buf: UnsafeCell<B>,
}

impl<B: IoBufMut> Fill<Option<B>> {
    /// Lends the first `max` bytes of the spare room of `buf`.
    pub(crate) fn new(mut buf: B, max: usize) -> Self {
        let (len, capacity) = (buf.len(), buf.capacity());
        assert!(len <= capacity, "a buffer holds at most its capacity");
        // SAFETY: `len` is within the `capacity` bytes that `ptr_mut` points to.
        let room = unsafe { buf.ptr_mut().add(len) };
        Fill {
            room,
            room_len: max.min(capacity - len),
            start: Cell::new(0),
            end: Cell::new(0),
            in_flight: Cell::new(false),
            buf: UnsafeCell::new(Some(buf)),
        }
    }

    /// The buffer again, with the received bytes appended, and how many those were.
    pub(crate) fn take(&self) -> (B, usize) {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is given back");
        self.compact();
        let received = self.end.replace(0);
        // SAFETY: `Fill` is `!Sync`, and no other reference into the cell exists: this is the
        // only place that makes one.
        let mut buf = unsafe { &mut *self.buf.get() }.take().expect("a buffer is taken once");
        let len = buf.len() + received;
        // SAFETY: the bytes up to `len` were initialised before, the rest just received.
        unsafe { buf.set_len(len) };
        (buf, received)
    }
}

impl<B: ?Sized> Fill<B> {
    /// The room behind what was received: where an op may write next.
    pub(crate) fn target(&self) -> (*mut u8, usize) {
        // SAFETY: `end <= room_len` (asserted in `filled`).
        let next = unsafe { self.room.add(self.end.get()) };
        (next, self.room_len - self.end.get())
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.get()
    }

    /// An op starts to point into the room, or has ended.
    pub(crate) fn set_in_flight(&self, in_flight: bool) {
        assert!(in_flight != self.in_flight.get(), "one op fills a buffer at a time");
        self.in_flight.set(in_flight);
    }

    /// Moves what was received to the start of the room.
    pub(crate) fn compact(&self) {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is moved in");
        let received = self.end.get() - self.start.get();
        // SAFETY: `start` is within the room.
        let from = unsafe { self.room.add(self.start.get()) };
        // SAFETY: both ranges lie in the room (`end <= room_len`), and no op points into it.
        unsafe { std::ptr::copy(from, self.room, received) };
        self.start.set(0);
        self.end.set(received);
    }

    /// # Safety
    /// The `len` bytes at `target` were initialised.
    pub(crate) unsafe fn filled(&self, len: usize) {
        let end = self.end.get() + len;
        assert!(end <= self.room_len, "the kernel writes no more than it was given");
        self.end.set(end);
    }

    /// Copies as much of `bytes` as fits behind what was received; how many fitted.
    pub(crate) fn append(&self, bytes: &[u8]) -> usize {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is written to");
        let (target, room) = self.target();
        let len = bytes.len().min(room);
        // SAFETY: `target` has room for `len` bytes; `bytes` is another memory, as the room is
        // this buffer's own (`IoBufMut`).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, len) };
        // SAFETY: just written.
        unsafe { self.filled(len) };
        len
    }

    /// What was received and not taken.
    pub(crate) fn received(&self) -> &[u8] {
        let len = self.end.get() - self.start.get();
        // SAFETY: `start..end` lies in the room and is initialised; an op in flight writes behind
        // `end` only; `take` and `consume` move the range but not the bytes while nobody reads
        // (`Fill` is `!Sync`, and callers copy at once).
        unsafe { std::slice::from_raw_parts(self.room.add(self.start.get()), len) }
    }

    /// Forgets the first `len` received bytes: another call took them.
    pub(crate) fn consume(&self, len: usize) {
        assert!(len <= self.end.get() - self.start.get(), "only what was received can be taken");
        self.start.set(self.start.get() + len);
        if self.start.get() == self.end.get() && !self.in_flight.get() {
            self.start.set(0);
            self.end.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_append_behind_what_the_buffer_held_and_leave_in_order() {
        let mut buf = Vec::with_capacity(8);
        buf.extend(*b"ab");
        let fill = Fill::new(buf, usize::MAX);
        assert_eq!(fill.append(b"cdefghij"), 6);
        assert_eq!(fill.received(), b"cdefgh");
        fill.consume(2);
        assert_eq!(fill.received(), b"efgh");
        let (buf, received) = fill.take();
        assert_eq!((&buf[..], received), (&b"abefgh"[..], 4));
    }

    #[test]
    #[should_panic(expected = "the kernel is done")]
    fn a_buffer_in_flight_is_not_given_back() {
        let fill = Fill::new(Vec::<u8>::with_capacity(1), 1);
        fill.set_in_flight(true);
        fill.take();
    }
}
