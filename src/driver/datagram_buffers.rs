//! What the pool of datagrams knows of its buffers, beyond those of streams: which socket each is
//! lent to, and how much of each was touched.
//!
//! A buffer has room for the largest datagram there is. Most datagrams touch one page of it. After
//! large ones the other pages are given back to the system, as soon as no large ones come any more.
//!
//! The kernel uses all buffers that it has in turn. While datagrams are large it has few, because so
//! many bytes fit into the cache; the other buffers are held back until it needs them.
//! Read next: `incoming.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::sys::{Mapping, page_len};

/// How many buffers the kernel has while datagrams are large, at first: 1 MiB.
const OFFERED_MIN: usize = 16;

/// What is known of each buffer of a pool of datagrams.
pub(super) struct DatagramBuffers {
    page_len: usize,
    buffers: Box<[DatagramBuffer]>,
    /// How many datagrams in a row were small.
    small_in_a_row: Cell<u32>,
    /// Large buffers that are free, and kept from the kernel.
    held_back: RefCell<Vec<u16>>,
    /// With fewer other free buffers than this the kernel gets one of those.
    offered_min: Cell<usize>,
}

#[derive(Default)]
struct DatagramBuffer {
    lender: Cell<Option<Lender>>,
    /// More than its first page was touched.
    is_large: Cell<bool>,
}

/// A socket, as far as the pool is concerned: how many of its buffers are lent for it.
#[derive(Clone, Default)]
pub(crate) struct Lender(Rc<Cell<u32>>);

impl DatagramBuffers {
    pub(super) fn new(count: u16) -> DatagramBuffers {
        DatagramBuffers {
            page_len: page_len(),
            buffers: (0..count).map(|_| DatagramBuffer::default()).collect(),
            small_in_a_row: Cell::new(0),
            held_back: RefCell::default(),
            offered_min: Cell::new(OFFERED_MIN),
        }
    }

    /// Whether a whole round of datagrams was small.
    #[inline]
    fn all_are_small(&self) -> bool {
        self.small_in_a_row.get() as usize > self.buffers.len()
    }

    /// A datagram was received into the first `len` bytes of a buffer.
    #[inline]
    pub(super) fn filled(&self, bid: u16, len: usize) {
        if len <= self.page_len {
            self.small_in_a_row.set(self.small_in_a_row.get().saturating_add(1));
        } else {
            self.buffers[usize::from(bid)].is_large.set(true);
            self.small_in_a_row.set(0);
        }
    }

    /// Counts a buffer that is lent for this socket. False: the socket has lent a quarter of all
    /// buffers already, and this one is not counted.
    #[inline]
    pub(super) fn note_lent(&self, bid: u16, lender: &Lender) -> bool {
        let may_lend = (lender.0.get() as usize) < self.buffers.len() / 4;
        if may_lend {
            lender.0.set(lender.0.get() + 1);
            self.buffers[usize::from(bid)].lender.set(Some(lender.clone()));
        }
        may_lend
    }

    /// A buffer is free again. Its pages go back to the system if it was large, and a whole round of
    /// datagrams was small. `memory` is that of the pool, whose buffers are `buffer_len` long.
    #[inline]
    pub(super) fn recycled(&self, bid: u16, memory: &Mapping, buffer_len: usize) {
        let buffer = &self.buffers[usize::from(bid)];
        if let Some(lender) = buffer.lender.take() {
            lender.0.set(lender.0.get() - 1);
        }
        if buffer.is_large.get() && self.all_are_small() {
            buffer.is_large.set(false);
            let start = usize::from(bid) * buffer_len + self.page_len;
            memory.discard(start, buffer_len - self.page_len);
        }
    }

    /// Holds a buffer back that is free again, if it is large and the kernel has enough. False: it
    /// does not. `free` buffers are free, with this one.
    #[inline]
    pub(super) fn hold_back(&self, bid: u16, free: usize) -> bool {
        if !self.buffers[usize::from(bid)].is_large.get() {
            return false;
        }
        let held_back = &mut *self.held_back.borrow_mut();
        let has_enough = free - held_back.len() > self.offered_min.get();
        if has_enough {
            held_back.push(bid);
        }
        has_enough
    }

