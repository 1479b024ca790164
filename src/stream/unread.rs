//! The unread bytes of a stream, and how the stream ends.
//!
//! Bytes are kept in order of arrival, each piece in the memory that it came in. A `read` that has
//! got only a part of what it wants leaves that part here, in the caller's buffer and in its place
//! in line. So a dropped or forgotten future takes no byte with it, and another call may take the
//! part first (SEMANTICS RX7).
//!
//! Connections, layers over them and streams in memory all use [`Unread`]. There is no I/O here.
//! Read next: `receive.rs`.

use std::any::Any;
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::buf::{Chunk, Fill};
use crate::deferred::Deferred;
use crate::driver::error;
use crate::queue::Fifo;

/// How many bytes of a caller's buffer become one chunk.
const PIECE_LEN: usize = 64 * 1024;

/// A piece of unread bytes.
pub(crate) enum Segment {
    Chunk(Chunk),
    /// Bytes in the buffer of a `read`. Its future may be gone.
    Filled(Rc<Fill<dyn Any>>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Chunk(chunk) => chunk,
            Segment::Filled(fill) => fill.received(),
        }
    }

    /// How many bytes of our memory it pins. A caller's buffer costs us nothing.
    fn footprint(&self) -> usize {
        match self {
            Segment::Chunk(chunk) => chunk.footprint(),
            Segment::Filled(_) => 0,
        }
    }

    /// How many bytes it has in memory of ours.
    fn held(&self) -> usize {
        match self {
            Segment::Chunk(chunk) => chunk.len(),
            Segment::Filled(_) => 0,
        }
    }

    /// Whether these are the bytes in `fill`.
    fn is_in(&self, fill: &Fill<dyn Any>) -> bool {
        matches!(self, Segment::Filled(other) if std::ptr::addr_eq(Rc::as_ptr(other), fill))
    }

    /// A caller's buffer is dropped when no borrow is held. A chunk's memory is our own and is
    /// dropped now.
    fn discard(self, deferred: &mut Deferred) {
        if let Segment::Filled(fill) = self {
            deferred.discard(fill);
        }
    }
}

/// Why a stream has failed. It is final: every later call gives the same error.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Errno(Errno),
    /// Of a layer, such as TLS.
    Layer(Rc<dyn LayerFailure>),
}

impl Failure {
    pub(crate) fn to_io(&self) -> io::Error {
        match self {
            Failure::Errno(errno) => errno.to_io(),
            Failure::Layer(failure) => failure.to_io(),
        }
    }
}

/// Why a layer has failed.
pub(crate) trait LayerFailure: fmt::Debug {
    fn to_io(&self) -> io::Error;
}

/// The errno of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// Whether it is shown to one call only, and does not end the stream (SEMANTICS G4).
    pub(crate) fn is_shown_once(self) -> bool {
        self.0 == libc::ENOMEM
    }

    fn to_io(self) -> io::Error {
        error(self.0)
    }
}

/// How a stream ends, behind its last byte.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Eof,
    Failed(Failure),
}

/// What a layer takes from the stream below it.
pub(crate) enum Arrival {
    Bytes(Chunk),
    End(End),
    /// A failure that does not end the stream (SEMANTICS G4).
    ShownOnce(Errno),
}

/// The received bytes that no call has taken, and how the stream ends behind them.
#[derive(Default)]
pub(crate) struct Unread {
    segments: Fifo<Segment>,
    /// How many bytes of our memory the segments pin.
    pinned: usize,
    /// How many of the bytes are in memory of ours, and not in the buffer of a `read`.
    held: usize,
    end: Option<End>,
    /// The errno of a failure that is shown to one call, and does not end the stream (SEMANTICS
    /// G4).
    shown_once: Option<Errno>,
}

impl Unread {
    /// How many bytes there are. It stops counting at `enough`: a result of that or more is a lower
    /// bound.
    pub(crate) fn available(&self, enough: usize) -> usize {
        let mut len = 0;
        for segment in self.segments.iter() {
            len += segment.bytes().len();
            if len >= enough {
                break;
            }
        }
        len
    }

    /// Whether there are no bytes.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether a call that wants `min` bytes has an answer: `min` bytes, the end, or an error.
    #[inline]
    pub(crate) fn has_answer(&self, min: usize) -> bool {
        match min {
            1 => !self.segments.is_empty() || self.has_ending(),
            min => self.available(min) >= min || self.has_ending(),
        }
    }

