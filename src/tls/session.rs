//! What a TLS connection is between two futures: the engine, the TCP stream, and what waits.
//!
//! ```text
//!            recv, read                                   send, write, shutdown
//!                ▲                                                 │
//!   plain: decrypted, not taken                 writes: whole buffers, in order of first polls
//!                ▲                                                 ▼
//!                └──────────────── Engine: feed │ write ───────────┘
//!                                     ▲         │
//!           TcpStream::recv ──────────┘         └──► Connection::send_detached
//! ```
//!
//! No future owns anything. Ciphertext that came is fed in the poll that takes it, plaintext that is
//! encrypted is handed to TCP in the same poll, and what is handed to TCP goes out whatever becomes
//! of its future. So a future that is dropped at any point loses nothing and sends nothing twice.
//!
//! Whoever is polled moves everything there is to move, other futures' buffers too. Only a buffer
//! whose future is gone midway, and an end that nobody waits for, get a task ([`Pump`]).
//!
//! Each `poll_` function does one step for a future of any kind: those of `stream.rs`, and the
//! traits of other crates.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use super::TlsInfo;
use super::engine::{BATCH_LEN, Engine, Failure};
use crate::buf::{Chunk, Outgoing};
use crate::context;
use crate::executor::AbortHandle;
use crate::net::{TcpStream, WaiterId};

/// Nothing more is encrypted while TCP has more ciphertext than this: one batch is in flight, and
/// one is ready to follow it.
const AHEAD_LEN: usize = BATCH_LEN + BATCH_LEN / 16;

/// How many batches are encrypted in one go: as many as TCP has room for where it does not send at
/// once; where it does, others want their turn.
const BATCHES: usize = 4;

pub(crate) struct Session {
    tcp: TcpStream,
    /// Taken out while it works: what it calls (verifiers, session stores, loggers) is foreign
    /// code. `None` for good if that has panicked.
    engine: Cell<Option<Box<Engine>>>,
    /// Decrypted and not taken, in order. Bounded by what one chunk of TCP's brings: no other is
    /// taken while there is something here.
    pub(super) plain: RefCell<VecDeque<Chunk>>,
    pub(super) writes: RefCell<Writes>,
    info: OnceCell<TlsInfo>,
}

/// The sending side.
pub(super) struct Writes {
    /// In order of first polls: encrypted and not yet collected, encrypting, waiting.
    entries: VecDeque<Entry>,
    next_id: u64,
    /// How much ciphertext TCP was given, in all.
    pub(super) queued: u64,
    closing: Closing,
    pump: Option<AbortHandle>,
}

/// A buffer on its way through the engine.
struct Entry {
    id: u64,
    /// `None` only while a part of it is being encrypted.
    outgoing: Option<Outgoing>,
    /// How much of it is encrypted.
    done: usize,
    /// What `queued` was when the last of it was encrypted.
    end: u64,
    state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    /// Its future lives, or was forgotten.
    Live,
    /// Its future was dropped when a part of it was encrypted: the rest must follow.
    Abandoned,
    /// All of it is encrypted, or nothing more of it will be.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// When everything is encrypted, the end is said.
    Asked,
    /// It is said, and TCP was asked to end too.
    Done,
}

/// What a buffer that was sent comes back with.
pub(super) struct Report {
    pub(super) sent: usize,
    pub(super) error: Option<io::Error>,
    pub(super) outgoing: Outgoing,
}