    /// A buffer that was held back and is so no more, because the kernel has too few of the `free`
    /// ones, or no large datagrams come any more.
    #[inline]
    pub(super) fn next_to_offer(&self, free: usize) -> Option<u16> {
        let held_back = &mut *self.held_back.borrow_mut();
        let has_few = free - held_back.len() < self.offered_min.get();
        if has_few || self.all_are_small() { held_back.pop() } else { None }
    }

    /// The kernel had too few. If that is because others were held back, it gets twice as many from
    /// now on.
    pub(super) fn offer_more(&self) {
        if self.held_back.borrow().is_empty() {
            return;
        }
        self.offered_min.set((2 * self.offered_min.get()).min(self.buffers.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer_ring::{BufferPool, Chunk};
    use super::*;

    fn take(pool: &Rc<BufferPool>, lender: &Lender, len: usize) -> Chunk {
        let (bid, _) = pool.first_free().expect("one is free");
        pool.pick(bid);
        pool.lend_for(lender, bid, len)
    }

    #[test]
    fn a_socket_lends_a_quarter_of_the_buffers() {
        let pool = BufferPool::for_datagrams(8 * page_len(), 16, false).expect("memory");
        let (one, other) = (Lender::default(), Lender::default());
        let mut chunks: Vec<Chunk> = (0..6).map(|_| take(&pool, &one, 9)).collect();
        let pooled: Vec<bool> = chunks.iter().map(Chunk::is_pooled).collect();
        assert_eq!(pooled, [true, true, true, true, false, false]);
        assert!(take(&pool, &other, 9).is_pooled());
        assert_eq!(pool.lent(), 4);
        drop(chunks.remove(0));
        assert!(take(&pool, &one, 9).is_pooled(), "what came back can be lent again");
        drop(chunks);
        assert_eq!((pool.lent(), one.0.get(), other.0.get()), (0, 0, 0));
    }

    #[test]
    fn pages_of_large_datagrams_are_given_back_after_a_round_of_small_ones() {
        let len = 8 * page_len();
        let pool = BufferPool::for_datagrams(len, 4, false).expect("memory");
        let lender = Lender::default();
        let mut chunk = take(&pool, &lender, len);
        chunk.fill(7);
        drop(chunk);
        let mut last = Vec::new();
        for _ in 0..6 {
            drop(take(&pool, &lender, 1)); // the same buffer each time: the last that came back
            last.push(take(&pool, &lender, len - 1)[len - 2]);
        }
        assert_eq!(last, [7; 6], "large ones come in between");
        for _ in 0..6 {
            drop(take(&pool, &lender, 1));
        }
        let chunk = take(&pool, &lender, len);
        assert_eq!((chunk[0], chunk[page_len()], chunk[len - 1]), (7, 0, 0));
    }

    #[test]
    fn large_buffers_are_held_back_as_long_as_the_kernel_has_enough() {
        let count = 4 * OFFERED_MIN;
        let buffers = DatagramBuffers::new(count as u16);
        let held_back = |buffers: &DatagramBuffers| buffers.held_back.borrow().len();
        let take_all = |free: usize| std::iter::from_fn(|| buffers.next_to_offer(free)).count();
        assert!(!buffers.hold_back(0, count), "it is small");
        for bid in 0..count as u16 {
            buffers.filled(bid, page_len() + 1);
            buffers.hold_back(bid, count);
        }
        assert_eq!(held_back(&buffers), count - OFFERED_MIN);
        assert_eq!(buffers.next_to_offer(count), None);
        assert_eq!(take_all(count - 3), 3, "for three that are lent");
        buffers.offer_more();
        assert_eq!(take_all(count - 3), OFFERED_MIN, "it had too few");
        (0..=count).for_each(|_| buffers.filled(0, 1));
        assert_eq!(take_all(count), count - 2 * OFFERED_MIN - 3, "all datagrams are small");
        assert_eq!(held_back(&buffers), 0);
    }
}
