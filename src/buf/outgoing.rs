//! Bytes to be sent: one buffer of a caller, or several, with their type erased, and the addresses
//! of their bytes.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use super::{Erased, Returning};

/// What one call to send has passed. It owns the memory that it points to.
pub(crate) struct Outgoing {
    parts: Parts,
    len: usize,
    /// Declared last, so that it is dropped after the pointers into it.
    owner: Erased,
}

enum Parts {
    One(*const u8),
    /// Boxed, so that the usual case, one buffer, is cheap to move.
    Many(Box<Pieces>),
    /// One buffer, and descriptors that go with its first byte. Boxed for the same reason.
    Described(Box<(*const u8, Vec<OwnedFd>)>),
}

struct Pieces {
    parts: Vec<(*const u8, usize)>,
    /// The part in which the last offset lay, and the number of bytes before it. Offsets usually
    /// grow, so the next search starts here.
    reached: Cell<(usize, usize)>,
}

impl Outgoing {
    #[inline]
    pub(crate) fn one<B: super::IoBuf>(buf: B) -> Outgoing {
        let owner = Erased::new(buf);
        // Asked where the buffer stays: the move of a Box ends the use of a pointer from before.
        let buf = owner.get::<B>();
        let (ptr, len) = (buf.ptr(), buf.len());
        Outgoing { parts: Parts::One(ptr), len, owner }
    }

    /// All bytes of these buffers, in order.
    pub(crate) fn many<B: super::IoBuf>(bufs: Vec<B>) -> Outgoing {
        let parts: Vec<_> = bufs.iter().map(|buf| (buf.ptr(), buf.len())).collect();
        let len = parts.iter().try_fold(0usize, |sum, (_, len)| sum.checked_add(*len));
        let len = len.expect("the buffers of one send are together shorter than the address space");
        let many = Pieces { parts, reached: Cell::new((0, 0)) };
        Outgoing { parts: Parts::Many(Box::new(many)), len, owner: Erased::new(bufs) }
    }

    /// One buffer, and descriptors that go with its first byte. They are closed when it is taken.
    pub(crate) fn described<B: super::IoBuf>(buf: B, descriptors: Vec<OwnedFd>) -> Outgoing {
        let Outgoing { parts, len, owner } = Outgoing::one(buf);
        let Parts::One(ptr) = parts else { unreachable!("it is one buffer") };
        Outgoing { parts: Parts::Described(Box::new((ptr, descriptors))), len, owner }
    }

    /// The descriptors that go with the first byte; empty without any.
    pub(crate) fn descriptors(&self) -> &[OwnedFd] {
        match &self.parts {
            Parts::Described(described) => &described.1,
            Parts::One(_) | Parts::Many(_) => &[],
        }
    }

    /// The first byte was taken: closes the descriptors that went with it, and tells a buffer that
    /// wants to know.
    #[inline]
    pub(crate) fn note_taken(&mut self) {
        if let Parts::Described(described) = &mut self.parts {
            described.1 = Vec::new();
        }
        if self.owner.is::<Returning>() {
            self.owner.get::<Returning>().note_taken();
        }
    }

    /// How many bytes there are in all.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns what was passed: the `B` of [`one`](Self::one), the `Vec<B>` of
    /// [`many`](Self::many). Panics if `T` is another type.
    #[inline]
    pub(crate) fn take<T: 'static>(self) -> T {
        self.owner.take()
    }

    /// The bytes from `offset` on, if one call without a message header can send them; `None` for those
    /// of [`many`](Self::many), and for a first byte with descriptors. Panics if `offset` is greater
    /// than the length.
    #[inline]
    pub(crate) fn as_one(&self, offset: usize) -> Option<&[u8]> {
        match &self.parts {
            Parts::One(ptr) => {
                // SAFETY: pointer and length are those of the `IoBuf` in `owner`. By its contract
                // the bytes stay readable and in place as long as it lives, and `self` owns it.
                let bytes = unsafe { std::slice::from_raw_parts(*ptr, self.len) };
                Some(&bytes[offset..])
            }
            Parts::Described(_) if offset == 0 => None,
            Parts::Described(described) => Some(&self.part(&(described.0, self.len))[offset..]),
            Parts::Many(_) => None,
        }
    }

    /// The bytes from `offset` on, piece by piece; empty pieces are left out.
    pub(crate) fn pieces(&self, offset: usize) -> impl Iterator<Item = &[u8]> {
        let one = match &self.parts {
            Parts::Described(described) => Some(&self.part(&(described.0, self.len))[offset..]),
            Parts::One(_) | Parts::Many(_) => self.as_one(offset),
        };
        let mut skip = offset;
        let many: &[(*const u8, usize)] = match &self.parts {
            Parts::One(_) | Parts::Described(_) => &[],
            Parts::Many(many) => {
                let Pieces { parts, reached } = &**many;
                let (mut index, mut before) = match reached.get() {
                    (_, before) if before > offset => (0, 0),
                    reached => reached,
                };
                while index < parts.len() && before + parts[index].1 <= offset {
                    before += parts[index].1;
                    index += 1;
                }
                reached.set((index, before));
                skip = offset - before;
                &parts[index..]
            }
        };
        let many = many.iter().map(move |part| {
            let start = skip.min(part.1);
            skip -= start;
            &self.part(part)[start..]
        });
        one.into_iter().chain(many).filter(|piece| !piece.is_empty())
    }

    /// A copy of the bytes from `offset` on, at most `max`.
    pub(crate) fn copy(&self, offset: usize, max: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(max.min(self.len - offset));
        for piece in self.pieces(offset) {
            let room = max - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if bytes.len() == max {
                break;
            }
        }
        bytes
    }

    fn part(&self, &(ptr, len): &(*const u8, usize)) -> &[u8] {
        // SAFETY: this is called only with the parts of this value. Each is pointer and length of
        // an `IoBuf` in `owner`; the rest is as in `as_one`.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }
}