impl Session {
    pub(super) fn new(tcp: TcpStream, engine: Engine) -> Session {
        Session {
            tcp,
            engine: Cell::new(Some(Box::new(engine))),
            plain: RefCell::default(),
            writes: RefCell::new(Writes {
                entries: VecDeque::new(),
                next_id: 0,
                queued: 0,
                closing: Closing::No,
                pump: None,
            }),
            info: OnceCell::new(),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What the handshake came to, once it is over.
    pub(super) fn info(&self) -> &TlsInfo {
        self.info.get().expect("the handshake is over before there is a stream")
    }

    /// Lets the engine work; `None` if it is at work already, or a panic has ended it.
    fn with_engine<T>(&self, work: impl FnOnce(&mut Engine) -> T) -> Option<T> {
        let mut engine = self.engine.take()?;
        let result = work(&mut engine);
        self.engine.set(Some(engine));
        Some(result)
    }

    /// What the engine has failed with.
    fn failure(&self) -> Option<io::Error> {
        match self.with_engine(|engine| engine.failure().map(Failure::to_io)) {
            Some(failure) => failure,
            None => Some(io::Error::other("a panic in what TLS calls has ended this connection")),
        }
    }

    /// As [`failure`](Self::failure), for the sending side: what is sent after a truncation may still
    /// arrive.
    fn broken(&self) -> Option<io::Error> {
        match self.with_engine(|engine| engine.failure().cloned()) {
            Some(None | Some(Failure::Truncated { .. })) => None,
            _ => self.failure(),
        }
    }

    // ---- the handshake ----------------------------------------------------------------------

    /// Until both sides may send. Without a timeout; ciphertext that came before comes in `first`.
    pub(super) async fn handshake(self: &Rc<Self>, first: Vec<u8>) -> io::Result<()> {
        if !first.is_empty() {
            self.feed(Chunk::from(first));
        }
        loop {
            self.flush();
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            let over = self.with_engine(|engine| (!engine.is_handshaking()).then(|| engine.info()));
            if let Some(Some(info)) = over {
                let _ = self.info.set(info);
                return Ok(());
            }
            match self.tcp.recv().await? {
                Some(chunk) => self.feed(chunk),
                None => self.eof(),
            }
        }
    }

    // ---- receiving --------------------------------------------------------------------------

    /// Deals with ciphertext. Plaintext of whole records stays in the memory it came in.
    fn feed(&self, mut chunk: Chunk) {
        let fed = self.with_engine(|engine| {
            let range = engine.feed(&mut chunk);
            (range, engine.take_plain())
        });
        let Some((range, earlier)) = fed else { return };
        let mut plain = self.plain.borrow_mut();
        if !earlier.is_empty() {
            plain.push_back(Chunk::from(earlier));
        }
        let spent = if range.is_empty() {
            chunk
        } else {
            chunk.truncate(range.end);
            let spent = chunk.split_to(range.start);
            plain.push_back(chunk);
            spent
        };
        drop(plain);
        drop(spent);
        self.flush();
    }

    fn eof(&self) {
        self.with_engine(Engine::eof);
    }

    /// Hands TCP what the engine has to say. Away from home it stays until the next time; after
    /// TCP's end it is of no use.
    fn flush(&self) {
        let connection = self.tcp.connection();
        if !connection.is_home() {
            return;
        }
        let out = self.with_engine(
            |engine| {
                if engine.has_out() { engine.take_out() } else { Vec::new() }
            },
        );
        let out = out.unwrap_or_default();
        if out.is_empty() {
            return;
        }
        self.writes.borrow_mut().queued += out.len() as u64;
        let _ = connection.send_detached(out);
    }

    /// What a receive says when there is no plaintext: the end, or an error, for ever.
    fn ending(&self) -> Option<io::Result<()>> {
        if let Some(failure) = self.failure() {
            return Some(Err(failure));
        }
        let closed = self.with_engine(|engine| engine.peer_has_closed()).unwrap_or(true);
        closed.then_some(Ok(()))
    }

    /// Waits until there is plaintext (true) or the end (false). `next` gives TCP's next chunk.
    pub(super) fn poll_readable(
        &self,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            if !self.plain.borrow().is_empty() {
                return context::spend(cx).map(|()| Ok(true));
            }
            if let Some(ending) = self.ending() {
                return context::spend(cx).map(|()| ending.map(|()| false));
            }
            match ready!(next(cx))? {
                Some(chunk) => self.feed(chunk),
                None => self.eof(),
            }
        }
    }

    /// Waits for plaintext and takes one piece of it; `None` at the end.
    pub(super) fn poll_recv(
        &self,
        next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        Poll::Ready(match ready!(self.poll_readable(next, cx)) {
            Ok(true) => Ok(self.plain.borrow_mut().pop_front()),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Moves plaintext out, as far as `take` takes it: it is shown piece after piece, and says how
    /// many bytes of each it took.
    pub(super) fn take_plain(&self, mut take: impl FnMut(&[u8]) -> usize) {
        loop {
            let Some(mut chunk) = self.plain.borrow_mut().pop_front() else { return };
            let len = take(&chunk);
            if len < chunk.len() {
                drop(chunk.split_to(len));
                self.plain.borrow_mut().push_front(chunk);
                return;
            }
        }
    }

    /// Bytes that were taken, and were not wanted after all: they are first in line again.
    pub(super) fn put_back(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.plain.borrow_mut().push_front(Chunk::from(bytes.to_vec()));
        }
    }

    /// Nobody will receive any more.
    pub(super) fn end_recv(&self) {
        let plain = self.plain.take();
        drop(plain);
        self.tcp.connection().end_recv();
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Why nothing can be sent, if so.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        if self.writes.borrow().closing != Closing::No {
            return Some(io::Error::from_raw_os_error(libc::EPIPE));
        }
        self.broken().or_else(|| self.tcp.connection().check_sendable().err())
    }

    /// Encrypts `bytes` and hands them to TCP; false if that cannot be.
    pub(super) fn encrypt(&self, bytes: &[u8]) -> bool {
        if self.tcp.connection().check_sendable().is_err() {
            return false;
        }
        let written = self.with_engine(|engine| engine.write(bytes)) == Some(true);
        self.flush();
        written
    }

    /// New keys for what is sent from here on.
    pub(super) fn refresh_keys(&self) -> io::Result<()> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let is_done = self.with_engine(Engine::refresh_keys) == Some(true);
        self.flush();
        match is_done {
            true => Ok(()),
            false => Err(self.refusal().unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, "TLS 1.2 cannot change its keys")
            })),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.tcp.connection().unsent() <= AHEAD_LEN
    }

