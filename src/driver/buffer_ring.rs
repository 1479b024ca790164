//! Provided buffers: the memory that receives write to, lent to users as [`Chunk`]s.
//!
//! With the ring, the kernel picks a free buffer when data arrives. With epoll, the engine picks
//! one before it calls recv(2); it takes the buffer that came back last, because that one is likely
//! to be in the cache. All streams of a runtime share one pool, so an idle connection holds no
//! buffer.
//!
//! A chunk gives its buffer back when it is dropped. Each chunk keeps the pool alive, so this is
//! safe after the end of the runtime too. Which receive uses a pooled buffer is not decided here.
//! Read next: `stream/receive.rs`.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::datagram_buffers::{DatagramBuffers, Lender};
use crate::sys::Mapping;

/// The buffers of one runtime, and which of them are free.
pub(crate) struct BufferPool {
    picker: Picker,
    memory: Mapping,
    buffer_len: usize,
    /// A power of two.
    count: u16,
    /// How many chunks share each buffer; zero: it is free.
    shares: Box<[Cell<u32>]>,
    /// How many buffers are free.
    free: Cell<usize>,
    /// What a pool of datagrams knows beyond this.
    datagrams: Option<Box<DatagramBuffers>>,
}

/// Who picks from the free buffers.
enum Picker {
    /// The kernel picks. `ring` has the entries, page aligned; the tail is in the reserved field of
    /// the first.
    Kernel { ring: Mapping, tail: Cell<u16> },
    /// The epoll engine.
    Engine { free: RefCell<Vec<u16>> },
}

impl Picker {
    /// A zeroed ring with room for `count` entries. None is filled yet.
    fn kernel(count: u16) -> io::Result<Picker> {
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Picker::Kernel { ring, tail: Cell::new(0) })
    }
}

impl BufferPool {
    /// Maps `count` buffers of `buffer_len` bytes for the kernel to pick from, not yet registered.
    pub(super) fn for_kernel(buffer_len: usize, count: u16) -> io::Result<Rc<BufferPool>> {
        BufferPool::new(buffer_len, count, Picker::kernel(count)?)
    }

    /// Maps `count` buffers of `buffer_len` bytes for [`pick`](Self::pick).
    pub(super) fn for_engine(buffer_len: usize, count: u16) -> io::Result<Rc<BufferPool>> {
        BufferPool::new(buffer_len, count, Picker::Engine { free: RefCell::default() })
    }

    /// Maps `count` buffers of `buffer_len` bytes for datagrams, which [`lend_for`](Self::lend_for)
    /// lends; for the kernel to pick from, or for [`pick`](Self::pick).
    pub(super) fn for_datagrams(
        buffer_len: usize,
        count: u16,
        by_kernel: bool,
    ) -> io::Result<Rc<BufferPool>> {
        let pool = match by_kernel {
            true => BufferPool::for_kernel(buffer_len, count)?,
            false => BufferPool::for_engine(buffer_len, count)?,
        };
        let mut pool = Rc::into_inner(pool).expect("it was just made");
        pool.memory = pool.memory.without_huge_pages();
        pool.datagrams = Some(Box::new(DatagramBuffers::new(count)));
        Ok(Rc::new(pool))
    }

    /// Maps the buffers and makes all of them free. Panics unless `count` is a power of two and
    /// `buffer_len` is above zero.
    fn new(buffer_len: usize, count: u16, picker: Picker) -> io::Result<Rc<BufferPool>> {
        assert!(count.is_power_of_two() && buffer_len > 0, "checked by the builder");
        let pool = BufferPool {
            picker,
            memory: Mapping::new(usize::from(count) * buffer_len)?,
            buffer_len,
            count,
            shares: (0..count).map(|_| Cell::new(0)).collect(),
            free: Cell::new(0),
            datagrams: None,
        };
        (0..count).rev().for_each(|bid| pool.recycle(bid));
        Ok(Rc::new(pool))
    }

    /// The address of the ring that tells the kernel which buffers are free. Panics for a pool from
    /// which the engine picks.
    pub(super) fn ring_addr(&self) -> u64 {
        match &self.picker {
            Picker::Kernel { ring, .. } => ring.start() as u64,
            Picker::Engine { .. } => unreachable!("only a pool of the kernel's is registered"),
        }
    }

