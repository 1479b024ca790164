//! The standard streams where a call of them may wait: under epoll, and for files and terminals that
//! no engine can wait for. Each has a thread of its own, which begins when it is needed and ends after
//! some seconds without work. And what was read ahead of stdin and not used, by either engine.
//!
//! stdin is read only while a call waits for it. When there is none any more, the thread leaves its
//! poll(2), so the next line is for the next program. What is sent is copied: a piece that the thread
//! has begun goes out whole, whatever becomes of its future.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::pool::{IDLE, no_thread};
use crate::deferred::Deferred;
use crate::queue::{WaiterId, Waiters};
use crate::sys::signal::{spawn_without_signals, unblock};
use crate::sys::standard::{self, Standard};
use crate::sys::{eventfd, eventfd_add, eventfd_clear};

/// How much the thread reads at a time: what a pipe holds.
const PIECE_LEN: usize = 64 * 1024;

/// How long the drop of a stream waits for what was queued.
const DROP_WAIT: Duration = Duration::from_millis(100);

/// What stops a program that uses the terminal from the background: it must reach the thread.
const JOB_CONTROL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

static INPUT: OfProcess<Input> = OfProcess::new();
static OUTPUT: OfProcess<Output> = OfProcess::new();
static ERRORS: OfProcess<Output> = OfProcess::new();

/// stdin, as this process has it.
pub(crate) fn input() -> &'static Input {
    INPUT.get()
}

/// stdout or stderr, as this process has it.
pub(crate) fn output(stream: Standard) -> &'static Output {
    match stream {
        Standard::Output => OUTPUT.get(),
        Standard::Error => ERRORS.get(),
        Standard::Input => unreachable!("stdin is not written"),
    }
}

/// A state of the process. A forked child begins with a new one: of the old one a thread of the parent
/// may hold the lock, for ever.
struct OfProcess<T: 'static> {
    first: OnceLock<State<T>>,
}

struct State<T: 'static> {
    process: u32,
    value: T,
    next: OnceLock<&'static State<T>>,
}

impl<T: Default> State<T> {
    fn new() -> State<T> {
        State { process: std::process::id(), value: T::default(), next: OnceLock::new() }
    }
}

impl<T: Default> OfProcess<T> {
    const fn new() -> OfProcess<T> {
        OfProcess { first: OnceLock::new() }
    }

    fn get(&'static self) -> &'static T {
        let process = std::process::id();
        let mut state = self.first.get_or_init(State::new);
        while state.process != process {
            state = state.next.get_or_init(|| Box::leak(Box::new(State::new())));
        }
        &state.value
    }
}

/// What callers and the thread of a stream share.
#[derive(Default)]
struct Guarded<S> {
    state: Mutex<S>,
    /// Notified when the thread may have something to do.
    work: Condvar,
}

impl<S> Guarded<S> {
    fn lock(&self) -> MutexGuard<'_, S> {
        // No foreign code runs under the lock, so it is never poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` under the lock. What it puts into the `Deferred` is done afterwards.
    fn change<T>(&self, change: impl FnOnce(&mut S, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.lock(), &mut deferred);
        deferred.run();
        result
    }

    /// The thread has nothing to do, and waits for work. True: it has waited long enough.
    fn idle<'a>(&'a self, state: MutexGuard<'a, S>) -> (MutexGuard<'a, S>, bool) {
        let wait = self.work.wait_timeout(state, IDLE);
        let (state, waited) = wait.unwrap_or_else(PoisonError::into_inner);
        (state, waited.timed_out())
    }
}

/// Starts the thread of a stream.
fn start(stream: Standard, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let run = || {
        unblock(&JOB_CONTROL);
        run();
    };
    let name = format!("tamam-{}", stream.name());
    spawn_without_signals(&name, run).map_err(|error| no_thread(&error))
}

// ---- stdin --------------------------------------------------------------------------------------

#[derive(Default)]
pub(crate) struct Input {
    guarded: Guarded<InputState>,
}

#[derive(Default)]
struct InputState {
    unread: VecDeque<u8>,
    /// EOF or an errno behind `unread`, until a call has been told.
    ending: Option<Result<(), i32>>,
    /// Those that wait for one of these.
    waiters: Waiters,
    has_thread: bool,
    /// It takes the thread out of its poll(2). There while a stream is open.
    bell: Option<Arc<OwnedFd>>,
    open: usize,
}