    /// How many bytes of our memory are pinned.
    #[inline]
    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    /// How many bytes are in memory of ours. What a `read` has gathered does not count.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Counts a segment that comes in line.
    #[inline]
    fn count(&mut self, segment: &Segment) {
        self.pinned += segment.footprint();
        self.held += segment.held();
    }

    /// The first piece, where it is; `None` if there are no bytes.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.segments.front().map(Segment::bytes)
    }

    /// The pieces in line, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(Segment::bytes)
    }

    // ---- arrivals ---------------------------------------------------------------------------

    /// Puts bytes that have arrived behind those in line. `segment` must not be empty: a call would
    /// take it for an arrival.
    #[inline]
    pub(crate) fn push(&mut self, segment: Segment) {
        self.count(&segment);
        self.segments.push(segment);
    }

    /// Bytes have arrived in the buffer of a `read`: puts the buffer in line. If it is in line
    /// already, its bytes are the last there and have just become more, so only this reference is
    /// dropped.
    pub(crate) fn push_filled(&mut self, fill: Rc<Fill<dyn Any>>, deferred: &mut Deferred) {
        let is_in_line = self.segments.iter().any(|segment| segment.is_in(&fill));
        match is_in_line {
            true => deferred.discard(fill), // its bytes are the last in line
            false => self.push(Segment::Filled(fill)),
        }
    }

    /// Makes what `fill` holds the first bytes in line. It must hold some, and must not be in line.
    pub(crate) fn push_first(&mut self, fill: Rc<Fill<dyn Any>>) {
        self.segments.push_front(Segment::Filled(fill));
    }

    /// Makes a chunk the first bytes in line: a caller gives them back. An empty one is dropped.
    pub(crate) fn put_first(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            let segment = Segment::Chunk(chunk);
            self.count(&segment);
            self.segments.push_front(segment);
        }
    }

    /// Sets how the stream ends, behind the bytes that are here. The first ending stays.
    pub(crate) fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The next call that finds no bytes gives this errno, once.
    pub(crate) fn show_once(&mut self, errno: Errno) {
        self.shown_once = Some(errno);
    }

    // ---- the end ----------------------------------------------------------------------------

    /// How the stream ends, as soon as that is known, also while bytes are unread; `None` before.
    /// An errno that is shown once is not among these.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether [`take_ending`](Self::take_ending) has something to tell.
    #[inline]
    pub(crate) fn has_ending(&self) -> bool {
        self.end.is_some() || self.shown_once.is_some()
    }

    /// What a call is told that finds no bytes: `Ok` at EOF, `Err` after a failure, `None` if more
    /// can come. An end stays; an errno that is shown once is gone after this.
    pub(crate) fn take_ending(&mut self) -> Option<io::Result<()>> {
        if let Some(errno) = self.shown_once.take() {
            return Some(Err(errno.to_io()));
        }
        self.end.as_ref().map(|end| match end {
            End::Eof => Ok(()),
            End::Failed(failure) => Err(failure.to_io()),
        })
    }

    /// An errno of recv(2). It ends the stream, unless it is shown once only.
    pub(super) fn fail(&mut self, errno: Errno) {
        match errno.is_shown_once() {
            true => self.show_once(errno),
            false => self.finish(End::Failed(Failure::Errno(errno))),
        }
    }

    // ---- taking -----------------------------------------------------------------------------

    /// Takes one piece, or tells how the stream ends, for a layer above; `None` if more can come.
    pub(crate) fn take_arrival(&mut self, deferred: &mut Deferred) -> Option<Arrival> {
        if let Some(chunk) = self.take_chunk(deferred) {
            return Some(Arrival::Bytes(chunk));
        }
        if let Some(errno) = self.shown_once.take() {
            return Some(Arrival::ShownOnce(errno));
        }
        self.end.clone().map(Arrival::End)
    }

    /// Takes the first segment out of the line.
    fn pop(&mut self) -> Option<Segment> {
        let segment = self.segments.pop()?;
        self.pinned -= segment.footprint();
        self.held -= segment.held();
        Some(segment)
    }

    /// Takes the first piece; `None` if there are no bytes. From a caller's buffer it is a copy, of
    /// at most 64 KiB.
    #[inline]
    pub(crate) fn take_chunk(&mut self, deferred: &mut Deferred) -> Option<Chunk> {
        match self.pop()? {
            Segment::Chunk(chunk) => Some(chunk),
            Segment::Filled(fill) => {
                let (piece, is_last) = piece_of(&fill);
                match is_last {
                    true => deferred.discard(fill),
                    false => self.push_first(fill),
                }
                Some(piece)
            }
        }
    }

    /// Drops the first `len` bytes in line; fewer if the first piece is shorter, none if nothing is
    /// in line.
    pub(crate) fn consume(&mut self, len: usize, deferred: &mut Deferred) {
        let Some(first) = self.segments.front_mut() else { return };
        let before = (first.footprint(), first.held());
        match first {
            Segment::Chunk(chunk) => chunk.advance(len.min(chunk.len())),
            Segment::Filled(fill) => fill.consume(len.min(fill.received().len())),
        }
        self.pinned -= before.0 - first.footprint();
        self.held -= before.1 - first.held();
        if first.bytes().is_empty() {
            if let Some(segment) = self.pop() {
                segment.discard(deferred);
            }
        }
    }

    /// Gives `take` the bytes piece by piece; `take` says how many of a piece it takes. It ends
    /// with the first piece that was not taken whole.
    pub(crate) fn consume_with(
        &mut self,
        deferred: &mut Deferred,
        mut take: impl FnMut(&[u8]) -> usize,
    ) {
        while let Some(bytes) = self.first() {
            let (len, all) = (take(bytes), bytes.len());
            self.consume(len, deferred);
            if len < all {
                return;
            }
        }
    }

    /// Drops all bytes. How the stream ends stays.
    pub(crate) fn clear(&mut self, deferred: &mut Deferred) {
        while let Some(segment) = self.pop() {
            segment.discard(deferred);
        }
    }

    /// Takes all bytes as a copy.
    pub(crate) fn take_all(&mut self, deferred: &mut Deferred) -> Vec<u8> {
        let mut all = Vec::new();
        self.consume_with(deferred, |bytes| {
            all.extend_from_slice(bytes);
            bytes.len()
        });
        all
    }

    /// Gives back what [`take_all`](Self::take_all) took. Nothing may have arrived in between.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_LEN) {
            self.push(Segment::Chunk(Chunk::from(piece.to_vec())));
        }
    }

    // ---- a `read` and its buffer ------------------------------------------------------------

    /// Copies the bytes in line out of `fill`, to their place in line, so that the caller can have
    /// the buffer. Nothing happens if `fill` is not in line.
    pub(crate) fn move_out_of(&mut self, fill: &Fill<dyn Any>, deferred: &mut Deferred) {
        let Some(mut at) = self.segments.iter().position(|segment| segment.is_in(fill)) else {
            return;
        };
        self.segments.remove(at).discard(deferred);
        let mut is_last = fill.received().is_empty();
        while !is_last {
            let piece;
            (piece, is_last) = piece_of(fill);
            let segment = Segment::Chunk(piece);
            self.count(&segment);
            self.segments.insert(at, segment);
            at += 1;
        }
    }

    /// Moves the first bytes in line into `fill`, as many as fit. If bytes of `fill` are first in
    /// line, they stay where they are. If they are further behind, they are copied out first.
    /// `fill` is out of line afterwards. No op may be writing to it, or this panics.
    pub(crate) fn gather(&mut self, fill: &Fill<dyn Any>, deferred: &mut Deferred) {
        match self.segments.front() {
            Some(first) if first.is_in(fill) => {
                if let Some(segment) = self.pop() {
                    segment.discard(deferred);
                }
            }
            _ => self.move_out_of(fill, deferred),
        }
        fill.compact(); // another call may have taken bytes from its start
        self.consume_with(deferred, |bytes| fill.append(bytes));
    }
}

/// Takes the next bytes out of a caller's buffer as a copy, at most 64 KiB, and says whether they
/// were the last.
fn piece_of(fill: &Fill<dyn Any>) -> (Chunk, bool) {
    let received = fill.received();
    let piece = received[..received.len().min(PIECE_LEN)].to_vec();
    let is_last = piece.len() == received.len();
    fill.consume(piece.len());
    (Chunk::from(piece), is_last)
}