    /// The number and the address of the buffer that the engine fills next. It stays free until
    /// [`pick`](Self::pick). `None`: all are lent out, or the kernel picks.
    pub(crate) fn first_free(&self) -> Option<(u16, *mut u8)> {
        let Picker::Engine { free } = &self.picker else { return None };
        let bid = *free.borrow().last()?;
        Some((bid, self.buffer(bid)))
    }

    /// Takes the first free buffer, whose number is `bid`, off the free list: bytes were received
    /// into it. Whoever gets the answer must [`lend`](Self::lend) it. Does nothing if the kernel
    /// picks.
    pub(crate) fn pick(&self, bid: u16) {
        if let Picker::Engine { free } = &self.picker {
            let picked = free.borrow_mut().pop();
            debug_assert_eq!(picked, Some(bid), "the first free one is picked");
        }
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// How many buffers are lent out.
    pub(crate) fn lent(&self) -> usize {
        usize::from(self.count) - self.free.get()
    }

    /// Whether a buffer of the pool is not lent out, so that a receive can use it.
    pub(crate) fn has_free(&self) -> bool {
        self.free.get() > 0
    }

    /// The size of each buffer in bytes.
    pub(crate) fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// The address of a buffer. Panics if there is no buffer `bid`.
    fn buffer(&self, bid: u16) -> *mut u8 {
        assert!(bid < self.count, "the kernel picks from the buffers it was given");
        // SAFETY: `bid < count` was just checked, and the mapping is `count * buffer_len` bytes
        // long.
        unsafe { self.memory.start().add(usize::from(bid) * self.buffer_len) }
    }

    /// Makes the picked buffer `bid`, which holds `len` received bytes, a chunk. If less than a
    /// quarter of the buffers is free then, the bytes are copied to the heap and the buffer is free
    /// again at once. So chunks that are kept for long pin at most three quarters of the pool.
    /// Panics if the buffer is lent already, or is shorter than `len`.
    #[inline]
    pub(crate) fn lend(self: &Rc<Self>, bid: u16, len: usize) -> Chunk {
        assert!(len <= self.buffer_len, "the kernel writes no more than a buffer holds");
        let shares = &self.shares[usize::from(bid)];
        assert_eq!(shares.get(), 0, "the kernel fills free buffers only");
        shares.set(1);
        self.free.set(self.free.get() - 1);
        let len = u32::try_from(len).expect("a receive is shorter than 2 GiB");
        match self.free.get() * 4 < usize::from(self.count) {
            true => Chunk::from(self.part(bid, len).to_vec()),
            false => self.part(bid, len),
        }
    }

    /// As [`lend`](Self::lend), of a pool of datagrams, to a socket that may hold a quarter of the
    /// buffers at most: what comes beyond that is copied to the heap.
    #[inline]
    pub(crate) fn lend_for(self: &Rc<Self>, lender: &Lender, bid: u16, len: usize) -> Chunk {
        let datagrams = self.datagrams.as_ref().expect("a pool of datagrams");
        datagrams.filled(bid, len);
        let chunk = self.lend(bid, len);
        self.offer_held_back(datagrams);
        if !chunk.is_pooled() || datagrams.note_lent(bid, lender) {
            return chunk;
        }
        Chunk::from(chunk.to_vec())
    }

    /// A chunk over the first `len` bytes of a buffer. The caller has counted it in `shares`.
    #[inline]
    fn part(self: &Rc<Self>, bid: u16, len: u32) -> Chunk {
        Chunk { storage: Storage::Pooled { pool: self.clone(), bid: bid.into() }, start: 0, len }
    }

    /// The kernel has found no buffer, of a pool of datagrams.
    #[cold]
    pub(crate) fn found_empty(&self) {
        let datagrams = self.datagrams.as_ref().expect("a pool of datagrams");
        datagrams.offer_more();
        self.offer_held_back(datagrams);
    }

    /// Gives the kernel what it needs of the buffers that were held back.
    #[inline]
    fn offer_held_back(&self, datagrams: &DatagramBuffers) {
        let Picker::Kernel { ring, tail } = &self.picker else { return };
        while let Some(bid) = datagrams.next_to_offer(self.free.get()) {
            self.tell_kernel(ring, tail, bid);
        }
    }

    /// Makes a buffer free, so that it can be picked. No chunk may share it any longer.
    #[inline]
    fn recycle(&self, bid: u16) {
        self.free.set(self.free.get() + 1);
        let datagrams = self.datagrams.as_ref();
        if let Some(datagrams) = datagrams {
            datagrams.recycled(bid, &self.memory, self.buffer_len);
        }
        match &self.picker {
            Picker::Kernel { ring, tail } => {
                if !datagrams.is_some_and(|datagrams| datagrams.hold_back(bid, self.free.get())) {
                    self.tell_kernel(ring, tail, bid);
                }
            }
            Picker::Engine { free } => free.borrow_mut().push(bid),
        }
    }

    /// Writes a free buffer into the entry of the ring that `next` counts to, moves `next` on, and
    /// shows the new tail to the kernel.
    #[inline]
    fn tell_kernel(&self, ring: &Mapping, next: &Cell<u16>, bid: u16) {
        let tail = next.get();
        let entries = ring.start().cast::<BufRingEntry>();
        // SAFETY: the index is below `count`, the number of entries in the mapping. The kernel
        // reads an entry only after the tail has passed it, and no other reference into the ring
        // exists.
        let entry = unsafe { &mut *entries.add(usize::from(tail & (self.count - 1))) };
        entry.set_addr(self.buffer(bid) as u64);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(bid);
        let tail = tail.wrapping_add(1);
        next.set(tail);
        // SAFETY: the first entry is in the mapping, which was zeroed. Its reserved field holds the
        // tail and is aligned for u16, and the `set_*` calls above do not write to it.
        let shared = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        shared.store(tail, Ordering::Release);
    }
}

/// Bytes that were received, lent from the runtime's pool or held on the heap.
///
/// It reads and writes as a slice. You can keep it as long as you like, across tasks of its thread
/// and past the end of the runtime; its drop gives the buffer back. A chunk is a buffer to send
/// ([`IoBuf`](crate::buf::IoBuf)), so an echo copies nothing. To keep bytes for long, or to send
/// them to another thread, copy them into a `Vec`: `Vec::from(chunk)` copies pooled bytes and moves
/// heap memory.
///
/// # Examples
/// ```
/// use tamam::buf::Chunk;
///
/// let mut chunk = Chunk::from(b"GET /index".to_vec());
/// let path = chunk.split_off(4);
/// chunk.make_ascii_lowercase();
/// assert_eq!((&chunk[..], &path[..]), (&b"get "[..], &b"/index"[..]));
/// assert_eq!(Vec::from(path), b"/index");
/// ```
pub struct Chunk {
    storage: Storage,
    start: u32,
    len: u32,
}

/// What a chunk on the heap costs besides its bytes: the shared box, the vector, and the headers of
/// the two blocks. It is counted, so that a peer that sends single bytes stays within its credit.
const HEAP_COST: usize = 128;

/// Where the bytes of a chunk are. All parts of a split chunk share that memory.
enum Storage {
    /// The number has 32 bits, because halves of words are slow to move.
    Pooled {
        pool: Rc<BufferPool>,
        bid: u32,
    },
    Heap(Rc<UnsafeCell<Vec<u8>>>),
}

impl Chunk {
    /// Splits in two at `at`: keeps the bytes before, returns those from there on. Both share the
    /// buffer, which goes back when the last of them is dropped.
    ///
    /// # Panics
    /// If `at` is greater than the length.
    /// # Examples
    /// ```
    /// use tamam::buf::Chunk;
    ///
    /// let mut head = Chunk::from(b"name: value".to_vec());
    /// let colon = head.iter().position(|byte| *byte == b':').expect("a colon");
    /// let value = head.split_off(colon + 2);
    /// assert_eq!((&head[..], &value[..]), (&b"name: "[..], &b"value"[..]));
    /// ```
    #[must_use = "the bytes from there on are in the returned chunk"]
    pub fn split_off(&mut self, at: usize) -> Chunk {
        assert!(at <= self.len as usize, "split at {at} of a chunk of {} bytes", self.len);
        let storage = match &self.storage {
            Storage::Pooled { pool, bid } => {
                let shares = &pool.shares[*bid as usize];
                shares.set(shares.get().checked_add(1).expect("fewer than 2^32 parts of a buffer"));
                Storage::Pooled { pool: pool.clone(), bid: *bid }
            }
            Storage::Heap(memory) => Storage::Heap(memory.clone()),
        };
        let at = at as u32;
        let tail = Chunk { storage, start: self.start + at, len: self.len - at };
        self.len = at;
        tail
    }

