//! The executor against a naive model of it, with random steps.

use core::future::Future;
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::thread;

use super::super::{AbortHandle, JoinHandle};
use super::{Noted, Trace, answer, executor};

/// What the model knows of a task.
#[derive(Default)]
struct Sketch {
    queued: bool,
    in_inbox: bool,
    aborted: bool,
    done: bool,
    handle: bool,
    cancelled: bool,
    panicked: bool,
}

#[derive(Clone, Copy)]
enum Next {
    Wait,
    WakeAndWait,
    AbortAndWait,
    Finish,
    Panic,
}

/// A task that does what it is told at each poll, and notes it.
struct Told {
    id: usize,
    next: Rc<Cell<Next>>,
    abort: Rc<RefCell<Option<AbortHandle>>>,
    waker: Rc<RefCell<Option<Waker>>>,
    trace: Trace,
}

impl Future for Told {
    type Output = Noted;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Noted> {
        self.trace.borrow_mut().push(format!("poll {}", self.id));
        self.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        match self.next.get() {
            Next::Wait => Poll::Pending,
            Next::WakeAndWait => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Next::AbortAndWait => {
                self.abort.borrow().as_ref().unwrap().abort();
                Poll::Pending
            }
            Next::Finish => Poll::Ready(Noted(self.trace.clone(), "output")),
            Next::Panic => resume_unwind(Box::new("told to")), // without the hook
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.trace.borrow_mut().push(format!("drop {}", self.id));
    }
}

#[derive(Default)]
struct Model {
    tasks: Vec<Sketch>,
    queue: VecDeque<usize>,
    inbox: VecDeque<usize>,
    trace: Vec<String>,
}

impl Model {
    fn wake(&mut self, id: usize, at_home: bool) {
        if !at_home {
            if !self.tasks[id].in_inbox {
                self.tasks[id].in_inbox = true;
                self.inbox.push_back(id);
            }
        } else if !self.tasks[id].queued && !self.tasks[id].done {
            self.tasks[id].queued = true;
            self.queue.push_back(id);
        }
    }

    fn abort(&mut self, id: usize, at_home: bool) {
        if !self.tasks[id].done {
            self.tasks[id].aborted = true;
            if !self.tasks[id].queued {
                self.wake(id, at_home);
            }
        }
    }

    fn end(&mut self, id: usize) {
        self.trace.push(format!("drop {id}"));
        self.tasks[id].done = true;
    }

