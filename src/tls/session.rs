//! A TLS connection as an object: the protocol, the stream below it, and the bytes that wait.
//!
//! ```text
//!            recv, read                                  send, poll_write, shutdown
//!                ▲                                                 │
//!   unread: decrypted, not taken               queue: whole buffers, in order of first polls
//!                ▲                                                 ▼
//!                └──────────────── Protocol: feed │ write ───────────┘
//!                                     ▲         │
//!           Carrier::try_take ────────┘         └──► Carrier::queue, queue_detached
//! ```
//!
//! A future owns no bytes. The poll that takes ciphertext from below decrypts it. The poll that
//! encrypts plaintext gives it to the stream below, which sends what it was given, even if the future
//! is gone. So a dropped future loses nothing and sends nothing twice.
//!
//! The stream below is a type parameter: over TCP every call of this file is a direct one. It may be
//! TLS itself, since a session is a [`Carrier`] too.
//!
//! This file has the protocol's place, the handshake, and receiving. Sending is not here, but in
//! `outbound.rs`: read that next.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::Context;

use super::TlsInfo;
use super::failure::TlsFailure;
use super::outbound::Outbound;
use super::protocol::Protocol;
use crate::buf::{Chunk, Fill};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::Driver;
use crate::io::Duplex;
use crate::stream::{
    Arrival, Asked, Bottom, Carried, Carrier, End, Failure, LayerFailure, Segment, Source, Unread,
    check_home,
};

/// What carries the ciphertext of a session over `S`.
pub(super) type Below<S> = <S as Carried>::Carrier;

/// A TLS connection: the stream below, the protocol, and the plaintext of both directions that waits.
pub(crate) struct Session<S: Duplex> {
    stream: S,
    /// The runtime of the stream below; if that has none, the one that made the handshake.
    home: Rc<Driver>,
    protocol: RefCell<ProtocolSlot>,
    /// Unread plaintext. Bounded by one chunk from below: the next chunk is decrypted when this is
    /// empty.
    unread: RefCell<Unread>,
    pub(super) outbound: RefCell<Outbound>,
    info: OnceCell<TlsInfo>,
}

/// Where the [`Protocol`] is. It calls foreign code (verifiers, session stores, providers), so it
/// is taken out of its cell while it works, and no borrow is held.
enum ProtocolSlot {
    Idle(Box<Protocol>),
    AtWork,
    /// Foreign code that it called has panicked. The connection has ended.
    Panicked,
}

/// Why TLS has failed.
#[derive(Debug)]
enum SessionFailure {
    Tls(TlsFailure),
    Panicked,
}

impl SessionFailure {
    /// The end of the stream, for this reason.
    fn end(self) -> End {
        End::Failed(Failure::Layer(Rc::new(self)))
    }
}

impl LayerFailure for SessionFailure {
    fn to_io(&self) -> io::Error {
        match self {
            SessionFailure::Tls(failure) => failure.to_io(),
            SessionFailure::Panicked => {
                io::Error::other("a panic in what TLS calls has ended this connection")
            }
        }
    }
}