impl InputState {
    fn has_answer(&self) -> bool {
        !self.unread.is_empty() || self.ending.is_some()
    }

    fn is_wanted(&self) -> bool {
        !self.waiters.is_empty() && !self.has_answer()
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            let _ = eventfd_add(bell.as_fd()); // its count is never full
        }
    }
}

impl Input {
    /// A stream is open from now on, until [`close`](Self::close).
    pub(crate) fn open(&self) -> io::Result<()> {
        let mut state = self.guarded.lock();
        if state.bell.is_none() {
            state.bell = Some(Arc::new(eventfd()?));
        }
        state.open += 1;
        Ok(())
    }

    pub(crate) fn close(&self) {
        let mut state = self.guarded.lock();
        state.open -= 1;
        state.ring();
        if state.open == 0 {
            state.bell = None;
        }
    }

    /// Takes the bytes that were read and not used.
    pub(crate) fn take_unread(&self) -> Vec<u8> {
        mem::take(&mut self.guarded.lock().unread).into()
    }

    /// Takes EOF or an errno, if it comes next.
    pub(crate) fn take_ending(&self) -> Option<Result<(), i32>> {
        let mut state = self.guarded.lock();
        if state.unread.is_empty() { state.ending.take() } else { None }
    }

    /// Gives bytes back that no call has used: they are the next to be read.
    pub(crate) fn put_back(&self, bytes: &[u8]) {
        self.guarded.change(|state, deferred| {
            for byte in bytes.iter().rev() {
                state.unread.push_front(*byte);
            }
            state.waiters.wake(deferred);
        });
    }

    pub(crate) fn has_answer(&self) -> bool {
        self.guarded.lock().has_answer()
    }

    /// Makes sure that there is a thread.
    pub(crate) fn start(&'static self) -> io::Result<()> {
        let mut state = self.guarded.lock();
        if !state.has_thread {
            start(Standard::Input, || self.run())?;
            state.has_thread = true;
        }
        Ok(())
    }

    /// The next answer wakes the future `id`, and the thread reads until there is one.
    pub(crate) fn wait(&self, id: &mut Option<WaiterId>, waker: Waker) {
        self.guarded.change(|state, deferred| state.waiters.register(id, waker, deferred));
        self.guarded.work.notify_one();
    }

    pub(crate) fn stop_waiting(&self, id: Option<WaiterId>) {
        self.guarded.change(|state, deferred| {
            state.waiters.remove(id, deferred);
            if state.waiters.is_empty() {
                state.ring();
            }
        });
    }

    pub(crate) fn wake(&self) {
        self.guarded.change(|state, deferred| state.waiters.wake(deferred));
    }

    /// What the thread runs.
    fn run(&self) {
        let mut state = self.guarded.lock();
        loop {
            let Some(bell) = state.bell.clone().filter(|_| state.is_wanted()) else {
                let is_over;
                (state, is_over) = self.guarded.idle(state);
                if is_over && !state.is_wanted() {
                    state.has_thread = false;
                    return;
                }
                continue;
            };
            drop(state);
            let is_ready = standard::wait_for_input(bell.as_fd());
            eventfd_clear(bell.as_fd());
            drop(bell);
            // What the bell has said comes first: the input may be for another program by now.
            let is_wanted = self.guarded.lock().is_wanted();
            let read = match is_ready {
                Ok(is_ready) if is_ready && is_wanted => read_piece(),
                Ok(_) => None,
                Err(error) => failed(&error),
            };
            self.guarded.change(|state, deferred| {
                match read {
                    None => return,
                    Some(Ok(bytes)) if bytes.is_empty() => state.ending = Some(Ok(())),
                    Some(Ok(bytes)) => state.unread.extend(bytes),
                    Some(Err(errno)) => state.ending = Some(Err(errno)),
                }
                state.waiters.wake(deferred);
            });
            state = self.guarded.lock();
        }
    }
}

/// Reads what is there; no bytes are EOF. `None`: there is nothing after all.
fn read_piece() -> Option<Result<Vec<u8>, i32>> {
    let mut memory = vec![0; PIECE_LEN];
    match standard::read(Standard::Input, &mut memory) {
        Ok(len) => {
            memory.truncate(len);
            Some(Ok(memory))
        }
        Err(error) => failed(&error),
    }
}

