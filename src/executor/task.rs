//! The task cell: header, then future, then output in the future's place, in one allocation.
//!
//! Who may touch what:
//!
//! | | who |
//! |---|---|
//! | `id`, `vtable`, `shared` | anybody who has a reference; they never change |
//! | `refs`, `link` | anybody who has a reference; atomics |
//! | every `Cell` of the header | the home thread |
//! | `stage` | whoever the state names: the poll in `Running`/`Woken`, the one who ends the task in `Ending`, the `JoinHandle` in `Done` |
//!
//! Three counts. `home_refs` is plain: the run queue, the list of tasks, the handles, a poll in
//! progress. While there are any, `refs` holds [`HOME_UNIT`] for all of them together. Each waker and
//! a stay in the inbox hold one unit more. A unit that is taken or given back at home is counted in
//! `home_wakers`, without an atomic operation, and anywhere else in `refs`: a waker may be cloned
//! here and dropped there, so each may be off, and only their sum says how many there are. The last
//! home reference adds them up; from then on `refs` alone counts.
//!
//! The memory is freed when that sum reaches 0, on any thread; the stage is empty and the
//! join waker gone by then, for the home unit is given back only after the task is done (the list
//! of tasks holds a home reference until then, the main task's owner likewise) and its handle has
//! taken or dropped the output. So future and output die at home.
//!
//! Read `waker.rs` next for what other threads do.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::future::Future;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, needs_drop};
use core::ops::{ControlFlow, Deref};
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use core::task::{Context, Poll, Waker};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::panics::{bury, contain};

use super::inbox::Link;
use super::join::{JoinError, TaskId};
use super::queue::Place;
use super::state::{Rest, Start, State};
use super::{Home, Shared, waker};

/// What a task is without its future's type. First in the allocation.
pub(super) struct Header {
    pub(super) refs: AtomicUsize,
    pub(super) state: Cell<State>,
    /// Zero: `home_wakers` has been added to `refs`.
    home_refs: Cell<u32>,
    home_wakers: Cell<i8>,
    /// A `JoinHandle` exists: it will take the output, or drop it.
    pub(super) attached: Cell<bool>,
    pub(super) run_next: Cell<Option<TaskRef>>,
    vtable: &'static Vtable,
    pub(super) shared: Arc<Shared>,
    /// Who waits for the end. None unless `attached`.
    pub(super) join_waker: Cell<Option<Waker>>,
    /// In the list of tasks.
    pub(super) place: Place,
    pub(super) link: Link<Header>,
    pub(super) id: TaskId,
}

#[repr(C)] // header first: a pointer to the cell is one to its header
struct TaskCell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Empty,
}

/// What depends on the future's type. Each is called with the header of a cell of that type.
struct Vtable {
    /// Polls; after Ready the stage is ended. Home, state `Running` or `Woken`.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future and puts the error in its place. Home, state `Ending`.
    cancel: unsafe fn(NonNull<Header>),
    /// Moves the output to an `Option<Result<F::Output, JoinError>>`. Home, state `Done`.
    take_output: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the output, panics contained. Home, state `Done`.
    drop_output: unsafe fn(NonNull<Header>),
    /// Frees the memory. Any thread; there is no reference left, or its owner gives it up.
    free: unsafe fn(NonNull<Header>),
}

impl<F: Future> TaskCell<F> {
    const VTABLE: &'static Vtable = &Vtable {
        poll: poll::<F>,
        cancel: cancel::<F>,
        take_output: take_output::<F>,
        drop_output: drop_output::<F>,
        free: free::<F>,
    };
}

/// A counted home reference. Neither Send nor Sync, so it stays on the home thread.
pub(super) struct TaskRef {
    header: NonNull<Header>,
}

/// A home reference that knows the output type of the task's future.
pub(super) struct TypedTask<T> {
    task: TaskRef,
    output: PhantomData<T>,
}