impl<S: Duplex> Session<S> {
    /// `Err`: the stream has no runtime of its own, and none is entered on this thread.
    pub(super) fn new(stream: S, protocol: Protocol) -> io::Result<Session<S>> {
        let home = match stream.carrier().driver() {
            Some(driver) => driver.clone(),
            None => context::try_current()?.driver.clone(),
        };
        Ok(Session {
            stream,
            home,
            protocol: RefCell::new(ProtocolSlot::Idle(Box::new(protocol))),
            unread: RefCell::default(),
            outbound: RefCell::default(),
            info: OnceCell::new(),
        })
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// What carries the ciphertext.
    #[inline]
    pub(super) fn below(&self) -> &Rc<Below<S>> {
        self.stream.carrier()
    }

    #[inline]
    pub(super) fn home(&self) -> &Rc<Driver> {
        &self.home
    }

    /// Whether the runtime of this session turns on this thread and takes ops.
    pub(super) fn is_home(&self) -> bool {
        check_home(&self.home).is_ok()
    }

    /// What the handshake has agreed on. Panics before the handshake is over.
    pub(super) fn info(&self) -> &TlsInfo {
        self.info.get().expect("the handshake is over before there is a stream")
    }

    // ---- the protocol -------------------------------------------------------------------------

    /// Runs `work` on the protocol, and records what that means for receiving. `work` may run
    /// foreign code: no borrow is held. `None`, and `work` did not run: the protocol is at work
    /// already, or a panic has ended it. A panic in `work` ends the connection.
    pub(super) fn with_protocol<T>(&self, work: impl FnOnce(&mut Protocol) -> T) -> Option<T> {
        let ProtocolSlot::Idle(mut protocol) = self.take_if_idle()? else { return None };
        let unwinding = EndOfProtocol(self);
        let result = work(&mut protocol);
        mem::forget(unwinding);
        let end = match protocol.failure() {
            Some(failure) => Some(SessionFailure::Tls(failure.clone()).end()),
            None => protocol.peer_has_closed().then_some(End::Eof),
        };
        self.protocol.replace(ProtocolSlot::Idle(protocol));
        if let Some(end) = end {
            self.unread.borrow_mut().finish(end);
        }
        Some(result)
    }

    /// Takes the protocol out of its cell, to work; the caller puts a slot back. `None`, and no
    /// change: it is at work or has panicked.
    fn take_if_idle(&self) -> Option<ProtocolSlot> {
        let mut slot = self.protocol.borrow_mut();
        match &*slot {
            ProtocolSlot::Idle(_) => Some(mem::replace(&mut *slot, ProtocolSlot::AtWork)),
            ProtocolSlot::AtWork | ProtocolSlot::Panicked => None,
        }
    }

    /// The error of TLS, if nothing can be encrypted; `None` also while the protocol is at work.
    /// After a truncation bytes can still be sent.
    pub(super) fn tls_failure(&self) -> Option<io::Error> {
        match &*self.protocol.borrow() {
            ProtocolSlot::AtWork => None,
            ProtocolSlot::Panicked => Some(SessionFailure::Panicked.to_io()),
            ProtocolSlot::Idle(protocol) => match protocol.failure() {
                None | Some(TlsFailure::Truncated { .. }) => None,
                Some(failure) => Some(failure.to_io()),
            },
        }
    }

    // ---- the handshake ----------------------------------------------------------------------

    /// Runs the handshake until both sides may send; after `Ok` there is an `info`. It has no
    /// timeout. `first` is ciphertext that came before.
    pub(super) async fn handshake(self: &Rc<Self>, first: Vec<u8>) -> io::Result<()> {
        if !first.is_empty() {
            self.feed(Chunk::from(first));
        }
        loop {
            self.flush();
            if let Some(End::Failed(failure)) = self.unread.borrow().end() {
                return Err(failure.to_io());
            }
            let info = self
                .with_protocol(|protocol| (!protocol.is_handshaking()).then(|| protocol.info()));
            if let Some(Some(info)) = info {
                let _ = self.info.set(info);
                // The peer waits for the last message, whatever this thread does next.
                self.home.submit_now();
                return Ok(());
            }
            match self.stream.recv().await? {
                Some(chunk) => self.feed(chunk),
                None => self.below_has_ended(),
            }
        }
    }

    // ---- receiving --------------------------------------------------------------------------

    /// Decrypts `chunk`, makes its plaintext unread, and sends what the protocol answers. The
    /// plaintext of whole records stays in the memory of the ciphertext. If the protocol is at work
    /// or has panicked, the chunk is dropped.
    fn feed(&self, mut chunk: Chunk) {
        let fed = self.with_protocol(|protocol| {
            let range = protocol.feed(&mut chunk);
            (range, protocol.take_plain())
        });
        let Some((range, earlier)) = fed else { return };
        let mut unread = self.unread.borrow_mut();
        if !earlier.is_empty() {
            unread.push(Segment::Chunk(Chunk::from(earlier)));
        }
        if !range.is_empty() {
            chunk.truncate(range.end);
            let _before = chunk.split_to(range.start);
            unread.push(Segment::Chunk(chunk));
        }
        drop(unread);
        self.flush();
    }

    /// Tells the protocol of the EOF below. Without a `close_notify` before it, the stream has failed.
    fn below_has_ended(&self) {
        self.with_protocol(Protocol::eof);
    }

    /// The last handle that receives is gone: drops the unread plaintext, and ends receiving at the
    /// bottom.
    pub(super) fn end_receive(&self) {
        self.with_unread(|unread, deferred| unread.clear(deferred));
        self.bottom().end_receive();
    }

    /// Whether no more plaintext can come.
    pub(super) fn has_ended(&self) -> bool {
        self.unread.borrow().end().is_some()
    }
}

impl<S: Duplex> Source for Session<S> {
    type Bottom = <Below<S> as Source>::Bottom;

    #[inline]
    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = run(&mut self.unread.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    #[inline]
    fn bottom(&self) -> &Self::Bottom {
        self.below().bottom()
    }

    /// Ciphertext is decrypted in our own memory, and the plaintext is copied.
    fn lend_min(&self) -> Option<usize> {
        None
    }

    /// Decrypts the next chunk from below, or asks for one if there is none. Each chunk consumes a
    /// unit of the task's budget, because a peer can send endless records without plaintext.
    fn ask(self: &Rc<Self>, _: Option<Rc<Fill<dyn Any>>>, cx: &mut Context<'_>) -> Asked {
        if matches!(*self.protocol.borrow(), ProtocolSlot::AtWork) {
            cx.waker().wake_by_ref(); // the protocol calls foreign code, and that receives
            return Asked::Yield;
        }
        let below = self.below();
        match below.try_take() {
            None => return below.ask(None, cx),
            Some(Arrival::Bytes(chunk)) => self.feed(chunk),
            Some(Arrival::End(End::Eof)) => self.below_has_ended(),
            Some(Arrival::ShownOnce(errno)) => self.unread.borrow_mut().show_once(errno),
            Some(Arrival::End(failed)) => self.unread.borrow_mut().finish(failed),
        }
        if context::consume_budget(cx).is_pending() { Asked::Yield } else { Asked::LookAgain }
    }

    fn can_get_further(self: &Rc<Self>) -> bool {
        let below = self.below();
        below.can_get_further() || below.with_unread(|unread, _| unread.has_answer(1))
    }

    #[inline]
    fn bytes_were_taken(self: &Rc<Self>) {}
}

/// A panic unwinds through the protocol. Nothing can be encrypted or decrypted after it, and every
/// call that waits is told.
struct EndOfProtocol<'a, S: Duplex>(&'a Session<S>);

impl<S: Duplex> Drop for EndOfProtocol<'_, S> {
    #[cold]
    fn drop(&mut self) {
        let session = self.0;
        session.protocol.replace(ProtocolSlot::Panicked);
        session.unread.borrow_mut().finish(SessionFailure::Panicked.end());
        session.bottom().wake_receivers();
        session.fail_queue();
    }
}