    /// Encrypts what waits, as far as TCP has room and others are not kept waiting, and says the end
    /// if it is its turn. Whether nothing waits any more.
    pub(super) fn drive(&self) -> bool {
        if !self.tcp.connection().is_home() {
            return false;
        }
        for _ in 0..BATCHES {
            let mut writes = self.writes.borrow_mut();
            let is_waiting = |entry: &&mut Entry| entry.state != EntryState::Finished;
            let Some(entry) = writes.entries.iter_mut().find(is_waiting) else {
                let is_asked = writes.closing == Closing::Asked;
                drop(writes);
                if is_asked {
                    self.close();
                }
                return true;
            };
            if !self.has_room() {
                return false;
            }
            let (id, done) = (entry.id, entry.done);
            let Some(outgoing) = entry.outgoing.take() else { return false };
            drop(writes);
            let len = encrypt_batch(&outgoing, done, |bytes| self.encrypt(bytes));
            let mut writes = self.writes.borrow_mut();
            let queued = writes.queued;
            let index = writes.entries.iter().position(|entry| entry.id == id);
            let Some(index) = index else { continue };
            let entry = &mut writes.entries[index];
            entry.done += len.unwrap_or(0);
            entry.end = queued;
            let is_over = len.is_none() || entry.done == outgoing.len();
            entry.outgoing = Some(outgoing);
            let spent = match entry.state {
                EntryState::Abandoned if is_over => writes.entries.remove(index),
                _ if is_over => {
                    entry.state = EntryState::Finished;
                    None
                }
                _ => None,
            };
            drop(writes);
            drop(spent);
        }
        false
    }

