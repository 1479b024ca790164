//! Bytes that a future has received and not given to its caller yet. They go back if it is dropped.

use std::io;
use std::mem;

use super::receive::Receive;
use crate::buf::Chunk;

/// Chunks of a source, in order. Dropped, they are the source's again, first in line.
pub(super) struct Held<'a, S: Receive + ?Sized> {
    source: &'a S,
    chunks: Vec<Chunk>,
    len: usize,
}

impl<'a, S: Receive + ?Sized> Held<'a, S> {
    pub(super) fn new(source: &'a S) -> Self {
        Held { source, chunks: Vec::new(), len: 0 }
    }

    /// How many bytes are held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Receives the next chunk and holds it. `None`: the peer has finished.
    pub(super) async fn more(&mut self) -> io::Result<Option<&Chunk>> {
        let Some(chunk) = self.source.recv().await? else { return Ok(None) };
        self.len += chunk.len();
        self.chunks.push(chunk);
        Ok(self.chunks.last())
    }

    /// Receives until at least `len` bytes are held. False: the peer has finished before.
    pub(super) async fn until(&mut self, len: usize) -> io::Result<bool> {
        while self.len < len {
            if self.more().await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives the first `len` bytes to the caller, and what is beyond them back to the source. Panics
    /// if fewer are held.
    pub(super) fn take(mut self, len: usize) -> Vec<Chunk> {
        let mut chunks = mem::take(&mut self.chunks);
        let (mut end, mut number) = (0, 0);
        while end < len {
            end += chunks[number].len();
            number += 1;
        }
        let mut beyond: Vec<Chunk> = chunks.drain(number..).collect();
        if let Some(last) = chunks.last_mut() {
            beyond.insert(0, last.split_off(last.len() - (end - len)));
        }
        self.chunks = beyond; // its drop gives them back
        chunks
    }
}

impl<S: Receive + ?Sized> Drop for Held<'_, S> {
    fn drop(&mut self) {
        while let Some(chunk) = self.chunks.pop() {
            self.source.unread(chunk);
        }
    }
}