impl TaskRef {
    /// A new reference to a task that somebody else keeps alive.
    ///
    /// # Safety
    /// - `header` is that of a live task, and the caller is on its home thread;
    /// - the home side has its unit of `refs`, as it has while the task is not done.
    #[inline]
    pub(super) unsafe fn from_ptr(header: NonNull<Header>) -> Self {
        // Never dropped: the count this one would give back is not its own.
        let borrowed = ManuallyDrop::new(Self { header });
        TaskRef::clone(&borrowed)
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.header
    }

    /// Polls the task, or drops its future if it was aborted. It was taken from the run queue.
    #[inline]
    pub(super) fn run(self, home: &Home) {
        match self.step(State::start) {
            Start::Poll => {
                home.begin_poll();
                let waker = waker::borrowed(&self);
                let mut cx = Context::from_waker(&waker);
                // SAFETY: the vtable is of this cell's type; this is home; `start` made it Running.
                let polled = unsafe { (self.vtable.poll)(self.header, &mut cx) };
                match polled {
                    Poll::Pending => self.rest(home),
                    Poll::Ready(()) => self.finish(home),
                }
            }
            Start::End => self.cancel(home),
            Start::Skip => {}
        }
    }

    /// As `run`, for the main task, whose future is elsewhere. Break: it is complete. If
    /// `poll_main` unwinds the main task is ended, and everything else as it was.
    pub(super) fn run_main(
        self,
        home: &Home,
        poll_main: &mut dyn FnMut(&mut Context<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        struct End<'a>(&'a TaskRef, &'a Home);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.step(State::end);
                self.0.cancel(self.1);
            }
        }

        if self.step(State::start) != Start::Poll {
            return ControlFlow::Continue(());
        }
        home.begin_poll();
        let end = End(&self, home);
        let waker = waker::borrowed(&self);
        if poll_main(&mut Context::from_waker(&waker)).is_break() {
            return ControlFlow::Break(()); // `end` does the rest
        }
        core::mem::forget(end);
        self.rest(home);
        ControlFlow::Continue(())
    }

    /// Drops the future now, unless the task is running: then when it pauses. For close.
    pub(super) fn close(&self, home: &Home) {
        if self.step(State::close) {
            self.cancel(home);
        }
    }

    /// Asks for the end. No foreign code runs in here but, from outside the context, the notifier.
    pub(super) fn abort(&self) {
        if self.step(State::abort) {
            // SAFETY: `self` keeps the task alive.
            unsafe { waker::rouse(self.header) };
        }
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.state.get().is_done()
    }

    /// The `JoinHandle` goes: what it alone can ask for goes with it.
    pub(super) fn detach(&self) {
        self.attached.set(false);
        let waker = self.join_waker.take();
        if self.is_done() {
            // SAFETY: the vtable is of this cell's type; this is home; the state is Done.
            unsafe { (self.vtable.drop_output)(self.header) };
        }
        contain(|| drop(waker));
    }

    /// After a poll that gave Pending.
    #[inline]
    fn rest(self, home: &Home) {
        match self.step(State::pending) {
            Rest::Idle => {}
            Rest::Requeue => home.queue.push(self),
            Rest::End => self.cancel(home),
        }
    }

    /// Drops the future; the state is `Ending`.
    #[cold]
    fn cancel(&self, home: &Home) {
        // SAFETY: the vtable is of this cell's type; this is home; the state is Ending.
        unsafe { (self.vtable.cancel)(self.header) };
        self.finish(home);
    }

    /// The stage is ended: tells everybody.
    #[inline]
    fn finish(&self, home: &Home) {
        self.step(State::finish);
        home.owned.remove(self);
        if let Some(waker) = self.join_waker.take() {
            contain(|| waker.wake());
        }
    }
}

