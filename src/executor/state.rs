//! The state of a task, and its transitions. Only the home thread uses it.
//!
//! Nothing here touches memory, queues or other threads. A wake from another thread comes through
//! the inbox (`inbox.rs`); home then calls [`TaskState::wake`]. Read next: `task.rs`.
//!
//! ```text
//!              1 wake               3 start                4 ready, panicked
//!      Idle ───────────► Queued ───────────► Running ───────────────────────► Ending ───► Done
//!       ▲                  ▲   │                │ ▲ 1 wake                      ▲   6 finish
//!       │                  │   │ 3 start,       │ └───────► Woken               │
//!       │   5 pending      │   │   aborted      │              │                │
//!       ├──────────────────│───│────────────────┘   5 pending  │                │
//!       │                  └───│───────────────────────────────┘                │
//!       └──────────────────────┴── 5 pending, aborted; 7 close ─────────────────┘
//! ```

/// The state of a task. One per task, in a `Cell`, on the home thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskState {
    phase: Phase,
    /// `abort` or `close` asked for the end. It is never reset, and means nothing in `Ending` and
    /// `Done`.
    aborted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits to be woken; not in the run queue.
    Idle,
    /// In the run queue, once.
    Queued,
    /// Being polled.
    Running,
    /// Being polled, and woken during that poll: goes to the back of the queue after it.
    Woken,
    /// The future is being dropped; the output, if any, is not in place yet.
    Ending,
    /// The future is gone. The output is in place, or was dropped because there is no handle.
    Done,
}

/// What to do with a task that was taken from the run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Poll it: it is `Running` now.
    Poll,
    /// Aborted while it was queued: drop the future, do not poll it.
    End,
    /// It ended while it was in the queue, by `close`.
    Skip,
}

/// What to do with a task after a poll that returned Pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterPoll {
    /// Nothing: a wake will queue it.
    Idle,
    /// Woken during the poll: push it, at the back.
    Requeue,
    /// Aborted during the poll: drop the future.
    End,
}

impl TaskState {
    /// The first state of a task. `spawn` pushes it on the run queue.
    pub(super) const fn queued() -> Self {
        Self { phase: Phase::Queued, aborted: false }
    }