/// What an error of stdin means, as an answer of [`read_piece`].
fn failed(error: &io::Error) -> Option<Result<Vec<u8>, i32>> {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::EINTR | libc::EAGAIN => None,
        libc::EBADF if Standard::Input.is_closed() => Some(Ok(Vec::new())), // as /dev/null
        errno => Some(Err(errno)),
    }
}

// ---- stdout and stderr --------------------------------------------------------------------------

#[derive(Default)]
pub(crate) struct Output {
    guarded: Guarded<OutputState>,
    /// Notified when a piece is out.
    progress: Condvar,
}

#[derive(Default)]
struct OutputState {
    /// In order. What is out and has a future is here until that takes the result.
    pieces: BTreeMap<PieceId, Piece>,
    next: u64,
    /// The bytes of pieces that are not out.
    unsent: usize,
    /// The first failure stays until no stream is open.
    failure: Option<i32>,
    /// Those that wait until something is out.
    waiters: Waiters,
    has_thread: bool,
    open: usize,
}

/// The name of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PieceId(u64);

struct Piece {
    /// Empty while the thread has them.
    bytes: Vec<u8>,
    len: usize,
    stage: PieceStage,
    /// Of its future; `None`: it has none.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceStage {
    Queued,
    Writing,
    Out(Written),
}

/// What became of a piece: how many bytes were written, and why not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) len: usize,
    pub(crate) errno: Option<i32>,
}

impl OutputState {
    /// Ends a piece. One without a future is forgotten.
    fn finish(&mut self, id: PieceId, written: Written, deferred: &mut Deferred) {
        let piece = self.pieces.get_mut(&id).expect("a piece stays until it is out");
        self.unsent -= piece.len;
        piece.stage = PieceStage::Out(written);
        piece.bytes = Vec::new();
        match piece.waker.take() {
            Some(waker) => deferred.wake(waker),
            None => drop(self.pieces.remove(&id)),
        }
    }

    /// A piece has no future any more. If it is out, it is forgotten.
    fn detach(&mut self, id: PieceId, deferred: &mut Deferred) {
        let Some(piece) = self.pieces.get_mut(&id) else { return };
        if let Some(waker) = piece.waker.take() {
            deferred.discard(waker);
        }
        if matches!(piece.stage, PieceStage::Out(_)) {
            self.pieces.remove(&id);
        }
    }

    /// Takes the next piece to write.
    fn begin(&mut self) -> Option<(PieceId, Vec<u8>)> {
        let (id, piece) =
            self.pieces.iter_mut().find(|(_, piece)| piece.stage == PieceStage::Queued)?;
        piece.stage = PieceStage::Writing;
        Some((*id, mem::take(&mut piece.bytes)))
    }

    /// A piece could not be written: those behind it fail too.
    fn fail(&mut self, errno: i32, deferred: &mut Deferred) {
        self.failure.get_or_insert(errno);
        let queued =
            |(id, piece): (&PieceId, &Piece)| (piece.stage == PieceStage::Queued).then_some(*id);
        let all: Vec<PieceId> = self.pieces.iter().filter_map(queued).collect();
        for id in all {
            self.finish(id, Written { len: 0, errno: Some(errno) }, deferred);
        }
    }
}

impl Output {
    /// A stream is open from now on, until [`close`](Self::close).
    pub(crate) fn open(&self) {
        self.guarded.lock().open += 1;
    }

    /// Waits a moment for what is queued, as the process may end behind it. The thread goes on.
    pub(crate) fn close(&self) {
        let mut state = self.guarded.lock();
        let last = PieceId(state.next);
        while state
            .pieces
            .range(..last)
            .any(|(_, piece)| !matches!(piece.stage, PieceStage::Out(_)))
        {
            let wait = self.progress.wait_timeout(state, DROP_WAIT);
            let (again, waited) = wait.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if waited.timed_out() {
                break;
            }
        }
        state.open -= 1;
        if state.open == 0 {
            state.failure = None;
        }
    }

    /// The errno that ended this stream.
    pub(crate) fn failure(&self) -> Option<i32> {
        self.guarded.lock().failure
    }