impl<T> TypedTask<T> {
    /// A new task in state `Queued`, in no queue and no list yet.
    #[inline]
    pub(super) fn new<F>(future: F, home: &Home, attached: bool) -> Self
    where
        F: Future<Output = T>,
    {
        let header = Header {
            refs: AtomicUsize::new(HOME_UNIT),
            state: Cell::new(State::queued()),
            home_refs: Cell::new(1),
            home_wakers: Cell::new(0),
            attached: Cell::new(attached),
            run_next: Cell::new(None),
            vtable: TaskCell::<F>::VTABLE,
            shared: home.shared.lend(),
            join_waker: Cell::new(None),
            place: Place::new(),
            link: Link::new(),
            id: TaskId::next(),
        };
        let cell = Box::new(TaskCell { header, stage: UnsafeCell::new(Stage::Future(future)) });
        let task = TaskRef { header: NonNull::from(Box::leak(cell)).cast() };
        Self { task, output: PhantomData }
    }

    /// Moves the output out; None if that was done before.
    pub(super) fn take_output(&self) -> Option<Result<T, JoinError>> {
        assert!(self.is_done(), "an output is taken from a task that is done");
        let mut output: Option<Result<T, JoinError>> = None;
        // SAFETY: the vtable is of this cell's type, whose output is T, see `new`; this is
        // home; the state is Done; `output` is what the function asks for.
        unsafe { (self.vtable.take_output)(self.header, (&raw mut output).cast()) };
        output
    }
}

impl<T> Deref for TypedTask<T> {
    type Target = TaskRef;

    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.task
    }
}

impl Deref for TaskRef {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: a TaskRef holds a home reference, so the allocation lives.
        unsafe { self.header.as_ref() }
    }
}

impl Clone for TaskRef {
    #[inline]
    fn clone(&self) -> Self {
        let refs = self.home_refs.get().checked_add(1).expect("2^32 home references to a task");
        self.home_refs.set(refs);
        Self { header: self.header }
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        let refs = self.home_refs.get() - 1;
        self.home_refs.set(refs);
        if refs == 0 {
            // SAFETY: the last home reference gives back what all of them held.
            unsafe { release_home(self.header) };
        }
    }
}

impl Header {
    #[inline]
    pub(super) fn step<R>(&self, transition: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.get();
        let result = transition(&mut state);
        self.state.set(state);
        result
    }
}

/// What `refs` holds for the home references. So much that wakers which were cloned at home and
/// dropped elsewhere never bring it down to 0.
const HOME_UNIT: usize = 1 << (usize::BITS - 2);
/// How far `home_wakers` may be from 0 before it is added to `refs`: most tasks have a waker or two.
const HOME_WAKERS_MAX: u8 = 100;

impl Header {
    /// Counts units that are taken or given back at home.
    #[inline]
    fn count_at_home(&self, by: i8) {
        let wakers = self.home_wakers.get() + by;
        self.home_wakers.set(wakers);
        if wakers.unsigned_abs() > HOME_WAKERS_MAX {
            self.add_home_wakers();
        }
    }

    #[cold]
    fn add_home_wakers(&self) {
        let wakers = self.home_wakers.take();
        // Relaxed: the home references stay, and whoever gives back the last of those publishes.
        let refs = self.refs.fetch_add(wakers as isize as usize, Ordering::Relaxed);
        if wakers > 0 && refs > isize::MAX as usize {
            std::process::abort(); // as `retain`
        }
    }
}

/// As [`retain`], at home.
///
/// # Safety
/// The caller has a reference of any kind to this task, and this is its home thread.
#[inline]
pub(super) unsafe fn retain_at_home(header: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the task alive; this is home.
    let task = unsafe { header.as_ref() };
    if task.home_refs.get() > 0 {
        task.count_at_home(1);
    } else {
        // SAFETY: the caller's promise.
        unsafe { retain(header) };
    }
}

