//! The task cell: header, then future, then output in the future's place, in one allocation; and
//! what can be done with it only by code that knows the type of the future.
//!
//! That code is reached through a [`TaskVtable`] in the header, so that queues and wakers handle
//! tasks of all types alike. It decides nothing: `task.rs` calls it as the state of the task
//! demands.
//!
//! The stage (future, output or nothing) is used by one party at a time, and the state says by
//! which:
//!
//! | state | who uses the stage |
//! |---|---|
//! | `Running`, `Woken` | the poll in progress |
//! | `Ending` | the caller that ends the task |
//! | `Done` | the `JoinHandle` |
//!
//! Read next: `counts.rs`, for when the memory is freed.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::future::Future;
use core::mem::{forget, needs_drop};
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::panics::{contain, drop_payload};

use super::join::{JoinError, Origin, TaskId};
use super::state::TaskState;
use super::task::Header;
use super::waker;

#[repr(C)] // the header comes first, so a pointer to the cell is also one to its header
struct TaskCell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

/// What the cell holds.
enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Empty,
}

/// The functions that depend on the type of the future. Each takes the header of a cell of that
/// type.
pub(super) struct TaskVtable {
    /// Polls the future. Ready: it was ready or has panicked, the stage has ended (the output is in
    /// place, if there is a handle), and the state is `Ending`: the caller finishes the task. Home,
    /// state `Running` or `Woken`.
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future and puts a `JoinError` (cancelled) in its place. Home, state `Ending`.
    pub(super) cancel: unsafe fn(NonNull<Header>),
    /// Moves the output to an `Option<Result<F::Output, JoinError>>`, which holds `None` before; it
    /// stays `None` if the output was taken earlier. Home, state `Done`.
    pub(super) take_output: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the output, and contains its panics. Home, state `Done`.
    pub(super) drop_output: unsafe fn(NonNull<Header>),
    /// Frees the memory. Any thread; the caller has the only pointer to the task.
    pub(super) free: unsafe fn(NonNull<Header>),
}

/// The vtable for a future of this type.
pub(super) const fn vtable<F: Future>() -> &'static TaskVtable {
    const {
        &TaskVtable {
            poll: poll::<F>,
            cancel: cancel::<F>,
            take_output: take_output::<F>,
            drop_output: drop_output::<F>,
            free: free::<F>,
        }
    }
}

/// A new cell on the heap, which `TaskVtable::free` frees. `header.vtable` has to be
/// `vtable::<F>()`.
#[inline]
pub(super) fn allocate<F: Future>(header: Header, future: F) -> NonNull<Header> {
    let cell = Box::new(TaskCell { header, stage: UnsafeCell::new(Stage::Future(future)) });
    NonNull::from(Box::leak(cell)).cast()
}

/// Drops a future while the panic of its poll unwinds, as std drops what a thread's closure owns: its
/// destructors see `thread::panicking()`. Who forgets this has a poll that did not panic; who does
/// not, must not touch the future again.
struct DropOnUnwind<'a, F>(&'a mut F);

impl<F> Drop for DropOnUnwind<'_, F> {
    #[cold]
    fn drop(&mut self) {
        // A second panic would abort the process.
        contain(|| {
            // SAFETY: only an unwinding poll comes here. It overwrites the stage without a drop.
            unsafe { core::ptr::drop_in_place(self.0) };
        });
    }
}

/// # Safety
/// As `TaskVtable::poll`.
unsafe fn poll<F: Future>(header: NonNull<Header>, cx: &mut Context<'_>) -> Poll<()> {
    let cell = header.cast::<TaskCell<F>>();
    // SAFETY: the cell is alive and of type F. This makes a raw pointer to the stage, no reference.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    let polled = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: in Running and Woken only the poll in progress uses the stage, and this is it.
        let stage = unsafe { &mut *stage };
        let Stage::Future(future) = stage else { unreachable!("a task that runs has a future") };
        let unwinding = DropOnUnwind(future);
        // SAFETY: the future never moves: it is on the heap, and is dropped in place.
        let polled = unsafe { Pin::new_unchecked(&mut *unwinding.0) }.poll(cx);
        forget(unwinding);
        polled
    }));
    // SAFETY: the cell is alive. The reference covers the header only, not the stage.
    let header = unsafe { &(*cell.as_ptr()).header };
    let result = match polled {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(output)) => Ok(output),
        Err(payload) => {
            // SAFETY: the state is still that of a poll, and `DropOnUnwind` has dropped the future.
            unsafe { stage.write(Stage::Empty) };
            Err(JoinError::panic(Origin::Task, header.id, payload))
        }
    };
    header.step(TaskState::end);
    // SAFETY: the cell is alive and of type F, this is its home thread, and the state is Ending.
    unsafe { end(cell, result) };
    Poll::Ready(())
}

/// # Safety
/// As `TaskVtable::cancel`.
unsafe fn cancel<F: Future>(header: NonNull<Header>) {
    // SAFETY: the cell is alive, and `id` never changes.
    let id = unsafe { (*header.as_ptr()).id };
    // SAFETY: the cell is alive and of type F, this is its home thread, and the state is Ending.
    unsafe { end(header.cast::<TaskCell<F>>(), Err(JoinError::cancelled(id))) };
}