    /// Waits until TCP has room for more, and it is this task's turn.
    pub(super) fn poll_room(
        &self,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.tcp.connection().poll_unsent(AHEAD_LEN, waiter, cx)) {
            Ok(()) => context::spend(cx).map(Ok),
            Err(error) => context::spend(cx).map(|()| Err(error)),
        }
    }

    /// Waits until TCP has given the kernel all ciphertext up to `end`.
    pub(super) fn poll_out(
        &self,
        end: u64,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let behind = self.writes.borrow().queued - end;
        self.tcp.connection().poll_unsent(behind as usize, waiter, cx)
    }

    /// Asks for the end, and waits until it is said; then TCP's shutdown is to be waited for.
    /// Dropped, it is said all the same.
    pub(super) fn poll_end(
        self: &Rc<Self>,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.writes.borrow().closing != Closing::Done {
            if let Err(error) = self.tcp.connection().check_home() {
                return Poll::Ready(Err(error));
            }
            self.close_in_background();
        }
        loop {
            let closed = self.drive();
            if let Some(failure) = self.broken() {
                // It cannot be said any more; TCP's end says the rest.
                self.tcp.connection().ask_shutdown();
                return context::spend(cx).map(|()| Err(failure));
            }
            if closed {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_room(waiter, cx))?;
        }
    }

    fn ask_close(&self) {
        let mut writes = self.writes.borrow_mut();
        if writes.closing == Closing::No {
            writes.closing = Closing::Asked;
        }
    }

    /// Says the end. Everything before it is encrypted.
    fn close(&self) {
        let connection = self.tcp.connection();
        if connection.check_sendable().is_ok() {
            self.with_engine(Engine::close);
            self.flush();
        }
        self.writes.borrow_mut().closing = Closing::Done;
        connection.ask_shutdown();
    }

    /// Says the end when everything is out, without anyone waiting for it.
    pub(super) fn close_in_background(self: &Rc<Self>) {
        self.ask_close();
        if !self.tcp.connection().is_home() {
            // It cannot be said from here, so the peer takes the end for a truncation.
            self.tcp.connection().ask_shutdown();
        } else if !self.drive() {
            self.pump();
        }
    }

    /// Lets a task do what futures do otherwise.
    fn pump(self: &Rc<Self>) {
        let Some(handle) = context::current() else { return };
        if self.writes.borrow().pump.is_some() || self.tcp.connection().check_sendable().is_err() {
            return;
        }
        let pump = Pump { session: Rc::downgrade(self), waiter: None };
        let task = handle.executor.spawn(pump).abort_handle();
        self.writes.borrow_mut().pump = Some(task);
    }

    /// No future waits with this id any more.
    pub(super) fn stop_waiting(&self, waiter: Option<WaiterId>) {
        if waiter.is_some() {
            self.tcp.connection().stop_waiting_for_unsent(waiter);
        }
    }

    /// Queues a buffer. Nothing refuses it.
    fn push(&self, outgoing: Outgoing) -> u64 {
        let mut writes = self.writes.borrow_mut();
        let id = writes.next_id;
        writes.next_id += 1;
        let (outgoing, state) = (Some(outgoing), EntryState::Live);
        writes.entries.push_back(Entry { id, outgoing, done: 0, end: 0, state });
        id
    }

    /// Takes an entry out that is finished.
    fn collect(&self, id: u64) -> Option<Entry> {
        let mut writes = self.writes.borrow_mut();
        let is_mine = |entry: &Entry| entry.id == id && entry.state == EntryState::Finished;
        let index = writes.entries.iter().position(is_mine)?;
        writes.entries.remove(index)
    }

    /// Takes an entry out that is not finished, for a future that gives up. If a part of it is
    /// encrypted, a copy of the rest stays.
    fn take_back(&self, id: u64) -> Option<Outgoing> {
        let mut writes = self.writes.borrow_mut();
        let index = writes.entries.iter().position(|entry| entry.id == id)?;
        let entry = &mut writes.entries[index];
        let done = std::mem::take(&mut entry.done);
        if done == 0 || entry.state == EntryState::Finished {
            return writes.entries.remove(index)?.outgoing;
        }
        let outgoing = entry.outgoing.take()?;
        let rest: Vec<u8> = outgoing.pieces(done).flatten().copied().collect();
        entry.outgoing = Some(Outgoing::one(rest));
        entry.state = EntryState::Abandoned;
        Some(outgoing)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(pump) = &self.writes.get_mut().pump {
            pump.abort();
        }
    }
}

pub(super) fn not_possible() -> io::Error {
    io::Error::other("TLS cannot send at this point")
}

/// Encrypts the next batch of a buffer from `done` on: how much that was; `None` if it cannot be.
fn encrypt_batch(
    outgoing: &Outgoing,
    done: usize,
    encrypt: impl FnOnce(&[u8]) -> bool,
) -> Option<usize> {
    if let Some(bytes) = outgoing.as_one(done) {
        let bytes = &bytes[..bytes.len().min(BATCH_LEN)];
        encrypt(bytes).then_some(bytes.len())
    } else {
        // Many small pieces become few records.
        let mut batch = Vec::with_capacity(BATCH_LEN.min(outgoing.len() - done));
        for piece in outgoing.pieces(done) {
            let room = BATCH_LEN - batch.len();
            batch.extend_from_slice(&piece[..piece.len().min(room)]);
            if batch.len() == BATCH_LEN {
                break;
            }
        }
        encrypt(&batch).then_some(batch.len())
    }
}