/// As [`release`], at home.
///
/// # Safety
/// The caller owns that unit and does not use the task afterwards; this is its home thread.
#[inline]
pub(super) unsafe fn release_at_home(header: NonNull<Header>) {
    // SAFETY: the caller's unit keeps the task alive; this is home.
    let task = unsafe { header.as_ref() };
    if task.home_refs.get() > 0 {
        task.count_at_home(-1); // the home references keep the task alive
    } else {
        // SAFETY: the caller's promise; `task` is not used again.
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
    // Relaxed as in Arc: a new reference is made from one that exists. Forgotten clones could bring
    // the count round to 0 and free what is in use, so, as Arc does, give up long before.
    if refs.fetch_add(1, Ordering::Relaxed) > isize::MAX as usize {
        std::process::abort();
    }
}

/// Gives back one unit; frees the task if it was the last.
///
/// # Safety
/// The caller owns that unit and does not use the task afterwards.
#[inline]
pub(super) unsafe fn release(header: NonNull<Header>) {
    // A reference to the field and not to the header, whose memory another thread may free as soon
    // as the count is down.
    // SAFETY: the caller's unit keeps the task alive until here.
    let refs = unsafe { &(*header.as_ptr()).refs };
    if refs.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire); // what the other references did happened before the free
        // SAFETY: the count is 0, nobody can have a reference.
        unsafe { free_task(header) };
    }
}

/// Gives back what the home references held.
///
/// # Safety
/// As `release`; the caller dropped the last home reference.
#[inline]
unsafe fn release_home(header: NonNull<Header>) {
    // SAFETY: what `refs` holds for home keeps the task alive until here; this is home.
    let (refs, wakers) =
        unsafe { (&(*header.as_ptr()).refs, (*header.as_ptr()).home_wakers.take()) };
    // No read-modify-write for a task without wakers: nobody is left to take another unit. Acquire
    // pairs with the Release of the wakers that went.
    if wakers == 0 && refs.load(Ordering::Acquire) == HOME_UNIT {
        // SAFETY: there is no other reference.
        return unsafe { free_task(header) };
    }
    let change = (wakers as isize as usize).wrapping_sub(HOME_UNIT);
    if refs.fetch_add(change, Ordering::AcqRel).wrapping_add(change) == 0 {
        // SAFETY: the sum is 0, nobody can have a reference.
        unsafe { free_task(header) };
    }
}

/// # Safety
/// Nobody else has a reference.
unsafe fn free_task(header: NonNull<Header>) {
    // SAFETY: the caller alone knows the task, which lives until the next line.
    let vtable = unsafe { (*header.as_ptr()).vtable };
    // SAFETY: the vtable is of this cell's type, and the caller alone knows the task.
    unsafe { (vtable.free)(header) };
}

/// # Safety
/// As `Vtable::poll`.
unsafe fn poll<F: Future>(header: NonNull<Header>, cx: &mut Context<'_>) -> Poll<()> {
    let cell = header.cast::<TaskCell<F>>();
    // SAFETY: the cell lives, its type is F's; no reference to the stage is made here.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    let polled = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: in Running and Woken the stage is the poll's alone.
        let stage = unsafe { &mut *stage };
        let Stage::Future(future) = stage else { unreachable!("a task that runs has a future") };
        // SAFETY: the future lives in the heap and is dropped where it stands, in `end`.
        let future = unsafe { Pin::new_unchecked(future) };
        future.poll(cx)
    }));
    // SAFETY: the cell lives. The reference is to the header's part of the cell only.
    let header = unsafe { &(*cell.as_ptr()).header };
    let result = match polled {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(output)) => Ok(output),
        Err(payload) => Err(JoinError::panic(header.id, payload)),
    };
    header.step(State::end);
    // SAFETY: F is the cell's type; this is home, and the state is Ending.
    unsafe { end(cell, result) };
    Poll::Ready(())
}

/// # Safety
/// As `Vtable::cancel`.
unsafe fn cancel<F: Future>(header: NonNull<Header>) {
    // SAFETY: a reference to a field that never changes, of a live task.
    let id = unsafe { (*header.as_ptr()).id };
    // SAFETY: F is the cell's type; this is home, and the state is Ending.
    unsafe { end(header.cast::<TaskCell<F>>(), Err(JoinError::cancelled(id))) };
}