    /// How many bytes are not out.
    pub(crate) fn unsent(&self) -> usize {
        self.guarded.lock().unsent
    }

    /// Makes sure that there is a thread.
    pub(crate) fn start(&'static self, stream: Standard) -> io::Result<()> {
        let mut state = self.guarded.lock();
        if !state.has_thread {
            start(stream, move || self.run(stream))?;
            state.has_thread = true;
        }
        Ok(())
    }

    /// Queues a piece. `waker`: that of its future, which takes the result.
    pub(crate) fn push(&self, bytes: Vec<u8>, waker: Option<Waker>) -> PieceId {
        let mut state = self.guarded.lock();
        let id = PieceId(state.next);
        state.next += 1;
        let len = bytes.len();
        state.unsent += len;
        state.pieces.insert(id, Piece { bytes, len, stage: PieceStage::Queued, waker });
        drop(state);
        self.guarded.work.notify_one();
        id
    }

    /// Takes the result of a piece, or has its end wake `waker`.
    pub(crate) fn poll(&self, id: PieceId, waker: Waker) -> Option<Written> {
        self.guarded.change(|state, deferred| {
            let piece = state.pieces.get_mut(&id).expect("a piece stays until its future is gone");
            let replaced = match piece.stage {
                PieceStage::Out(written) => {
                    state.pieces.remove(&id);
                    deferred.discard(waker);
                    return Some(written);
                }
                PieceStage::Queued | PieceStage::Writing => piece.waker.replace(waker),
            };
            if let Some(replaced) = replaced {
                deferred.discard(replaced);
            }
            None
        })
    }

    /// The future of a piece is gone. What was not begun is not written. True: nothing of it was, and
    /// nothing will be.
    pub(crate) fn abandon(&self, id: PieceId) -> bool {
        self.guarded.change(|state, deferred| {
            let stage = state.pieces.get(&id).map(|piece| piece.stage);
            state.detach(id, deferred);
            if stage != Some(PieceStage::Queued) {
                return matches!(stage, Some(PieceStage::Out(Written { len: 0, .. })));
            }
            let withdrawn = state.pieces.remove(&id).expect("what is queued stays");
            state.unsent -= withdrawn.len;
            true
        })
    }

    /// No future waits for the piece any more, and it goes out.
    pub(crate) fn detach(&self, id: PieceId) {
        self.guarded.change(|state, deferred| state.detach(id, deferred));
    }

    /// Progress wakes the future `id`. False: nothing is under way that would bring any.
    pub(crate) fn wait(&self, id: &mut Option<WaiterId>, waker: Waker) -> bool {
        self.guarded.change(|state, deferred| {
            state.waiters.register(id, waker, deferred);
            state.unsent > 0
        })
    }

    pub(crate) fn stop_waiting(&self, id: Option<WaiterId>) {
        self.guarded.change(|state, deferred| state.waiters.remove(id, deferred));
    }

    pub(crate) fn wake(&self) {
        self.guarded.change(|state, deferred| state.waiters.wake(deferred));
    }

    /// What the thread runs.
    fn run(&self, stream: Standard) {
        let mut state = self.guarded.lock();
        loop {
            let Some((id, bytes)) = state.begin() else {
                let is_over;
                (state, is_over) = self.guarded.idle(state);
                if is_over && state.unsent == 0 {
                    state.has_thread = false;
                    return;
                }
                continue;
            };
            drop(state);
            let written = write_all(stream, &bytes);
            drop(bytes);
            self.guarded.change(|state, deferred| {
                state.finish(id, written, deferred);
                if let Some(errno) = written.errno {
                    state.fail(errno, deferred);
                }
                state.waiters.wake(deferred);
            });
            self.progress.notify_all();
            state = self.guarded.lock();
        }
    }
}

fn write_all(stream: Standard, bytes: &[u8]) -> Written {
    let mut len = 0;
    while len < bytes.len() {
        let errno = match standard::write(stream, &bytes[len..]) {
            Ok(0) => libc::EIO,
            Ok(written) => {
                len += written;
                continue;
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        match errno {
            libc::EINTR => {}
            libc::EAGAIN => standard::wait_for_room(stream),
            libc::EBADF if stream.is_closed() => len = bytes.len(), // as /dev/null
            errno => return Written { len, errno: Some(errno) },
        }
    }
    Written { len, errno: None }
}
