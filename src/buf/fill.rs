//! A caller's buffer while the kernel may write to it. The waiting future and its stream share it.
//!
//! Received bytes (`start..end` below) belong to the stream until a call takes them. So no byte is
//! lost when the future is dropped or forgotten. The buffer lives as long as one of these needs it:
//! the op in flight, the stream with its parked bytes, or the future.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};

use super::IoBufMut;

/// A buffer that is being filled. `Rc<Fill<dyn Any>>` erases its type.
pub(crate) struct Fill<B: ?Sized = dyn Any> {
    /// Where the spare room of the buffer starts, and its length.
    room: *mut u8,
    room_len: usize,
    /// The bytes that were received and not taken, as offsets into the room.
    start: Cell<usize>,
    end: Cell<usize>,
    /// An op points into the room.
    in_flight: Cell<bool>,
    /// `None` after `take`.
    buf: UnsafeCell<B>,
}

impl<B: IoBufMut> Fill<Option<B>> {
    /// Takes `buf`, and offers the room behind its length for receiving: `max` bytes, or fewer if
    /// it has less capacity. `buf` never grows; [`take`](Self::take) gives it back.
    pub(crate) fn new(mut buf: B, max: usize) -> Self {
        let (len, capacity) = (buf.len(), buf.capacity());
        assert!(len <= capacity, "a buffer holds at most its capacity");
        // SAFETY: `ptr_mut` points to `capacity` bytes, and `len` is at most that (asserted above).
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

    /// Returns the buffer with the received bytes appended, and the number of those bytes. Panics
    /// while an op is in flight, and at a second call.
    pub(crate) fn take(&self) -> (B, usize) {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is given back");
        self.compact();
        let received = self.end.replace(0);
        // SAFETY: this is the only place that makes a reference into the cell, it ends in this
        // statement, and `Fill` is `!Sync`, so no other thread is here at the same time.
        let mut buf = unsafe { &mut *self.buf.get() }.take().expect("a buffer is taken once");
        let len = buf.len() + received;
        // SAFETY: the buffer held its first bytes before. The `received` bytes behind them were
        // initialised, as `filled` demands, and `compact` moved them there.
        unsafe { buf.set_len(len) };
        (buf, received)
    }
}

impl<B: ?Sized> Fill<B> {
    /// The room behind the received bytes, where the next bytes go: its address and length.
    pub(crate) fn target(&self) -> (*mut u8, usize) {
        // SAFETY: `end` is at most `room_len`, which `filled` asserts.
        let next = unsafe { self.room.add(self.end.get()) };
        (next, self.room_len - self.end.get())
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.get()
    }

    /// To be called when an op that writes to the room starts, and when it has ended. Panics if two
    /// ops would overlap.
    pub(crate) fn set_in_flight(&self, in_flight: bool) {
        assert!(in_flight != self.in_flight.get(), "one op fills a buffer at a time");
        self.in_flight.set(in_flight);
    }

    /// Moves the received bytes to the start of the room. Panics while an op is in flight.
    pub(crate) fn compact(&self) {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is moved in");
        let received = self.end.get() - self.start.get();
        // SAFETY: `start` is at most `end`, which is at most `room_len`.
        let from = unsafe { self.room.add(self.start.get()) };
        // SAFETY: both ranges lie in the room, for `end` is at most `room_len`. No op writes to the
        // room, as asserted above.
        unsafe { std::ptr::copy(from, self.room, received) };
        self.start.set(0);
        self.end.set(received);
    }

    /// Adds the first `len` bytes of the target to the received bytes.
    ///
    /// # Safety
    /// The first `len` bytes at `target` are initialised.
    pub(crate) unsafe fn filled(&self, len: usize) {
        let end = self.end.get() + len;
        assert!(end <= self.room_len, "the kernel writes no more than it was given");
        self.end.set(end);
    }

    /// Copies as many of `bytes` as fit behind the received ones. Returns their number. Panics
    /// while an op is in flight.
    pub(crate) fn append(&self, bytes: &[u8]) -> usize {
        assert!(!self.in_flight.get(), "the kernel is done with a buffer that is written to");
        let (target, room) = self.target();
        let len = bytes.len().min(room);
        // SAFETY: `target` has room for `len` bytes. `bytes` does not overlap it: by the contract
        // of `IoBufMut` the buffer shares its memory with nothing else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, len) };
        // SAFETY: the copy above initialised them.
        unsafe { self.filled(len) };
        len
    }

    /// The bytes that were received and not taken.
    pub(crate) fn received(&self) -> &[u8] {
        let len = self.end.get() - self.start.get();
        // SAFETY: `start..end` lies in the room, and its bytes are initialised (`filled`). An op in
        // flight writes behind `end` only. `compact` and `take` would move the bytes, but `Fill` is
        // `!Sync`, and callers copy the slice before they call anything else.
        unsafe { std::slice::from_raw_parts(self.room.add(self.start.get()), len) }
    }

    /// Removes the first `len` received bytes: a call has taken them. Panics if there are fewer.
    pub(crate) fn consume(&self, len: usize) {
        assert!(len <= self.end.get() - self.start.get(), "only what was received can be taken");
        self.start.set(self.start.get() + len);
        if self.start.get() == self.end.get() && !self.in_flight.get() {
            self.start.set(0);
            self.end.set(0);
        }
    }
}

/// Copies as many of `bytes` as fit behind what `buf` holds. Returns their number.
pub(crate) fn append<B: IoBufMut>(buf: &mut B, bytes: &[u8]) -> usize {
    let (len, capacity) = (buf.len(), buf.capacity());
    assert!(len <= capacity, "a buffer holds at most its capacity");
    let added = bytes.len().min(capacity - len);
    // SAFETY: `ptr_mut` points to `capacity` bytes, and `len + added` is at most that. `bytes` does
    // not overlap them: by the contract of `IoBufMut` the buffer shares its memory with nothing else.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.ptr_mut().add(len), added) };
    // SAFETY: the copy above initialised the bytes behind the first `len`.
    unsafe { buf.set_len(len + added) };
    added
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
