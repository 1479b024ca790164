//! The standard streams: what was read ahead of stdin, and the threads that epoll needs for them.
//!
//! epoll can watch neither files nor what others share and O_NONBLOCK must not be set on. So a thread
//! of the pool waits in read(2) and write(2). For the engine a stream then looks like a socket:
//! [`read_now`] takes what the thread has read, [`write_now`] hands it what it is to write, and both
//! say EAGAIN in between. What the engine watches is an eventfd, made by [`subscribe`]: the thread adds
//! to it when another call gets further.
//!
//! stdin is read only while a call waits for it. When there is none any more, the thread leaves it
//! alone, so the next line is for the next program.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pool::{Lane, POOL};
use crate::sys::signal::{block, unblock};
use crate::sys::standard::{self, Standard};
use crate::sys::{eventfd, eventfd_add, eventfd_clear};

/// How much a thread reads, or takes to write, at a time: what a pipe holds.
const PIECE_LEN: usize = 64 * 1024;

/// What stops a program that uses the terminal from the background: it must reach the thread.
const JOB_CONTROL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

static INPUT: Input = Input { state: Mutex::new(InputState::new()) };
static OUTPUT: Output = Output::new(Standard::Output, Lane::Output);
static ERRORS: Output = Output::new(Standard::Error, Lane::Errors);

// ---- what connections call ----------------------------------------------------------------------

/// An eventfd for the engine to watch in the place of this stream. Its number is the name of the
/// subscriber.
pub(crate) fn subscribe(stream: Standard) -> io::Result<OwnedFd> {
    let watched = standard::keep_numbers_free(eventfd()?)?;
    let subscriber =
        Subscriber { id: watched.as_raw_fd(), bell: watched.try_clone()?, waits: false };
    with_subscribers(stream, |subscribers| subscribers.0.push(subscriber));
    Ok(watched)
}

/// `fd` is about to be closed, and may be a subscriber.
pub(crate) fn unsubscribe(stream: Standard, fd: BorrowedFd<'_>) {
    settle(stream, fd.as_raw_fd());
    with_subscribers(stream, |subscribers| subscribers.0.retain(|one| one.id != fd.as_raw_fd()));
    if stream == Standard::Input {
        INPUT.lock().leave_alone();
    }
}

/// Takes what was read of stdin and not used by anyone.
pub(crate) fn take_unread() -> Vec<u8> {
    mem::take(&mut INPUT.lock().unread).into()
}

/// Gives bytes of stdin back: they are the next to be read.
pub(crate) fn put_back(bytes: &[u8]) {
    let mut state = INPUT.lock();
    for byte in bytes.iter().rev() {
        state.unread.push_front(*byte);
    }
}

/// read(2) of stdin as a non-blocking descriptor has it. `take` gets bytes in order and says how many
/// it has taken. 0 is EOF.
pub(crate) fn read_now(id: RawFd, take: impl FnOnce(&[u8]) -> usize) -> io::Result<u32> {
    INPUT.read_now(id, take)
}

/// writev(2) as a non-blocking descriptor has it. What it returns has been written. After an EAGAIN
/// the caller comes again with the same bytes, or calls [`settle`].
pub(crate) fn write_now(stream: Standard, id: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<u32> {
    output(stream).write_now(id, pieces)
}

/// The caller of [`write_now`] does not come again. Returns how many bytes were written, or will be.
pub(crate) fn settle(stream: Standard, id: RawFd) -> u32 {
    if stream == Standard::Input { 0 } else { output(stream).settle(id) }
}

/// Writes what there is room for, when a connection is closed. Returns how many bytes it took. `fd`
/// is the stream, or its subscriber; then what a thread is writing goes first.
pub(crate) fn write_last(stream: Standard, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut state = output(stream).lock();
    if !state.subscribers.has(fd.as_raw_fd()) {
        return standard::write_now(fd, bytes);
    }
    if state.is_writing {
        state.behind.extend_from_slice(bytes);
        return Ok(bytes.len());
    }
    standard::write_now(stream.fd(), bytes)
}

fn output(stream: Standard) -> &'static Output {
    match stream {
        Standard::Output => &OUTPUT,
        Standard::Error => &ERRORS,
        Standard::Input => unreachable!("stdin is not written"),
    }
}

fn with_subscribers(stream: Standard, change: impl FnOnce(&mut Subscribers)) {
    match stream {
        Standard::Input => change(&mut INPUT.lock().subscribers),
        stream => change(&mut output(stream).lock().subscribers),
    }
}