/// Drops the future, and puts the result in its place if there is a handle to ask for it.
///
/// # Safety
/// The cell is alive, this is its home thread, the state is `Ending`.
#[inline]
unsafe fn end<F: Future>(cell: NonNull<TaskCell<F>>, result: Result<F::Output, JoinError>) {
    // SAFETY: the cell is alive. This makes a raw pointer to the stage, no reference.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    let drop_future = || {
        // SAFETY: in Ending only this function uses the stage. It overwrites the stage next, so
        // nothing is dropped twice. The future is dropped in place, as Pin demands.
        unsafe { stage.drop_in_place() };
    };
    // `catch_unwind` costs a call, which a future without a destructor need not pay.
    let dropped = match needs_drop::<F>() {
        true => catch_unwind(AssertUnwindSafe(drop_future)),
        false => Ok(()),
    };
    // SAFETY: in Ending only this function uses the stage, whose content was dropped above.
    unsafe { stage.write(Stage::Empty) };
    // SAFETY: the cell is alive. The reference covers the header only, not the stage.
    let header = unsafe { &(*cell.as_ptr()).header };
    let result = match dropped {
        Ok(()) => result,
        Err(payload) => after_panic_in_drop(header.id, result, payload),
    };
    if header.attached.get() {
        // SAFETY: in Ending only this function uses the stage, and the stage is empty.
        unsafe { stage.write(Stage::Output(result)) };
    } else {
        discard(result);
    }
}

/// The result of a task whose future panicked when it was dropped. A panic of the poll came first,
/// so it stays; the new panic replaces an output or a cancellation.
#[cold]
fn after_panic_in_drop<T>(
    id: TaskId,
    result: Result<T, JoinError>,
    payload: Box<dyn Any + Send>,
) -> Result<T, JoinError> {
    match result {
        Err(first) if first.is_panic() => {
            drop_payload(payload);
            Err(first)
        }
        late => {
            discard(late);
            Err(JoinError::panic(Origin::Task, id, payload))
        }
    }
}

/// Drops a result that will not be read, and contains its panics. (A `JoinError` contains those of
/// its payload itself.)
#[inline]
fn discard<T>(result: Result<T, JoinError>) {
    if let (Ok(output), true) = (result, needs_drop::<T>()) {
        contain(|| drop(output));
    }
}

/// # Safety
/// As `TaskVtable::take_output`.
unsafe fn take_output<F: Future>(header: NonNull<Header>, to: *mut ()) {
    // SAFETY: the cell is alive and of type F, this is its home thread, and the state is Done.
    let output = unsafe { replace_output(header.cast::<TaskCell<F>>()) };
    let to = to.cast::<Option<Result<F::Output, JoinError>>>();
    // SAFETY: by the contract `to` points to an Option of this type. It holds None, so nothing is
    // overwritten that needs a drop.
    unsafe { to.write(output) };
}

/// # Safety
/// As `TaskVtable::drop_output`.
unsafe fn drop_output<F: Future>(header: NonNull<Header>) {
    // SAFETY: the cell is alive and of type F, this is its home thread, and the state is Done.
    let output = unsafe { replace_output(header.cast::<TaskCell<F>>()) };
    if let Some(output) = output {
        discard(output);
    }
}

/// Takes the output out of the stage; `None` if there is none any more.
///
/// # Safety
/// The cell is alive, this is its home thread, the state is `Done`.
#[inline]
unsafe fn replace_output<F: Future>(
    cell: NonNull<TaskCell<F>>,
) -> Option<Result<F::Output, JoinError>> {
    // SAFETY: the cell is alive. This makes a raw pointer to the stage, no reference.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    // SAFETY: in Done only the handle uses the stage, and this is called for it. No foreign code
    // runs here that could use the stage as well.
    match unsafe { stage.replace(Stage::Empty) } {
        Stage::Output(output) => Some(output),
        Stage::Empty => None,
        Stage::Future(_) => unreachable!("a task that is done has no future"),
    }
}

/// # Safety
/// As `TaskVtable::free`.
unsafe fn free<F: Future>(header: NonNull<Header>) {
    // SAFETY: `allocate` leaked a box of this type, and the caller has the only pointer to it.
    let mut cell = unsafe { Box::from_raw(header.cast::<TaskCell<F>>().as_ptr()) };
    // Always true, see `counts.rs`. If it were not, this thread might not be the one that may drop
    // what the stage holds, so leak it.
    if !matches!(cell.stage.get_mut(), Stage::Empty) {
        debug_assert!(false, "future and output die at home, before the memory");
        core::mem::forget(cell);
        return;
    }
    waker::return_shared(cell.header.shared);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_task_is_two_cache_lines() {
        fn cell_len<F: Future>(_: &F) -> usize {
            size_of::<TaskCell<F>>()
        }
        let captured = 3_u64;
        assert!(size_of::<Header>() <= 96);
        assert!(cell_len(&async {}) <= 120, "glibc frees small chunks without merging up to here");
        assert!(cell_len(&async move { captured }) <= 128);
    }
}
