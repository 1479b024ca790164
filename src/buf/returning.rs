//! A chunk that is not lost with the buffer that it is sent as.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use super::{Chunk, IoBuf};

/// A chunk as a buffer to send. If the buffer is dropped before a byte of it was taken, the chunk
/// goes to the [`Return`]. So code that drops the future of a send can ask the `Return` afterwards: it has
/// the chunk, or the chunk is on its way out.
pub(crate) struct Returning {
    /// `None` only in the midst of its end.
    chunk: Option<Chunk>,
    /// A byte of it is on its way out.
    is_taken: Cell<bool>,
    back: Rc<Cell<Option<Chunk>>>,
}

/// Where the chunk of a [`Returning`] comes back to.
pub(crate) struct Return(Rc<Cell<Option<Chunk>>>);

impl Returning {
    pub(crate) fn new(chunk: Chunk) -> (Returning, Return) {
        let back = Rc::new(Cell::new(None));
        let is_taken = Cell::new(false);
        (Returning { chunk: Some(chunk), is_taken, back: back.clone() }, Return(back))
    }

    /// The queue of a stream says that a byte is on its way out.
    pub(super) fn note_taken(&self) {
        self.is_taken.set(true);
    }

    /// Gives the chunk, whatever has become of its bytes.
    pub(crate) fn into_chunk(mut self) -> Chunk {
        self.chunk.take().expect("it is there until the buffer ends")
    }
}

impl Return {
    /// The chunk, if its buffer was dropped.
    pub(crate) fn take(&self) -> Option<Chunk> {
        self.0.take()
    }
}

// SAFETY: pointer and length are those of the chunk, which keeps the contract and is there until the
// drop.
unsafe impl IoBuf for Returning {
    fn ptr(&self) -> *const u8 {
        self.chunk.as_ref().map_or(std::ptr::dangling(), IoBuf::ptr)
    }

    fn len(&self) -> usize {
        self.chunk.as_ref().map_or(0, IoBuf::len)
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if !self.is_taken.get() {
            self.back.set(self.chunk.take());
        }
    }
}