/// The engine passes on nothing but an errno. This one is shown once: the lack may be over soon.
fn no_thread(_: io::Error) -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEM)
}

// ---- subscribers --------------------------------------------------------------------------------

/// Those whose engine watches an eventfd.
struct Subscribers(Vec<Subscriber>);

struct Subscriber {
    /// The number of the eventfd that the engine watches.
    id: RawFd,
    /// A duplicate of it.
    bell: OwnedFd,
    /// A read of it has found nothing.
    waits: bool,
}

impl Subscribers {
    fn has(&self, id: RawFd) -> bool {
        self.0.iter().any(|one| one.id == id)
    }

    /// Has all try again.
    fn ring(&mut self) {
        for one in &mut self.0 {
            one.waits = false;
            let _ = eventfd_add(one.bell.as_fd()); // its count is never full
        }
    }
}

// ---- stdin --------------------------------------------------------------------------------------

struct Input {
    state: Mutex<InputState>,
}

struct InputState {
    /// The process that started the thread. A forked child inherits the state, but no thread.
    process: u32,
    unread: VecDeque<u8>,
    /// EOF or an errno behind `unread`, until a read has been told.
    ending: Option<Result<(), i32>>,
    /// There while a thread reads. It takes the thread out of its wait.
    bell: Option<Arc<OwnedFd>>,
    subscribers: Subscribers,
}

impl InputState {
    const fn new() -> InputState {
        InputState {
            process: 0,
            unread: VecDeque::new(),
            ending: None,
            bell: None,
            subscribers: Subscribers(Vec::new()),
        }
    }

    fn is_wanted(&self) -> bool {
        self.subscribers.0.iter().any(|one| one.waits)
    }

    /// Takes the thread out of its wait if no one waits for it.
    fn leave_alone(&self) {
        if let Some(bell) = self.bell.as_ref().filter(|_| !self.is_wanted()) {
            let _ = eventfd_add(bell.as_fd()); // its count is never full
        }
    }
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, InputState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if mem::replace(&mut state.process, process) != process {
            state.bell = None;
        }
        state
    }

    fn read_now(&'static self, id: RawFd, take: impl FnOnce(&[u8]) -> usize) -> io::Result<u32> {
        let mut state = self.lock();
        if !state.unread.is_empty() {
            let taken = take(state.unread.as_slices().0);
            state.unread.drain(..taken);
            return Ok(taken as u32);
        }
        if let Some(ending) = state.ending.take() {
            return ending.map(|()| 0).map_err(io::Error::from_raw_os_error);
        }
        for one in state.subscribers.0.iter_mut().filter(|one| one.id == id) {
            one.waits = true;
        }
        if state.bell.is_none() {
            let bell = Arc::new(standard::keep_numbers_free(eventfd()?)?);
            let threads = bell.clone();
            let submitted = POOL.submit(Lane::Input, Box::new(move || self.read(&threads)));
            submitted.map_err(no_thread)?;
            state.bell = Some(bell);
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// What the thread runs: one read, unless no one waits for it any more.
    fn read(&self, bell: &OwnedFd) {
        unblock(&JOB_CONTROL);
        let read = self.wait_and_read(bell);
        block(&JOB_CONTROL);
        let mut state = self.lock();
        match read {
            None => return, // the wait has put `bell` away
            Some(Ok(bytes)) if !bytes.is_empty() => state.unread.extend(bytes),
            Some(Ok(_)) => state.ending = Some(Ok(())),
            Some(Err(libc::EBADF)) => state.ending = Some(Ok(())), // it is closed, which is as empty
            Some(Err(errno)) => state.ending = Some(Err(errno)),
        }
        state.bell = None;
        state.subscribers.ring();
    }

    /// `None`: no one waits any more.
    fn wait_and_read(&self, bell: &OwnedFd) -> Option<Result<Vec<u8>, i32>> {
        loop {
            let is_ready = standard::wait(Standard::Input, Some(bell.as_fd()));
            eventfd_clear(bell.as_fd());
            let mut state = self.lock();
            if !state.is_wanted() {
                state.bell = None;
                return None;
            }
            drop(state);
            if !is_ready {
                continue;
            }
            let mut memory = vec![0; PIECE_LEN];
            match standard::read(Standard::Input, &mut memory) {
                Ok(len) => {
                    memory.truncate(len);
                    return Some(Ok(memory));
                }
                Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                    libc::EINTR | libc::EAGAIN => {}
                    errno => return Some(Err(errno)),
                },
            }
        }
    }
}

// ---- stdout and stderr --------------------------------------------------------------------------

struct Output {
    stream: Standard,
    lane: Lane,
    state: Mutex<OutputState>,
}