/// What a caller has passed to one call, before it becomes an [`Outgoing`].
pub(crate) trait Handed {
    /// What the caller gets back.
    type Buf: 'static;

    /// How many bytes there are in all.
    fn len(&self) -> usize;

    /// Makes it ready to be queued: with the addresses of its bytes, and its type erased.
    fn into_outgoing(self) -> Outgoing;

    /// Gives back what the caller has passed, unsent.
    fn into_buf(self) -> Self::Buf;
}

/// One buffer. Its address and its length are foreign code: no borrow may be held where a method of
/// this is called.
pub(crate) struct One<B> {
    buf: B,
    len: usize,
}

impl<B: super::IoBuf> One<B> {
    #[inline]
    pub(crate) fn new(buf: B) -> One<B> {
        let len = buf.len();
        One { buf, len }
    }
}

impl<B: super::IoBuf> Handed for One<B> {
    type Buf = B;

    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn into_outgoing(self) -> Outgoing {
        Outgoing::one(self.buf)
    }

    #[inline]
    fn into_buf(self) -> B {
        self.buf
    }
}

/// One buffer with descriptors, as [`One`].
pub(crate) struct Described<B> {
    one: One<B>,
    descriptors: Vec<OwnedFd>,
}

impl<B: super::IoBuf> Described<B> {
    pub(crate) fn new(buf: B, descriptors: Vec<OwnedFd>) -> Described<B> {
        Described { one: One::new(buf), descriptors }
    }
}

impl<B: super::IoBuf> Handed for Described<B> {
    type Buf = B;

    fn len(&self) -> usize {
        self.one.len
    }

    fn into_outgoing(self) -> Outgoing {
        Outgoing::described(self.one.buf, self.descriptors)
    }

    fn into_buf(self) -> B {
        self.one.buf
    }
}

/// Several buffers.
pub(crate) struct Many<B> {
    outgoing: Outgoing,
    bufs: PhantomData<B>,
}

impl<B: super::IoBuf> Many<B> {
    pub(crate) fn new(bufs: Vec<B>) -> Many<B> {
        Many { outgoing: Outgoing::many(bufs), bufs: PhantomData }
    }
}

impl<B: super::IoBuf> Handed for Many<B> {
    type Buf = Vec<B>;

    fn len(&self) -> usize {
        self.outgoing.len()
    }

    fn into_outgoing(self) -> Outgoing {
        self.outgoing
    }

    fn into_buf(self) -> Vec<B> {
        self.outgoing.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under Miri this fails if an address was asked for before a Box has its place.
    #[test]
    fn a_buffer_may_move_with_what_holds_it() {
        let boxed = || Box::<[u8]>::from(&b"tamam"[..]);
        let one = One::new(boxed());
        assert_eq!(one.len(), 5);
        let moved = Box::new((one.into_outgoing(), Outgoing::many(vec![boxed(), boxed()])));
        assert_eq!(moved.0.as_one(1), Some(&b"amam"[..]));
        assert_eq!(moved.1.pieces(4).collect::<Vec<_>>(), [&b"m"[..], b"tamam"]);
        assert_eq!(moved.0.take::<Box<[u8]>>(), boxed());
    }

    #[test]
    fn pieces_start_at_the_offset_and_skip_what_is_empty() {
        let out = Outgoing::many(vec![b"ab".to_vec(), vec![], b"cde".to_vec()]);
        let from = |offset| out.pieces(offset).collect::<Vec<_>>().concat();
        assert_eq!(
            (out.len(), from(0), from(1), from(3)),
            (5, b"abcde".to_vec(), b"bcde".to_vec(), b"de".to_vec())
        );
        assert_eq!((from(5), out.pieces(2).count()), (vec![], 1));
        assert_eq!((out.copy(1, 3), out.copy(1, 9)), (b"bcd".to_vec(), b"bcde".to_vec()));
        assert_eq!(Outgoing::one("xyz").as_one(2), Some(&b"z"[..]));
        assert_eq!(out.take::<Vec<Vec<u8>>>().len(), 3);
    }
}
