//! The inbox: how other threads hand woken tasks to the home thread. A Treiber stack of borrowed
//! nodes, pushed by compare-and-swap, taken whole, turned round to the order of arrival.
//!
//! There is no pop of a single node, hence no ABA. It owns nothing and dereferences nothing: an
//! item is an address, its link is handed in next to it. What keeps an item alive meanwhile is
//! the affair of `waker.rs`, to be read next.
//!
//! It names `std::sync::atomic` once and nothing else of std, so that a test can include it with
//! `#[path]` and run it under loom: `#![no_std] extern crate loom as std;`.
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The part of an item that belongs to the inbox.
///
/// `queued` says who may use `next`: the thread that turned it from false to true, until its push;
/// then home, from the take until it releases. Everybody else leaves with the wake delivered by
/// that first thread.
pub(crate) struct Link<T> {
    next: AtomicPtr<T>,
    queued: AtomicBool,
}

pub(crate) struct Inbox<T> {
    /// Null when empty, `closed()` for ever once closed, else the newest item.
    head: AtomicPtr<T>,
}

/// No item is here: an item is larger than one byte.
fn closed<T>() -> *mut T {
    core::ptr::without_provenance_mut(usize::MAX)
}

impl<T> Link<T> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicPtr::new(core::ptr::null_mut()), queued: AtomicBool::new(false) }
    }

    /// Any thread: true means that the caller has to push. False means that a push is under way
    /// or done, and that home, when it releases, sees everything the caller did before: both are
    /// read-modify-writes of the same flag. (A load first, to spare the swap, would lose that.)
    pub(crate) fn claim(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Home: the wake is seen, the next one pushes again. To be called after `next` was read and
    /// before the task is polled. A swap and not a store, see `claim`.
    pub(crate) fn release(&self) {
        let claimed = self.queued.swap(false, Ordering::AcqRel);
        debug_assert!(claimed, "what is taken from the inbox was claimed");
    }

    /// Home: the item that arrived after this one, or null. Only between take and release.
    pub(crate) fn next(&self) -> *mut T {
        self.next.load(Ordering::Relaxed)
    }
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Any thread: adds an item whose link the caller has claimed. False when the inbox is closed:
    /// the item stays with the caller.
    ///
    /// SeqCst, as is the load in `is_empty`: a pusher stores here and then reads whether home is
    /// parked, home says that it parks and then reads here; one of the two sees the other, if the
    /// parked flag is written and read with SeqCst too, or swapped on both sides.
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

    /// Home: empty or closed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        head.is_null() || head == closed()
    }

    /// Home: takes all items and gives the oldest; `Link::next` leads to the others.
    #[inline]
    pub(crate) fn take<'a>(&self, link: impl Fn(*mut T) -> &'a Link<T>) -> *mut T
    where
        T: 'a,
    {
        if self.is_empty() {
            return core::ptr::null_mut(); // also when closed: a swap would open it again
        }
        oldest_first(self.head.swap(core::ptr::null_mut(), Ordering::Acquire), link)
    }

    /// Home: refuses pushes from now on, and gives what was left, as `take` does.
    pub(crate) fn close<'a>(&self, link: impl Fn(*mut T) -> &'a Link<T>) -> *mut T
    where
        T: 'a,
    {
        let head = self.head.swap(closed(), Ordering::AcqRel);
        if head == closed() { core::ptr::null_mut() } else { oldest_first(head, link) }
    }
}

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