    /// Splits in two at `at`: returns the bytes before, keeps those from there on.
    ///
    /// # Panics
    /// If `at` is greater than the length.
    /// # Examples
    /// Lines, one after the other, without a copy:
    /// ```
    /// use tamam::buf::Chunk;
    ///
    /// let mut rest = Chunk::from(b"one\ntwo\n".to_vec());
    /// let mut lines = Vec::new();
    /// while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
    ///     lines.push(rest.split_to(end + 1));
    /// }
    /// assert_eq!((&lines[0][..], &lines[1][..]), (&b"one\n"[..], &b"two\n"[..]));
    /// assert!(rest.is_empty());
    /// ```
    #[must_use = "the bytes before are in the returned chunk"]
    pub fn split_to(&mut self, at: usize) -> Chunk {
        let tail = self.split_off(at);
        std::mem::replace(self, tail)
    }

    /// Keeps the first `len` bytes; no effect if there are no more.
    ///
    /// # Examples
    /// An answer without the end of the line:
    /// ```
    /// let mut chunk = tamam::buf::Chunk::from(b"QUIT\r\n".to_vec());
    /// chunk.truncate(chunk.trim_ascii_end().len());
    /// assert_eq!(&chunk[..], b"QUIT");
    /// ```
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Drops the first `len` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn advance(&mut self, len: usize) {
        assert!(len <= self.len as usize, "{len} bytes of a chunk of {}", self.len);
        self.start += len as u32;
        self.len -= len as u32;
    }

