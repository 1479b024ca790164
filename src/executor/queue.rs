//! The two lists of the home thread: the run queue, and the list of all tasks that have not ended,
//! in spawn order. The links of both are fields of the task headers.
//!
//! No call allocates or runs foreign code. A list owns one home reference to each task in it:
//! `head` holds that of the first task, and each task's `next` that of the following one. The
//! pointers that lead backwards (`tail`, `prev`) own nothing. The number of tasks bounds both
//! lists. Tasks that other threads wake come in through `inbox.rs`, which is to be read next.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::NonNull;

use super::task::{Header, TaskRef};

/// The tasks to poll, first in, first out. `TaskState` makes sure that a task is in it at most
/// once.
pub(super) struct RunQueue {
    head: Cell<Option<TaskRef>>,
    tail: Cell<Option<NonNull<Header>>>,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None) }
    }

    /// Adds a task at the back. It must not be in the queue, as `TaskState` makes sure.
    #[inline]
    pub(super) fn push(&self, task: TaskRef) {
        match self.tail.replace(Some(task.as_ptr())) {
            None => self.head.set(Some(task)),
            Some(tail) => {
                // SAFETY: the tail is the last task in the queue, whose reference keeps it alive.
                let tail = unsafe { tail.as_ref() };
                tail.run_next.set(Some(task));
            }
        }
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<TaskRef> {
        let task = self.head.take()?;
        let next = task.run_next.take();
        if next.is_none() {
            self.tail.set(None);
        }
        self.head.set(next);
        Some(task)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.tail.get().is_none()
    }
}

/// Every task whose future is not dropped yet, oldest first.
pub(super) struct Owned {
    head: Cell<Option<TaskRef>>,
    tail: Cell<Option<NonNull<Header>>>,
    len: Cell<usize>,
}

/// A task's place in [`Owned`].
pub(super) struct OwnedLinks {
    next: Cell<Option<TaskRef>>,
    /// The task before this one; in the first task, that task itself. None: not in the list.
    prev: Cell<Option<NonNull<Header>>>,
}

impl OwnedLinks {
    pub(super) const fn new() -> Self {
        Self { next: Cell::new(None), prev: Cell::new(None) }
    }
}

impl Owned {
    pub(super) const fn new() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None), len: Cell::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// Adds a new task, which was never listed.
    #[inline]
    pub(super) fn push_back(&self, task: TaskRef) {
        self.len.set(self.len.get() + 1);
        let tail = self.tail.replace(Some(task.as_ptr()));
        let was = task.place.prev.replace(Some(tail.unwrap_or(task.as_ptr())));
        debug_assert!(was.is_none(), "a task is listed once, at its birth");
        match tail {
            None => self.head.set(Some(task)),
            Some(tail) => {
                // SAFETY: the tail is the last task in the list, whose reference keeps it alive.
                let tail = unsafe { tail.as_ref() };
                tail.place.next.set(Some(task));
            }
        }
    }

    /// Takes out the oldest task; `None` if the list is empty. A later `remove` of it does nothing.
    pub(super) fn pop_front(&self) -> Option<TaskRef> {
        let task = self.head.take()?;
        self.head.set(Some(task.clone()));
        self.remove(&task);
        Some(task)
    }

    /// Takes a task out, if it is in the list.
    #[inline]
    pub(super) fn remove(&self, task: &TaskRef) {
        let Some(prev) = task.place.prev.take() else { return };
        let prev = (prev != task.as_ptr()).then_some(prev);
        self.len.set(self.len.get() - 1);
        let next = task.place.next.take();
        match &next {
            Some(next) => next.place.prev.set(Some(prev.unwrap_or(next.as_ptr()))),
            None => self.tail.set(prev),
        }
        let listed = match prev {
            None => self.head.replace(next),
            Some(prev) => {
                // SAFETY: the task before a listed one is in the list, whose reference keeps it
                // alive.
                let prev = unsafe { prev.as_ref() };
                prev.place.next.replace(next)
            }
        };
        debug_assert!(listed.is_some_and(|listed| listed.as_ptr() == task.as_ptr()));
    }
}
