//! The executor: tasks of one thread, and the order in which they are polled.
//!
//! It knows nothing of I/O or time. `runtime.rs` tells it when to poll (`run_ready`). Events reach
//! it only as calls of a `core::task::Waker`, and it reaches the driver in the same way: the
//! notifier that it is given at the start is a `Waker` too.
//!
//! A task is one allocation (`task.rs`, `cell.rs`) with a state (`state.rs`). Its *home thread* is
//! the one that runs its executor. A wake at home puts the task on the run queue (`queue.rs`); a
//! wake from anywhere else puts it on the inbox (`inbox.rs`). `waker.rs` decides which. Read
//! `state.rs` first, then `task.rs`.

mod cell;
mod counts;
mod inbox;
mod join;
mod queue;
mod state;
mod task;
mod waker;
mod yield_now;

use core::cell::Cell;
use core::future::Future;
use core::ops::ControlFlow;
use core::task::{Context, Waker};
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use self::join::Origin;
pub use self::join::{AbortHandle, JoinError, JoinHandle, TaskId};
pub(crate) use self::waker::{consume_budget, poll_budget, set_home, take_unit};
pub use self::yield_now::{YieldNow, yield_now};

use self::inbox::Inbox;
use self::queue::{Owned, RunQueue};
use self::task::{Header, TypedTask};
use self::waker::Stock;

/// The largest future that lies in the allocation of its task.
const FUTURE_LEN_MAX: usize = 2048;
/// The budget of one poll: how often leaf futures may be ready at once in it (G9).
const UNITS: u32 = 128;
/// Stands for no limit. Outside our own polls, another executor may poll our futures, and it hands
/// out no units.
const UNMETERED: u32 = u32::MAX;

/// Runs the tasks of one thread. Its drop calls [`close`](Self::close).
pub(crate) struct TaskExecutor {
    home: Rc<Home>,
}

/// The part of an executor that only its home thread uses.
struct Home {
    queue: RunQueue,
    owned: Owned,
    shared: Stock,
    /// What is left for the poll in progress, or [`UNMETERED`].
    units: Cell<u32>,
    polls: Cell<u64>,
    closed: Cell<bool>,
}

/// The part that wakers on any thread use. It lives as long as the memory of any of the tasks.
struct Shared {
    inbox: Inbox<Header>,
    /// Wakes the driver if it is parked. Called after a push on the inbox.
    notifier: Waker,
}

/// The task that stands for the future of `block_on` in the run queue. That future itself is not in
/// it: `block_on` keeps it on its stack.
///
/// It is queued from the start. After its drop, its wakers do nothing.
pub(crate) struct MainTask {
    task: TypedTask<()>,
    home: Rc<Home>,
}

impl TaskExecutor {
    /// An executor that calls `notifier` when another thread has put something on its inbox.
    pub(crate) fn new(notifier: Waker) -> Self {
        let shared = Arc::new(Shared { inbox: Inbox::new(), notifier });
        let home = Home {
            queue: RunQueue::new(),
            owned: Owned::new(),
            shared: Stock::new(shared),
            units: Cell::new(UNMETERED),
            polls: Cell::new(0),
            closed: Cell::new(false),
        };
        Self { home: Rc::new(home) }
    }

