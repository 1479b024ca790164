//! A task as its home thread handles it: its header, the references to it, and what is done with
//! it.
//!
//! Who may use what of a [`Header`]:
//!
//! | field | who |
//! |---|---|
//! | `id`, `vtable`, `shared` | any thread that has a reference; they never change |
//! | `refs`, `link` | any thread that has a reference; they are atomics |
//! | every `Cell` | the home thread |
//!
//! The future is not here: `cell.rs` keeps it behind the header, and calls it. `state.rs` says what
//! a task may do next, `counts.rs` when its memory is freed. Read next: `cell.rs`.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::future::Future;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{ControlFlow, Deref};
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;

use crate::panics::contain;

use super::cell::{TaskVtable, allocate, vtable};
use super::counts::{HOME_UNIT, release_home};
use super::inbox::Link;
use super::join::{JoinError, TaskId};
use super::queue::OwnedLinks;
use super::state::{AfterPoll, Start, TaskState};
use super::{Home, Shared, waker};

/// What a task is without its future's type. First in the allocation.
pub(super) struct Header {
    pub(super) refs: AtomicUsize,
    pub(super) state: Cell<TaskState>,
    /// At zero, `home_wakers` has been added to `refs`.
    pub(super) home_refs: Cell<u32>,
    pub(super) home_wakers: Cell<i8>,
    /// There is a `JoinHandle`, which will take the output or drop it.
    pub(super) attached: Cell<bool>,
    /// The next task in the run queue.
    pub(super) run_next: Cell<Option<TaskRef>>,
    pub(super) vtable: &'static TaskVtable,
    pub(super) shared: Arc<Shared>,
    /// To be woken when the task is done. None unless `attached`.
    pub(super) join_waker: Cell<Option<Waker>>,
    /// Its place in the list of tasks.
    pub(super) place: OwnedLinks,
    pub(super) link: Link<Header>,
    pub(super) id: TaskId,
}

/// A counted reference of the home thread. It is neither Send nor Sync, so it stays there.
pub(super) struct TaskRef {
    header: NonNull<Header>,
}

/// A [`TaskRef`] that knows the output type of the task's future.
pub(super) struct TypedTask<T> {
    task: TaskRef,
    output: PhantomData<T>,
}

impl TaskRef {
    /// One more reference to a task that another reference keeps alive.
    ///
    /// # Safety
    /// - `header` is that of a live task, and this is its home thread.
    /// - There is a home reference, as there always is while the task is not done.
    #[inline]
    pub(super) unsafe fn from_ptr(header: NonNull<Header>) -> Self {
        // This one stands for no count, so it must not be dropped.
        let borrowed = ManuallyDrop::new(Self { header });
        TaskRef::clone(&borrowed)
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.header
    }

    /// Does with a task from the run queue what its state demands: polls it, drops its future if it
    /// was aborted, or nothing if it has ended.
    #[inline]
    pub(super) fn run(self, home: &Home) {
        match self.step(TaskState::start) {
            Start::Poll => {
                home.begin_poll();
                let waker = waker::borrowed(&self);
                let mut cx = Context::from_waker(&waker);
                // SAFETY: the vtable is the one of this cell's type, `self` keeps the cell alive on
                // its home thread, and `start` has made it Running.
                let polled = unsafe { (self.vtable.poll)(self.header, &mut cx) };
                match polled {
                    Poll::Pending => self.after_pending(home),
                    Poll::Ready(()) => self.finish(home),
                }
            }
            Start::End => self.cancel(home),
            Start::Skip => {}
        }
    }

    /// As `run`, for the main task, whose future `poll_main` polls. Break means that it is
    /// complete; Continue, that it waits or has ended before. If `poll_main` panics, the main task
    /// ends and the panic goes on.
    pub(super) fn run_main(
        self,
        home: &Home,
        poll_main: &mut dyn FnMut(&mut Context<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        struct EndOnDrop<'a>(&'a TaskRef, &'a Home);
        impl Drop for EndOnDrop<'_> {
            fn drop(&mut self) {
                self.0.step(TaskState::end);
                self.0.cancel(self.1);
            }
        }

        if self.step(TaskState::start) != Start::Poll {
            return ControlFlow::Continue(());
        }
        home.begin_poll();
        let end = EndOnDrop(&self, home);
        let waker = waker::borrowed(&self);
        if poll_main(&mut Context::from_waker(&waker)).is_break() {
            return ControlFlow::Break(()); // `end` does the rest
        }
        core::mem::forget(end);
        self.after_pending(home);
        ControlFlow::Continue(())
    }