/// Sends what nobody waits for. Ends when nothing waits, or with its session.
struct Pump {
    session: Weak<Session>,
    waiter: Option<WaiterId>,
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(session) = self.session.upgrade() else { return Poll::Ready(()) };
        while !session.drive() {
            if ready!(session.poll_room(&mut self.waiter, cx)).is_err() {
                break; // the next call says so
            }
        }
        session.writes.borrow_mut().pump = None;
        Poll::Ready(())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.stop_waiting(self.waiter);
        }
    }
}

/// The future of `send`, `send_all` and `sendv`.
pub(super) struct SendBuffer<'a, T> {
    session: &'a Rc<Session>,
    state: SendState,
    waiter: Option<WaiterId>,
    answer: fn(Report) -> T,
}

enum SendState {
    /// Not polled yet: nothing has happened.
    Start(Outgoing),
    /// Among the entries.
    Queued(u64),
    /// Encrypted; TCP has ciphertext up to the position, or will get no more of it.
    Encrypted {
        outgoing: Outgoing,
        sent: usize,
        end: u64,
    },
    Done,
}

/// No part of it is pinned.
impl<T> Unpin for SendBuffer<'_, T> {}

impl<'a, T> SendBuffer<'a, T> {
    pub(super) fn new(
        session: &'a Rc<Session>,
        outgoing: Outgoing,
        answer: fn(Report) -> T,
    ) -> Self {
        SendBuffer { session, state: SendState::Start(outgoing), waiter: None, answer }
    }

    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        let session = self.session;
        loop {
            match std::mem::replace(&mut self.state, SendState::Done) {
                SendState::Start(outgoing) => {
                    if context::spend(cx).is_pending() {
                        self.state = SendState::Start(outgoing);
                        return Poll::Pending;
                    }
                    let error = session.refusal();
                    if error.is_some() || outgoing.len() == 0 {
                        return Poll::Ready(Report { sent: 0, error, outgoing });
                    }
                    self.state = SendState::Queued(session.push(outgoing));
                }
                SendState::Queued(id) => {
                    session.drive();
                    if let Some(entry) = session.collect(id) {
                        let outgoing = entry.outgoing.expect("it is not being encrypted");
                        let (sent, end) = (entry.done, entry.end);
                        self.state = SendState::Encrypted { outgoing, sent, end };
                        continue;
                    }
                    self.state = SendState::Queued(id);
                    if let Err(error) = ready!(session.poll_room(&mut self.waiter, cx)) {
                        self.state = SendState::Done;
                        let outgoing = session.take_back(id);
                        let outgoing = outgoing.expect("an entry stays until it is collected");
                        return Poll::Ready(Report { sent: 0, error: Some(error), outgoing });
                    }
                }
                SendState::Encrypted { outgoing, sent, end } => {
                    let (sent, error) = match session.poll_out(end, &mut self.waiter, cx) {
                        Poll::Pending => {
                            self.state = SendState::Encrypted { outgoing, sent, end };
                            return Poll::Pending;
                        }
                        // How much of it the peer can have, nobody knows.
                        Poll::Ready(Err(error)) => (0, Some(error)),
                        Poll::Ready(Ok(())) if sent == outgoing.len() => (sent, None),
                        Poll::Ready(Ok(())) => {
                            (sent, Some(session.refusal().unwrap_or_else(not_possible)))
                        }
                    };
                    return Poll::Ready(Report { sent, error, outgoing });
                }
                SendState::Done => unreachable!("a future is not polled after it was ready"),
            }
        }
    }
}

impl<T> Future for SendBuffer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let answer = self.answer;
        self.poll_report(cx).map(answer)
    }
}

impl<T> Drop for SendBuffer<'_, T> {
    fn drop(&mut self) {
        self.session.stop_waiting(self.waiter);
        let SendState::Queued(id) = self.state else { return };
        let mut writes = self.session.writes.borrow_mut();
        let Some(index) = writes.entries.iter().position(|entry| entry.id == id) else { return };
        let entry = &mut writes.entries[index];
        let is_midway = entry.done > 0 && entry.state != EntryState::Finished;
        let removed = if is_midway {
            entry.state = EntryState::Abandoned;
            None
        } else {
            writes.entries.remove(index)
        };
        drop(writes);
        drop(removed);
        if is_midway {
            self.session.pump();
        }
    }
}