    /// Transition 1. Returns whether the caller has to push the task on the run queue. Of all wakes
    /// between two polls, exactly one returns true, or else `pending` says `Requeue`. In `Ending`
    /// and `Done` a wake comes too late and does nothing.
    #[inline]
    pub(super) fn wake(&mut self) -> bool {
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Queued;
                true
            }
            Phase::Running => {
                self.phase = Phase::Woken;
                false
            }
            Phase::Queued | Phase::Woken | Phase::Ending | Phase::Done => false,
        }
    }

    /// Transition 2. It only sets the flag: the task ends later, in `start` or `pending`. Returns
    /// whether the caller has to wake the task to bring it there. It has no effect on a task in
    /// `Ending` or `Done`, whose output stays.
    pub(super) fn abort(&mut self) -> bool {
        match self.phase {
            Phase::Idle => {
                self.aborted = true;
                true
            }
            Phase::Queued | Phase::Running | Phase::Woken => {
                self.aborted = true;
                false
            }
            Phase::Ending | Phase::Done => false,
        }
    }

    /// Transition 3: the task was taken from the run queue, so it is no longer in it. The [`Start`]
    /// says what the caller must do. Panics for a task that cannot have been in the queue.
    #[inline]
    pub(super) fn start(&mut self) -> Start {
        match self.phase {
            Phase::Queued if self.aborted => {
                self.phase = Phase::Ending;
                Start::End
            }
            Phase::Queued => {
                self.phase = Phase::Running;
                Start::Poll
            }
            Phase::Ending | Phase::Done => Start::Skip,
            Phase::Idle | Phase::Running | Phase::Woken => {
                unreachable!("a task in the run queue is queued, or was ended there: {self:?}")
            }
        }
    }

    /// Transition 4: the poll returned Ready or panicked. Ready wins over an abort in the same
    /// poll. The caller drops the future, puts the output in place and calls `finish`. Panics if
    /// the task is not being polled.
    #[inline]
    pub(super) fn end(&mut self) {
        match self.phase {
            Phase::Running | Phase::Woken => self.phase = Phase::Ending,
            Phase::Idle | Phase::Queued | Phase::Ending | Phase::Done => {
                unreachable!("only a running task comes to its end by itself: {self:?}")
            }
        }
    }

    /// Transition 5: the poll returned Pending. The [`AfterPoll`] says what the caller must do. An
    /// abort wins over a wake: the future is not polled again. Panics if the task is not being
    /// polled.
    #[inline]
    pub(super) fn pending(&mut self) -> AfterPoll {
        let (phase, rest) = match self.phase {
            Phase::Running | Phase::Woken if self.aborted => (Phase::Ending, AfterPoll::End),
            Phase::Running => (Phase::Idle, AfterPoll::Idle),
            Phase::Woken => (Phase::Queued, AfterPoll::Requeue),
            Phase::Idle | Phase::Queued | Phase::Ending | Phase::Done => {
                unreachable!("only a running task can be pending: {self:?}")
            }
        };
        self.phase = phase;
        rest
    }

    /// Transition 6: the future is dropped and the output in place. The handle may take it now.
    /// Panics if the task is not ending.
    #[inline]
    pub(super) fn finish(&mut self) {
        match self.phase {
            Phase::Ending => self.phase = Phase::Done,
            Phase::Idle | Phase::Queued | Phase::Running | Phase::Woken | Phase::Done => {
                unreachable!("a task is finished once, after its end: {self:?}")
            }
        }
    }

    /// Transition 7: the executor closes. Returns whether the caller has to drop the future now. If
    /// not, the task is over already, or it closes the executor itself, in its poll: then it ends
    /// when that poll returns Pending, as if it were aborted.
    pub(super) fn close(&mut self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Queued => {
                self.phase = Phase::Ending;
                true
            }
            Phase::Running | Phase::Woken => {
                self.aborted = true;
                false
            }
            Phase::Ending | Phase::Done => false,
        }
    }

    #[inline]
    pub(super) fn is_done(self) -> bool {
        self.phase == Phase::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> TaskState {
        let mut state = TaskState::queued();
        assert_eq!(state.start(), Start::Poll);
        state
    }

    fn idle() -> TaskState {
        let mut state = running();
        assert_eq!(state.pending(), AfterPoll::Idle);
        state
    }

    #[test]
    fn several_wakes_are_one_push() {
        let mut state = idle();
        assert!(state.wake());
        assert!(!state.wake());
        assert_eq!(state.start(), Start::Poll);
        assert!(!state.wake());
        assert!(!state.wake());
        assert_eq!(state.pending(), AfterPoll::Requeue);
        assert!(!state.wake());
    }

    #[test]
    fn abort_of_an_idle_task_needs_a_wake_once() {
        let mut state = idle();
        assert!(state.abort());
        assert!(state.wake());
        assert!(!state.abort());
        assert_eq!(state.start(), Start::End);
        state.finish();
        assert!(state.is_done());
    }

    #[test]
    fn ready_wins_over_abort_and_abort_over_wake() {
        let mut state = running();
        assert!(!state.abort());
        state.end();
        state.finish();
        assert!(state.is_done());

        let mut state = running();
        assert!(!state.wake());
        assert!(!state.abort());
        assert_eq!(state.pending(), AfterPoll::End);
    }

    #[test]
    fn a_task_that_ended_hears_nothing() {
        let mut state = idle();
        assert!(state.close());
        for _ in 0..2 {
            let before = state;
            assert!(!state.wake() && !state.abort() && !state.close());
            assert_eq!(state.start(), Start::Skip);
            assert_eq!(state, before);
            if !state.is_done() {
                state.finish();
            }
        }
    }

    #[test]
    fn close_during_a_poll_waits_for_its_end() {
        let mut state = running();
        assert!(!state.close());
        assert_eq!(state.pending(), AfterPoll::End);
    }
}