    /// Drops the future now; if the task is being polled, when that poll ends. For
    /// `TaskExecutor::close`.
    pub(super) fn close(&self, home: &Home) {
        if self.step(TaskState::close) {
            self.cancel(home);
        }
    }

    /// Asks the task to end: its future is dropped in its next turn, or after the poll in progress
    /// if that returns Pending. Runs no foreign code, except the notifier if its executor is not
    /// the one entered on this thread.
    pub(super) fn abort(&self) {
        if self.step(TaskState::abort) {
            // SAFETY: `self` keeps the task alive during the call.
            unsafe { waker::schedule(self.header) };
        }
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.state.get().is_done()
    }

    /// The `JoinHandle` is dropped, and with it the join waker and an output that it did not take.
    pub(super) fn detach(&self) {
        self.attached.set(false);
        let waker = self.join_waker.take();
        if self.is_done() {
            // SAFETY: the vtable is the one of this cell's type, `self` keeps the cell alive on its
            // home thread, and the state is Done.
            unsafe { (self.vtable.drop_output)(self.header) };
        }
        contain(|| drop(waker));
    }

    /// After a poll that returned Pending: leaves the task idle, queues it again or ends it.
    #[inline]
    fn after_pending(self, home: &Home) {
        match self.step(TaskState::pending) {
            AfterPoll::Idle => {}
            AfterPoll::Requeue => home.queue.push(self),
            AfterPoll::End => self.cancel(home),
        }
    }

    /// Drops the future and finishes the task. The state is `Ending`.
    #[cold]
    fn cancel(&self, home: &Home) {
        // SAFETY: the vtable is the one of this cell's type, `self` keeps the cell alive on its
        // home thread, and the state is Ending.
        unsafe { (self.vtable.cancel)(self.header) };
        self.finish(home);
    }

    /// The future is gone and the output is in place: takes the task off the list, and wakes the
    /// task that waits for it.
    #[inline]
    fn finish(&self, home: &Home) {
        self.step(TaskState::finish);
        home.owned.remove(self);
        if let Some(waker) = self.join_waker.take() {
            contain(|| waker.wake());
        }
    }
}

impl<T> TypedTask<T> {
    /// A new task in state `Queued`. The caller puts it into the run queue and, unless it is a main
    /// task, the list of tasks. `attached`: there will be a `JoinHandle`.
    #[inline]
    pub(super) fn new<F>(future: F, home: &Home, attached: bool) -> Self
    where
        F: Future<Output = T>,
    {
        let header = Header {
            refs: AtomicUsize::new(HOME_UNIT),
            state: Cell::new(TaskState::queued()),
            home_refs: Cell::new(1),
            home_wakers: Cell::new(0),
            attached: Cell::new(attached),
            run_next: Cell::new(None),
            vtable: vtable::<F>(),
            shared: home.shared.lend(),
            join_waker: Cell::new(None),
            place: OwnedLinks::new(),
            link: Link::new(),
            id: TaskId::next(),
        };
        Self { task: TaskRef { header: allocate(header, future) }, output: PhantomData }
    }

    /// Moves the output out; `None` if it was taken before. Panics if the task is not done.
    pub(super) fn take_output(&self) -> Option<Result<T, JoinError>> {
        assert!(self.is_done(), "an output is taken from a task that is done");
        let mut output: Option<Result<T, JoinError>> = None;
        // SAFETY: the vtable is the one of this cell's type, whose future gives a T (see `new`).
        // `self` keeps the cell alive on its home thread, the state is Done, and `output` is an
        // Option of the type that the function writes.
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
        // SAFETY: a TaskRef counts as a home reference, so the allocation is alive.
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
            // SAFETY: this was the last home reference, `self` is not used again, and a TaskRef
            // never leaves its home thread.
            unsafe { release_home(self.header) };
        }
    }
}

impl Header {
    /// Makes a transition of the state, and gives its result.
    #[inline]
    pub(super) fn step<R>(&self, transition: impl FnOnce(&mut TaskState) -> R) -> R {
        let mut state = self.state.get();
        let result = transition(&mut state);
        self.state.set(state);
        result
    }
}
