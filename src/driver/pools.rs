//! The pools of one runtime: the memory that receives write to.
//!
//! Streams have theirs from the start. That of datagrams is made with the first socket that needs
//! it. Read next: `buffer_ring.rs`.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

use super::buffer_ring::BufferPool;
use super::{Driver, forked};

pub(super) struct Pools {
    streams: Rc<BufferPool>,
    datagrams: OnceCell<Rc<BufferPool>>,
}

impl Pools {
    pub(super) fn new(streams: Rc<BufferPool>) -> Pools {
        Pools { streams, datagrams: OnceCell::new() }
    }

    /// Another reference to each pool.
    pub(super) fn all(&self) -> (Rc<BufferPool>, Option<Rc<BufferPool>>) {
        (self.streams.clone(), self.datagrams.get().cloned())
    }
}

impl Driver {
    /// The pool of streams.
    #[inline]
    pub(crate) fn pool(&self) -> &Rc<BufferPool> {
        &self.pools.streams
    }

    /// The pool of datagrams. The first call makes it: then there can be an error, of mmap(2) or of
    /// io_uring_register(2).
    pub(crate) fn datagram_pool(&self) -> io::Result<&Rc<BufferPool>> {
        if self.pools.datagrams.get().is_none() {
            self.check()?;
            if self.is_forked_copy() {
                return Err(forked());
            }
            let pool = self.submissions.with_engine(|engine| engine.datagram_pool(self.settings()));
            let is_first = self.pools.datagrams.set(pool?).is_ok();
            debug_assert!(is_first, "the engine calls nobody");
        }
        Ok(self.pools.datagrams.get().expect("it was just made"))
    }

    /// How many pooled buffers are lent out.
    pub(crate) fn buffers_lent(&self) -> usize {
        self.pool().lent() + self.pools.datagrams.get().map_or(0, |pool| pool.lent())
    }

    /// Whether the kernel may be asked to divide a message into datagrams.
    pub(crate) fn may_divide_datagrams(&self) -> bool {
        self.settings().may_divide_datagrams()
    }
}