/// Drops the future, and puts the result in its place if somebody can ask for it.
///
/// # Safety
/// The cell lives, this is its home thread, the state is `Ending`.
#[inline]
unsafe fn end<F: Future>(cell: NonNull<TaskCell<F>>, result: Result<F::Output, JoinError>) {
    // SAFETY: the cell lives; no reference to the stage is made here.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    let drop_future = || {
        // SAFETY: in Ending the stage is the ender's alone; it is overwritten next, so this is its
        // only drop. In place, as Pin demands.
        unsafe { stage.drop_in_place() };
    };
    // A destructor that does nothing does not panic; catching costs a call.
    let dropped = match needs_drop::<F>() {
        true => catch_unwind(AssertUnwindSafe(drop_future)),
        false => Ok(()),
    };
    // SAFETY: the stage is the ender's alone; what it held is dropped, as far as it would.
    unsafe { stage.write(Stage::Empty) };
    // SAFETY: the cell lives. The reference is to the header's part of the cell only.
    let header = unsafe { &(*cell.as_ptr()).header };
    let result = match dropped {
        Ok(()) => result,
        Err(payload) => after_panic_in_drop(header.id, result, payload),
    };
    if header.attached.get() {
        // SAFETY: the stage is the ender's alone, and empty: nothing is lost by writing over it.
        unsafe { stage.write(Stage::Output(result)) };
    } else {
        discard(result);
    }
}

/// The first panic is the one to report; it outweighs an output.
#[cold]
fn after_panic_in_drop<T>(
    id: TaskId,
    result: Result<T, JoinError>,
    payload: Box<dyn Any + Send>,
) -> Result<T, JoinError> {
    match result {
        Err(first) if first.is_panic() => {
            bury(payload);
            Err(first)
        }
        late => {
            discard(late);
            Err(JoinError::panic(id, payload))
        }
    }
}

/// Drops a result nobody reads. A JoinError contains the panics of its payload itself.
#[inline]
fn discard<T>(result: Result<T, JoinError>) {
    if let (Ok(output), true) = (result, needs_drop::<T>()) {
        contain(|| drop(output));
    }
}

/// # Safety
/// As `Vtable::take_output`.
unsafe fn take_output<F: Future>(header: NonNull<Header>, to: *mut ()) {
    // SAFETY: F is the cell's type; this is home, and the state is Done.
    let output = unsafe { replace_output(header.cast::<TaskCell<F>>()) };
    let to = to.cast::<Option<Result<F::Output, JoinError>>>();
    // SAFETY: `to` is a live Option of this type by the contract; it holds None.
    unsafe { to.write(output) };
}

/// # Safety
/// As `Vtable::drop_output`.
unsafe fn drop_output<F: Future>(header: NonNull<Header>) {
    // SAFETY: F is the cell's type; this is home, and the state is Done.
    let output = unsafe { replace_output(header.cast::<TaskCell<F>>()) };
    if let Some(output) = output {
        discard(output);
    }
}

/// # Safety
/// The cell lives, this is its home thread, the state is `Done`.
#[inline]
unsafe fn replace_output<F: Future>(
    cell: NonNull<TaskCell<F>>,
) -> Option<Result<F::Output, JoinError>> {
    // SAFETY: the cell lives; no reference to the stage is made here.
    let stage = unsafe { (*cell.as_ptr()).stage.get() };
    // SAFETY: in Done the stage is the handle's alone, and this runs no foreign code.
    match unsafe { stage.replace(Stage::Empty) } {
        Stage::Output(output) => Some(output),
        Stage::Empty => None,
        Stage::Future(_) => unreachable!("a task that is done has no future"),
    }
}

/// # Safety
/// As `Vtable::free`.
unsafe fn free<F: Future>(header: NonNull<Header>) {
    // SAFETY: made by Box::leak in `new` with this type; nobody else knows it any more.
    let mut cell = unsafe { Box::from_raw(header.cast::<TaskCell<F>>().as_ptr()) };
    // Holds by the account at the head of this file. Were it broken, leak: this thread may not be
    // the one that may drop what is in there.
    if !matches!(cell.stage.get_mut(), Stage::Empty) {
        debug_assert!(false, "future and output die at home, before the memory");
        core::mem::forget(cell);
        return;
    }
    let shared = cell.header.shared;
    waker::return_shared(shared);
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
