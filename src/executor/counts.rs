//! Who keeps a task's memory, and who frees it: three counts in the task's header.
//!
//! - `home_refs`, a plain integer, counts the references of the home thread: the run queue, the
//!   list of tasks, the handles, the poll in progress. While there is any, `refs` holds one
//!   [`HOME_UNIT`] for all of them together.
//! - Each waker holds one *unit*, and so does a task that is in the inbox. The home thread counts
//!   the units it takes and gives back in `home_wakers`, a plain integer. Every other thread counts
//!   them in `refs`, an atomic.
//!
//! A waker may be cloned at home and dropped on another thread. So neither `home_wakers` nor `refs`
//! is exact; their sum is. The thread that drops the last home reference adds `home_wakers` to
//! `refs` and gives back the home unit. From then on `refs` alone counts.
//!
//! The thread that brings that sum to 0 frees the memory. That may be any thread, so future and
//! output must be gone by then. They are: the list of tasks, or the owner of the main task, holds a
//! home reference until the task is done, when its future is dropped; the handle holds one until it
//! has taken or dropped the output. So the future and the output are dropped at home.
//!
//! Nothing here knows states or futures. Read next: `waker.rs`, for what other threads do.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use super::task::Header;

/// What `refs` holds for all home references together. It is so large that wakers which were cloned
/// at home and dropped elsewhere never bring `refs` down to 0.
pub(super) const HOME_UNIT: usize = 1 << (usize::BITS - 2);
/// `home_wakers` is added to `refs` when it is further from 0 than this. Most tasks have one or two
/// wakers.
const HOME_WAKERS_MAX: u8 = 100;

impl Header {
    /// Counts units that the home thread takes (`by` > 0) or gives back.
    #[inline]
    fn count_at_home(&self, by: i8) {
        let wakers = self.home_wakers.get() + by;
        self.home_wakers.set(wakers);
        if wakers.unsigned_abs() > HOME_WAKERS_MAX {
            self.add_home_wakers();
        }
    }

    /// Moves what `home_wakers` counts to `refs`.
    #[cold]
    fn add_home_wakers(&self) {
        let wakers = self.home_wakers.take();
        // Relaxed: this frees nothing, because the home references stay. The thread that drops the
        // last of them publishes what home did.
        let refs = self.refs.fetch_add(wakers as isize as usize, Ordering::Relaxed);
        if wakers > 0 && refs > isize::MAX as usize {
            std::process::abort(); // as `retain`
        }
    }
}

/// As [`retain`], on the home thread.
///
/// # Safety
/// - The caller has a reference of any kind to this task.
/// - This is the task's home thread.
#[inline]
pub(super) unsafe fn retain_at_home(header: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the task alive, and only the home thread, which this is,
    // uses the cells of the header.
    let task = unsafe { header.as_ref() };
    if task.home_refs.get() > 0 {
        task.count_at_home(1);
    } else {
        // SAFETY: the caller has a reference to this task.
        unsafe { retain(header) };
    }
}

/// As [`release`], on the home thread.
///
/// # Safety
/// - The caller owns the unit, and does not use the task afterwards.
/// - This is the task's home thread.
#[inline]
pub(super) unsafe fn release_at_home(header: NonNull<Header>) {
    // SAFETY: the caller's unit keeps the task alive, and only the home thread, which this is, uses
    // the cells of the header.
    let task = unsafe { header.as_ref() };
    if task.home_refs.get() > 0 {
        task.count_at_home(-1); // the home references keep the task alive
    } else {
        // SAFETY: the caller owns the unit and gives it up; `task` is not used again.
        unsafe { release(header) };
    }
}

/// Takes one unit.
///
/// # Safety
/// The caller has a reference of any kind to this task.
#[inline]
pub(super) unsafe fn retain(header: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the task alive.
    let refs = unsafe { &(*header.as_ptr()).refs };
    // Relaxed, as in `Arc::clone`: the new reference is made from one that exists. A program that
    // forgets clones could make the count wrap to 0, and the task would be freed while in use. So
    // this aborts long before, as `Arc` does.
    if refs.fetch_add(1, Ordering::Relaxed) > isize::MAX as usize {
        std::process::abort();
    }
}

/// Gives back one unit, and frees the task if it was the last.
///
/// # Safety
/// The caller owns the unit, and does not use the task afterwards.
#[inline]
pub(super) unsafe fn release(header: NonNull<Header>) {
    // A reference to this one field, not to the header: as soon as the count is down, another
    // thread may free the header's memory.
    // SAFETY: the caller's unit keeps the task alive until `fetch_sub`.
    let refs = unsafe { &(*header.as_ptr()).refs };
    if refs.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire); // all that other references did happens before the free
        // SAFETY: the count is 0, so there is no other reference, and none can be made.
        unsafe { free(header) };
    }
}

/// Gives back the unit that all home references held together, and adds up the counts.
///
/// # Safety
/// - The caller has just dropped the last home reference, and does not use the task afterwards.
/// - This is the task's home thread.
#[inline]
pub(super) unsafe fn release_home(header: NonNull<Header>) {
    // SAFETY: the home unit in `refs` keeps the task alive until it is given back below, and only
    // the home thread, which this is, uses `home_wakers`.
    let (refs, wakers) =
        unsafe { (&(*header.as_ptr()).refs, (*header.as_ptr()).home_wakers.take()) };
    // A task without wakers needs no read-modify-write: no other thread has a reference from which
    // it could take a unit. Acquire pairs with the Release of the wakers that were dropped.
    if wakers == 0 && refs.load(Ordering::Acquire) == HOME_UNIT {
        // SAFETY: the home unit is the only one left, and no home reference is left to use it.
        return unsafe { free(header) };
    }
    let change = (wakers as isize as usize).wrapping_sub(HOME_UNIT);
    if refs.fetch_add(change, Ordering::AcqRel).wrapping_add(change) == 0 {
        // SAFETY: the sum is 0, so there is no other reference, and none can be made.
        unsafe { free(header) };
    }
}

/// Frees the task's memory.
///
/// # Safety
/// The caller has the only pointer to the task, and does not use it afterwards.
unsafe fn free(header: NonNull<Header>) {
    // SAFETY: the task is alive until the next call.
    let vtable = unsafe { (*header.as_ptr()).vtable };
    // SAFETY: the vtable is the one of this cell's type, and the caller has the only pointer.
    unsafe { (vtable.free)(header) };
}
