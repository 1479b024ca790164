//! The inbox: other threads hand woken tasks to the home thread through it.
//!
//! It is a Treiber stack: threads push nodes by compare-and-swap, home takes the whole stack and
//! reverses it to the order of arrival. No thread pops a single node, so there is no ABA problem.
//!
//! It owns no item and dereferences none: an item is an address, and the caller passes its link
//! along with it. `waker.rs`, to be read next, keeps the items alive.
//!
//! It uses nothing of std but `std::sync::atomic`, and names that once. So `tests/loom.rs` can
//! include this file with `#[path]` and run it under loom: `#![no_std] extern crate loom as std;`.
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The part of an item that belongs to the inbox.
///
/// `queued` decides who may use `next`: first the thread that turned `queued` from false to true,
/// until its push; then home, from `take` until `release`. A thread that finds `queued` true need
/// do nothing: the push of that first thread delivers its wake as well.
pub(crate) struct Link<T> {
    next: AtomicPtr<T>,
    queued: AtomicBool,
}

pub(crate) struct Inbox<T> {
    /// The newest item; null when empty; `closed()` from `close` on, for ever.
    head: AtomicPtr<T>,
}

/// The address that stands for "closed". No item can have it: an item is larger than one byte.
fn closed<T>() -> *mut T {
    core::ptr::without_provenance_mut(usize::MAX)
}

impl<T> Link<T> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicPtr::new(core::ptr::null_mut()), queued: AtomicBool::new(false) }
    }

    /// Any thread. True: the caller has to push. False: another thread pushes or has pushed, and
    /// home, when it releases the link, sees everything that the caller did before. This holds
    /// because both swap the same flag; a mere load before the swap, to save it, would break it.
    pub(crate) fn claim(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Home only. The next wake will push again. Call it after reading `next` and before polling
    /// the task. It is a swap, not a store: see `claim`.
    pub(crate) fn release(&self) {
        let claimed = self.queued.swap(false, Ordering::AcqRel);
        debug_assert!(claimed, "what is taken from the inbox was claimed");
    }

    /// Home only: the item that arrived after this one, or null. Valid between `take` and
    /// `release`.
    pub(crate) fn next(&self) -> *mut T {
        self.next.load(Ordering::Relaxed)
    }
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Any thread: adds an item whose link the caller has claimed. Returns false when the inbox is
    /// closed; the item then stays with the caller.
    ///
    /// The store is SeqCst, and so is the load in `is_empty`. A pushing thread stores here and then
    /// reads whether home is parked. Home writes that it parks and then loads here. If the parked
    /// flag is written and read with SeqCst too, or swapped by both, then one of them sees the
    /// other.
    #[must_use]
    pub(crate) fn push(&self, item: *mut T, link: &Link<T>) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                return false;
            }
            link.next.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, item, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Home only: whether it is empty or closed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        head.is_null() || head == closed()
    }

    /// Home only: takes all items. Returns the oldest, or null if it is empty or closed;
    /// `Link::next` leads to the others. `link` gives the link of an item.
    #[inline]
    pub(crate) fn take<'a>(&self, link: impl Fn(*mut T) -> &'a Link<T>) -> *mut T
    where
        T: 'a,
    {
        if self.is_empty() {
            return core::ptr::null_mut(); // also when closed, for the swap would open it again
        }
        oldest_first(self.head.swap(core::ptr::null_mut(), Ordering::Acquire), link)
    }

    /// Home only: refuses pushes from now on, and returns what was left, as `take` does. A second
    /// call returns null.
    pub(crate) fn close<'a>(&self, link: impl Fn(*mut T) -> &'a Link<T>) -> *mut T
    where
        T: 'a,
    {
        let head = self.head.swap(closed(), Ordering::AcqRel);
        if head == closed() { core::ptr::null_mut() } else { oldest_first(head, link) }
    }
}

/// Reverses a stack. Returns the oldest item, or null; `Link::next` of each then leads to the item
/// that arrived after it.
fn oldest_first<'a, T: 'a>(newest: *mut T, link: impl Fn(*mut T) -> &'a Link<T>) -> *mut T {
    let (mut rest, mut turned) = (newest, core::ptr::null_mut());
    while !rest.is_null() {
        let next = &link(rest).next;
        let older = next.load(Ordering::Relaxed);
        next.store(turned, Ordering::Relaxed);
        turned = rest;
        rest = older;
    }
    turned
}