    /// Whether the bytes are lent from the pool, rather than on the heap.
    ///
    /// # Examples
    /// ```
    /// use tamam::buf::Chunk;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("hello").await?;
    /// let chunk = server.recv().await?.expect("a message");
    /// assert!(chunk.is_pooled());
    /// assert!(!Chunk::from(chunk.to_vec()).is_pooled());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_pooled(&self) -> bool {
        matches!(self.storage, Storage::Pooled { .. })
    }

    /// How many bytes of memory the chunk pins: the whole buffer if it is pooled, else its own
    /// bytes and [`HEAP_COST`].
    pub(crate) fn footprint(&self) -> usize {
        match &self.storage {
            Storage::Pooled { pool, .. } => pool.buffer_len,
            Storage::Heap(_) => self.len as usize + HEAP_COST,
        }
    }

    /// The address of the chunk's first byte.
    fn first(&self) -> *mut u8 {
        let memory = match &self.storage {
            Storage::Pooled { pool, bid } => pool.buffer(*bid as u16),
            // SAFETY: the reference to the Vec ends with this statement, and the Vec is not resized
            // while chunks share it.
            Storage::Heap(memory) => unsafe { (*memory.get()).as_mut_ptr() },
        };
        // SAFETY: `start + len` is within the memory: `lend` and `from` see to that, and a split
        // only divides it.
        unsafe { memory.add(self.start as usize) }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel or the Vec has initialised these bytes. Only this chunk refers to
        // them: parts of one buffer do not overlap, and the kernel writes to free buffers only.
        unsafe { std::slice::from_raw_parts(self.first(), self.len as usize) }
    }
}