struct OutputState {
    /// As for stdin.
    process: u32,
    handed: HandedPiece,
    /// A thread writes.
    is_writing: bool,
    /// What it writes next, and no subscriber waits for.
    behind: Vec<u8>,
    subscribers: Subscribers,
}

/// The piece that a subscriber has handed over.
#[derive(Clone, Copy, Debug)]
enum HandedPiece {
    Nothing,
    /// The thread has it. `owner`: the subscriber, until it settles.
    Writing {
        owner: Option<RawFd>,
        len: usize,
    },
    /// So much of it was written, or nothing because of this errno.
    Written {
        owner: RawFd,
        result: Result<usize, i32>,
    },
}

impl Output {
    const fn new(stream: Standard, lane: Lane) -> Output {
        let state = OutputState {
            process: 0,
            handed: HandedPiece::Nothing,
            is_writing: false,
            behind: Vec::new(),
            subscribers: Subscribers(Vec::new()),
        };
        Output { stream, lane, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, OutputState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if mem::replace(&mut state.process, process) != process {
            // What the thread had is the parent's to write.
            (state.handed, state.is_writing) = (HandedPiece::Nothing, false);
            state.behind.clear();
        }
        state
    }

    fn write_now(&'static self, id: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<u32> {
        let mut state = self.lock();
        let mut written = 0;
        match state.handed {
            HandedPiece::Written { owner, result } if owner == id => {
                state.handed = HandedPiece::Nothing;
                written = result.map_err(io::Error::from_raw_os_error)?;
            }
            _ => {}
        }
        let piece = if state.is_writing { Vec::new() } else { first_bytes(pieces, written) };
        if !piece.is_empty() {
            let len = piece.len();
            let submitted = POOL.submit(self.lane, Box::new(move || self.write(piece)));
            match submitted {
                Ok(()) => {
                    state.handed = HandedPiece::Writing { owner: Some(id), len };
                    state.is_writing = true;
                }
                Err(error) if written == 0 => return Err(no_thread(error)),
                Err(_) => {} // the next call says it
            }
        } else if written > 0 {
            state.subscribers.ring(); // it is another's turn
        }
        match written {
            0 => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            written => Ok(written as u32),
        }
    }

    fn settle(&self, id: RawFd) -> u32 {
        let mut state = self.lock();
        let (handed, settled) = match state.handed {
            HandedPiece::Writing { owner: Some(owner), len } if owner == id => {
                (HandedPiece::Writing { owner: None, len }, len)
            }
            HandedPiece::Written { owner, result } if owner == id => {
                state.subscribers.ring();
                (HandedPiece::Nothing, result.unwrap_or(0))
            }
            handed => (handed, 0),
        };
        state.handed = handed;
        settled as u32
    }

    /// What the thread runs: writes `piece`, and what comes behind it meanwhile.
    fn write(&self, mut piece: Vec<u8>) {
        unblock(&JOB_CONTROL);
        loop {
            let result = self.write_all(&piece);
            let mut state = self.lock();
            if let HandedPiece::Writing { owner, .. } = state.handed {
                state.handed = match owner {
                    Some(owner) => HandedPiece::Written { owner, result },
                    None => HandedPiece::Nothing,
                };
            }
            piece = mem::take(&mut state.behind);
            if piece.is_empty() {
                state.is_writing = false;
                state.subscribers.ring();
                break;
            }
        }
        block(&JOB_CONTROL);
    }

    /// How many bytes were written; an errno if none were.
    fn write_all(&self, piece: &[u8]) -> Result<usize, i32> {
        let mut written = 0;
        while written < piece.len() {
            match standard::write(self.stream, &piece[written..]) {
                Ok(0) => return if written > 0 { Ok(written) } else { Err(libc::EIO) },
                Ok(len) => written += len,
                Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                    libc::EINTR => {}
                    libc::EAGAIN => _ = standard::wait(self.stream, None),
                    // It is closed, which takes everything as /dev/null does.
                    libc::EBADF => return Ok(piece.len()),
                    _ if written > 0 => break, // the next write says it
                    errno => return Err(errno),
                },
            }
        }
        Ok(written)
    }
}

/// What is to be handed over of these pieces: their bytes from `from` on, at most [`PIECE_LEN`].
fn first_bytes(pieces: &[IoSlice<'_>], mut from: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let skipped = from.min(piece.len());
        from -= skipped;
        let rest = &piece[skipped..];
        bytes.extend_from_slice(&rest[..rest.len().min(PIECE_LEN - bytes.len())]);
    }
    bytes
}