    fn run(&mut self, budget: usize, next: impl Fn(usize) -> Next) {
        while let Some(id) = self.inbox.pop_front() {
            self.tasks[id].in_inbox = false;
            self.wake(id, true);
        }
        for _ in 0..budget {
            let Some(id) = self.queue.pop_front() else { break };
            self.tasks[id].queued = false;
            if self.tasks[id].aborted {
                self.tasks[id].cancelled = true;
                self.end(id);
                continue;
            }
            self.trace.push(format!("poll {id}"));
            match next(id) {
                Next::Wait => {}
                Next::WakeAndWait => self.wake(id, true),
                Next::AbortAndWait => {
                    self.tasks[id].cancelled = true;
                    self.end(id);
                }
                Next::Finish => {
                    self.end(id);
                    if !self.tasks[id].handle {
                        self.trace.push("drop output".to_string());
                    }
                }
                Next::Panic => {
                    self.tasks[id].panicked = true;
                    self.end(id);
                }
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn the_executor_does_what_the_model_does() {
    for seed in 1..=300 {
        random_steps(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    }
}

fn random_steps(seed: u64) {
    struct Real {
        next: Rc<Cell<Next>>,
        abort: AbortHandle,
        handle: Option<JoinHandle<Noted>>,
        waker: Rc<RefCell<Option<Waker>>>,
    }
    let mut random = Random(seed);
    let (executor, trace, mut model) = (executor(), Trace::default(), Model::default());
    let mut real: Vec<Real> = Vec::new();
    let main = executor.main_task();
    let _ = executor.run_ready(1, &main, &mut |_| ControlFlow::Continue(()));
    let mut entered = None;
    for step in 0..200 {
        let at_home = entered.is_some();
        let id = random.below(real.len().max(1));
        match random.below(12) {
            0 | 1 => {
                let (abort, waker) = (Rc::default(), Rc::default());
                let next = Rc::new(Cell::new(Next::Wait));
                let told = Told {
                    id: real.len(),
                    next: next.clone(),
                    abort: Rc::clone(&abort),
                    waker: Rc::clone(&waker),
                    trace: trace.clone(),
                };
                let handle = executor.spawn(told);
                *abort.borrow_mut() = Some(handle.abort_handle());
                let abort = handle.abort_handle();
                real.push(Real { next, abort, handle: Some(handle), waker });
                let queued = Sketch { queued: true, handle: true, ..Sketch::default() };
                model.queue.push_back(model.tasks.len());
                model.tasks.push(queued);
            }
            2 => entered = if entered.is_some() { None } else { Some(executor.enter()) },
            _ if real.is_empty() => {}
            3 | 4 => {
                if let Some(waker) = &*real[id].waker.borrow() {
                    waker.wake_by_ref();
                    model.wake(id, at_home);
                }
            }
            5 => {
                let waker = real[id].waker.borrow().clone();
                if let Some(waker) = waker {
                    thread::spawn(move || waker.wake()).join().unwrap();
                    model.wake(id, false);
                }
            }
            6 => {
                real[id].abort.abort();
                model.abort(id, at_home);
            }
            7 => {
                if let Some(handle) = real[id].handle.take() {
                    drop(handle);
                    let task = &mut model.tasks[id];
                    task.handle = false;
                    if task.done && !task.cancelled && !task.panicked {
                        model.trace.push("drop output".to_string());
                    }
                }
            }
            8 => {
                let all = [Next::WakeAndWait, Next::AbortAndWait, Next::Finish, Next::Panic];
                real[id].next.set(all[random.below(all.len())]);
            }
            _ => {
                if matches!(real[id].next.get(), Next::WakeAndWait) {
                    real[id].next.set(Next::Wait);
                }
                let budget = random.below(6);
                let inner = executor.enter(); // as block_on does; a wake in a poll is at home
                let flow = executor.run_ready(budget as u32, &main, &mut |_| unreachable!());
                assert!(flow.is_continue());
                drop(inner);
                model.run(budget, |id| real[id].next.get());
            }
        }
        assert_eq!(*trace.borrow(), model.trace, "seed {seed}, step {step}");
        assert_eq!(executor.is_idle(), model.queue.is_empty() && model.inbox.is_empty());
        assert_eq!(executor.tasks(), model.tasks.iter().filter(|task| !task.done).count());
        for (real, sketch) in real.iter().zip(&model.tasks) {
            assert_eq!(real.abort.is_finished(), sketch.done);
        }
    }
    let alive: Vec<_> = (0..real.len()).filter(|id| !model.tasks[*id].done).collect();
    trace.borrow_mut().clear();
    executor.close();
    let dropped: Vec<_> = alive.iter().map(|id| format!("drop {id}")).collect();
    assert_eq!(*trace.borrow(), dropped, "spawn order, seed {seed}");
    drop(entered);
    drop(main);
    drop(executor);
    for (real, sketch) in real.iter_mut().zip(&model.tasks) {
        let waker = real.waker.take();
        let Some(handle) = &mut real.handle else { continue };
        match answer(handle) {
            Ok(_) => assert!(sketch.done && !sketch.cancelled && !sketch.panicked),
            Err(error) if error.is_panic() => assert!(sketch.panicked),
            Err(_) => assert!(sketch.cancelled || !sketch.done),
        }
        waker.into_iter().for_each(Waker::wake);
    }
}