    /// Spawns a task, at the back of the run queue. After `close`, drops the future at once.
    #[inline]
    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        // Wakers that outlive the task keep its allocation, so a large future has one of its own.
        if size_of::<F>() > FUTURE_LEN_MAX {
            return self.spawn_task(Box::pin(future));
        }
        self.spawn_task(future)
    }

    #[inline]
    fn spawn_task<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        let home = &*self.home;
        let task = TypedTask::new(future, home, true);
        if home.closed.get() {
            task.close(home);
        } else {
            home.owned.push_back(task.clone());
            home.queue.push(task.clone());
        }
        JoinHandle::new(task)
    }

    /// The main task of a `block_on`, at the back of the run queue.
    pub(crate) fn main_task(&self) -> MainTask {
        let task = TypedTask::new(core::future::pending::<()>(), &self.home, false);
        self.home.queue.push(task.clone());
        MainTask { task, home: self.home.clone() }
    }

    /// Moves what is in the inbox to the back of the run queue, then polls up to `budget` tasks
    /// from its front. Tasks that are woken in the meantime go to its back.
    ///
    /// A poll that takes its last unit is the last one of the call. Otherwise tasks could take
    /// `budget` times as many units before I/O and timers have their turn.
    ///
    /// Calls `poll_main` when it is `main`'s turn. If that returns Break, this returns Break at
    /// once, and `main` is complete. Otherwise it returns Continue.
    ///
    /// # Panics
    /// With a panic of `poll_main`, after which all other tasks are as they were. A task's panic
    /// does not get here.
    pub(crate) fn run_ready(
        &self,
        budget: u32,
        main: &MainTask,
        poll_main: &mut dyn FnMut(&mut Context<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let home = &*self.home;
        let _unmetered = Unmetered(home);
        waker::empty_inbox(home);
        for _ in 0..budget {
            let Some(task) = home.queue.pop() else { break };
            if task.as_ptr() == main.task.as_ptr() {
                task.run_main(home, poll_main)?;
            } else {
                task.run(home);
            }
            if home.units.get() == 0 {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether there is nothing to poll. It is ordered (SeqCst) with the pushes of other threads:
    /// if home announces that it parks and then calls this, then either this sees the push, or the
    /// pushing thread sees the announcement. See `Inbox::push`.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.home.queue.is_empty() && self.home.shared.inbox.is_empty()
    }

    /// Ends everything: refuses spawns, drops the futures in spawn order, contains their panics,
    /// and closes the inbox. If the drop of a future spawns a task, that is dropped at once; if it
    /// wakes or aborts one, that is dropped when its turn comes. A second call has nothing to do.
    pub(crate) fn close(&self) {
        let home = &*self.home;
        home.closed.set(true);
        while let Some(task) = home.owned.pop_front() {
            task.close(home);
        }
        while let Some(task) = home.queue.pop() {
            drop(task); // frees memory at most: no futures are left
        }
        waker::close(home);
    }

    /// How many tasks have not ended, without the main task.
    pub(crate) fn tasks(&self) -> usize {
        self.home.owned.len()
    }

    /// How many polls there were so far, with those of the main task.
    pub(crate) fn polls(&self) -> u64 {
        self.home.polls.get()
    }
}

/// Ends the counting of units on drop: also when `poll_main` panics.
struct Unmetered<'a>(&'a Home);

impl Drop for Unmetered<'_> {
    fn drop(&mut self) {
        self.0.units.set(UNMETERED);
    }
}

impl Drop for TaskExecutor {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
impl MainTask {
    /// A waker that makes the main task runnable.
    fn waker(&self) -> Waker {
        Waker::clone(&waker::borrowed(&self.task))
    }
}

impl Drop for MainTask {
    fn drop(&mut self) {
        // It may still be in the queue, which will then skip it.
        self.task.close(&self.home);
    }
}

impl Home {
    /// Takes a unit of the poll in progress; false if none is left. Outside our own polls it is
    /// always true.
    #[inline]
    fn take_unit(&self) -> bool {
        match self.units.get() {
            UNMETERED => {}
            0 => return false,
            units => self.units.set(units - 1),
        }
        true
    }

    /// Whether [`take_unit`](Self::take_unit) would find one.
    fn has_unit(&self) -> bool {
        self.units.get() > 0
    }

    /// Counts a poll, and gives it its units.
    #[inline]
    fn begin_poll(&self) {
        self.units.set(UNITS);
        self.polls.set(self.polls.get() + 1);
    }
}

#[cfg(test)]
mod tests;