impl DerefMut for Chunk {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`. `&mut self` makes this the only reference to the bytes.
        unsafe { std::slice::from_raw_parts_mut(self.first(), self.len as usize) }
    }
}

impl Drop for Storage {
    #[inline]
    fn drop(&mut self) {
        if let Storage::Pooled { pool, bid } = self {
            let shares = &pool.shares[*bid as usize];
            shares.set(shares.get() - 1);
            if shares.get() == 0 {
                pool.recycle(*bid as u16);
            }
        }
    }
}

impl PartialEq<[u8]> for Chunk {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Chunk {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other
    }
}

impl AsMut<[u8]> for Chunk {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).field("pooled", &self.is_pooled()).finish()
    }
}

impl From<Vec<u8>> for Chunk {
    /// A chunk over heap memory.
    ///
    /// # Panics
    /// If the vector is 4 GiB or longer.
    fn from(memory: Vec<u8>) -> Chunk {
        let len = u32::try_from(memory.len()).expect("a chunk is shorter than 4 GiB");
        Chunk { storage: Storage::Heap(Rc::new(UnsafeCell::new(memory))), start: 0, len }
    }
}

impl From<Chunk> for Vec<u8> {
    /// Moves heap memory that no other part shares; copies everything else.
    fn from(mut chunk: Chunk) -> Vec<u8> {
        let (start, len) = (chunk.start, chunk.len as usize);
        if let (Storage::Heap(memory), 0) = (&mut chunk.storage, start) {
            if let Some(memory) = Rc::get_mut(memory) {
                let mut memory = std::mem::take(memory.get_mut());
                memory.truncate(len);
                return memory;
            }
        }
        chunk.to_vec()
    }
}

#[cfg(feature = "bytes")]
impl From<Chunk> for bytes::Bytes {
    /// As `Vec::from`: moves heap memory, copies pooled bytes, since `Bytes` may go to other
    /// threads and live for ever.
    fn from(chunk: Chunk) -> bytes::Bytes {
        bytes::Bytes::from(Vec::from(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u16) -> Rc<BufferPool> {
        BufferPool::for_kernel(64, count).expect("a little memory")
    }

    fn told(pool: &BufferPool) -> u16 {
        match &pool.picker {
            Picker::Kernel { tail, .. } => tail.get(),
            Picker::Engine { .. } => unreachable!("made for the kernel"),
        }
    }

    #[test]
    fn the_engine_picks_the_buffer_that_came_back_last() {
        let pool = BufferPool::for_engine(64, 4).expect("a little memory");
        let take = || {
            let (bid, _) = pool.first_free().expect("one is free");
            pool.pick(bid);
            (bid, pool.lend(bid, 1))
        };
        let ((first, a), (second, b)) = (take(), take());
        assert_ne!(first, second);
        drop(a);
        let (again, a) = take();
        assert_eq!(again, first);
        drop((a, b));
        let (last, chunk) = take();
        assert_eq!((last, pool.lent()), (second, 1));
        drop(chunk);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn a_buffer_goes_back_once_when_its_last_part_is_dropped() {
        let pool = pool(8);
        let mut chunk = pool.lend(3, 10);
        chunk.copy_from_slice(b"0123456789");
        let mut parts = vec![];
        for _ in 0..9 {
            parts.push(chunk.split_to(1));
        }
        parts.push(chunk);
        assert_eq!(parts.iter().map(|part| part[0]).collect::<Vec<_>>(), b"0123456789");
        for order in [7, 3, 5, 0, 4, 2, 0, 1, 1] {
            drop(parts.remove(order));
            assert_eq!(pool.lent(), 1);
        }
        parts.clear();
        assert_eq!((pool.lent(), told(&pool)), (0, 9));
    }

    #[test]
    fn below_a_quarter_free_bytes_are_copied_out() {
        let pool = pool(4);
        let kept: Vec<Chunk> = (0..4).map(|bid| pool.lend(bid, 1)).collect();
        let pooled: Vec<bool> = kept.iter().map(Chunk::is_pooled).collect();
        assert_eq!((pooled, pool.lent()), (vec![true, true, true, false], 3));
    }

    #[test]
    fn a_pool_of_one_copies_everything() {
        let pool = pool(1);
        assert!(!pool.lend(0, 5).is_pooled());
        assert!(pool.has_free());
    }

    #[test]
    fn heap_memory_moves_into_a_vec_unless_it_is_shared() {
        let memory = b"abcdef".to_vec();
        let at = memory.as_ptr();
        let mut chunk = Chunk::from(memory);
        chunk.truncate(5);
        let tail = chunk.split_off(3);
        assert_eq!(Vec::from(tail), b"de");
        let vec = Vec::from(chunk);
        assert_eq!((&vec[..], vec.as_ptr()), (&b"abc"[..], at));
    }
}
