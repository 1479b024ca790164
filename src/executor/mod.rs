//! The executor: tasks of one thread, and the order in which they are polled.
//!
//! It knows nothing of I/O and time. It is told when to poll (`run_ready`), and it is told of
//! events by `core::task::Waker` alone; the notifier handed in at its birth is one too.
//!
//! A task is one allocation (`task.rs`) with a state (`state.rs`). Whoever wakes it at home puts it
//! on the run queue (`queue.rs`), any other thread on the inbox (`inbox.rs`); `waker.rs` decides
//! which. Read `state.rs` first, then `task.rs`.

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

pub use self::join::{AbortHandle, JoinError, JoinHandle, TaskId};
pub(crate) use self::waker::{set_home, spend};
pub use self::yield_now::{YieldNow, yield_now};

use self::inbox::Inbox;
use self::queue::{Owned, RunQueue};
use self::task::{Header, TypedTask};
use self::waker::Stock;

/// What one poll of a task may take from leaf futures that are ready at once (G9).
const UNITS: u32 = 128;
/// Between polls: a foreign executor may poll our futures then, and nobody would give it units.
const UNMETERED: u32 = u32::MAX;

/// Runs the tasks of one thread. Dropping it closes it.
pub(crate) struct Executor {
    home: Rc<Home>,
}

/// The part of an executor that only its thread sees.
struct Home {
    queue: RunQueue,
    owned: Owned,
    shared: Stock,
    units: Cell<u32>,
    polls: Cell<u64>,
    closed: Cell<bool>,
}

/// The part that every waker can reach. Lives as long as a task's memory does.
struct Shared {
    inbox: Inbox<Header>,
    /// Rouses the driver, if it is parked, after a push on the inbox.
    notifier: Waker,
}

/// The future of `block_on` as the queue knows it: a task whose future is elsewhere.
///
/// Queued from the start. When it is dropped its wakers mean nothing any more.
pub(crate) struct MainTask {
    task: TypedTask<()>,
    home: Rc<Home>,
}

impl Executor {
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

    /// A new task, at the back of the run queue. After `close` its future is dropped at once.
    #[inline]
    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
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

    /// Polls up to `budget` tasks from the front of the run queue, after what the inbox brought was
    /// put at its back. New wakes go behind. The poll that takes its last unit is the last one: else
    /// `budget` times as many answers could be had before I/O and timers have their turn.
    /// `poll_main` is called when it is `main`'s turn; with its Break this ends at once, and `main`
    /// is complete.
    ///
    /// # Panics
    /// With the panic of `poll_main`, everything else being as it was. No task's panic gets here.
    pub(crate) fn run_ready(
        &self,
        budget: u32,
        main: &MainTask,
        poll_main: &mut dyn FnMut(&mut Context<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let home = &*self.home;
        let _unmetered = Unmetered(home);
        waker::receive(home);
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

    /// Whether nothing is to be polled. Pairs with a push by another thread: one that does not see
    /// an announcement made before this call is seen by this call.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.home.queue.is_empty() && self.home.shared.inbox.is_empty()
    }

    /// Ends everything: refuses spawns, drops the futures in spawn order, panics contained, closes
    /// the inbox. What a future's drop spawns is dropped at once, what it wakes or aborts is dropped
    /// when its turn comes. A second call finds nothing to do.
    pub(crate) fn close(&self) {
        let home = &*self.home;
        home.closed.set(true);
        while let Some(task) = home.owned.pop_front() {
            task.close(home);
        }
        while let Some(task) = home.queue.pop() {
            drop(task); // memory at most, there are no futures left
        }
        waker::close(home);
    }

    /// How many tasks there are that have not ended, the main task not counted.
    pub(crate) fn tasks(&self) -> usize {
        self.home.owned.len()
    }

    /// How many polls there were since birth, those of the main task included.
    pub(crate) fn polls(&self) -> u64 {
        self.home.polls.get()
    }
}

/// Ends the counting of units when the polls are over, also by a panic.
struct Unmetered<'a>(&'a Home);

impl Drop for Unmetered<'_> {
    fn drop(&mut self) {
        self.0.units.set(UNMETERED);
    }
}

impl Drop for Executor {
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
        // It may still be in the queue, which then skips it.
        self.task.close(&self.home);
    }
}

impl Home {
    /// Whether the poll in progress has a unit left, which is taken.
    #[inline]
    fn take_unit(&self) -> bool {
        match self.units.get() {
            UNMETERED => {}
            0 => return false,
            units => self.units.set(units - 1),
        }
        true
    }

    #[inline]
    fn begin_poll(&self) {
        self.units.set(UNITS);
        self.polls.set(self.polls.get() + 1);
    }
}

#[cfg(test)]
mod tests;
