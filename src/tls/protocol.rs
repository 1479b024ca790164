//! The TLS protocol without I/O: it turns ciphertext into plaintext, and plaintext into ciphertext.
//!
//! A [`Protocol`] is one side of one connection: a connection of rustls' unbuffered API, and its
//! buffers. It knows no socket, no runtime and no time. Tests connect two of them in memory. It has
//! three streams of bytes:
//!
//! ```text
//! feed(ciphertext) ──► in place, if `partial` is empty ──────────────────► a range of the same
//! slice
//!                 └──► `partial`: a record that is not whole yet ────────► take_plain()
//! write(plaintext), close(), answers to the peer ──► `out` ──────────────► take_out()
//! ```
//!
//! `feed` processes all that it is given. So `partial` holds a part of one record, or of a
//! handshake message, and holds no memory when the connection is idle.
//!
//! A failure is final. The plaintext before it can be taken, and the alert for the peer is in
//! `out`. After that, nothing happens. Read next: `unbuffered.rs`, then `session.rs`.

use std::ops::Range;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::{ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig};

use super::TlsInfo;
use super::failure::TlsFailure;
use super::unbuffered::{FRAGMENT_LEN, Progress, Sink, Task, encode_remaining, handle_status};

/// How many bytes of plaintext are encrypted together.
pub(super) const BATCH_LEN: usize = 64 * 1024;

/// The header of a record: type, version, and two bytes of length.
const HEADER_LEN: usize = 5;

/// How much longer than its plaintext a record may be (RFC 5246, 6.2.3).
const RECORD_OVERHEAD: usize = 2048;

/// One side of a TLS connection, without I/O.
pub(super) struct Protocol {
    side: RustlsConnection,
    /// Ciphertext that is not a whole record yet. While there is none, it holds no memory.
    partial: Vec<u8>,
    /// Plaintext of records that came in pieces.
    plain: Vec<u8>,
    /// Ciphertext to be sent.
    out: Vec<u8>,
    /// The peer has sent a `close_notify`.
    peer_closed: bool,
    /// We have sent a `close_notify`.
    closed: bool,
    failure: Option<TlsFailure>,
    name: Name,
}

enum RustlsConnection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The server's name, as the client asks for it.
enum Name {
    Known(Option<String>),
    /// The unbuffered server does not tell it. So this acceptor reads the client's first message
    /// too, and tells the name.
    Awaited(Box<Acceptor>),
}

impl Protocol {
    /// The client's side. Its first bytes are in `out` at once.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Protocol, TlsFailure> {
        let text = match &name {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None, // addresses are not sent
        };
        let connection = UnbufferedClientConnection::new(config, name)
            .map_err(|cause| TlsFailure::Tls { in_handshake: true, cause })?;
        let mut protocol =
            Protocol::new(RustlsConnection::Client(Box::new(connection)), Name::Known(text));
        protocol.process(Task::Receive);
        match protocol.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(protocol),
        }
    }

    /// The server's side.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Protocol, TlsFailure> {
        Protocol::server_of(config, Name::Awaited(Box::default()))
    }

    /// The server's side, for a client whose first message was read already, with the `name` that
    /// it asks for. The message must still be fed.
    pub(super) fn server_for(
        config: Arc<ServerConfig>,
        name: Option<String>,
    ) -> Result<Protocol, TlsFailure> {
        Protocol::server_of(config, Name::Known(name))
    }

    /// A server's side that refuses early data.
    fn server_of(config: Arc<ServerConfig>, name: Name) -> Result<Protocol, TlsFailure> {
        let connection = UnbufferedServerConnection::new(without_early_data(config))
            .map_err(|cause| TlsFailure::Tls { in_handshake: true, cause })?;
        Ok(Protocol::new(RustlsConnection::Server(Box::new(connection)), name))
    }

    fn new(side: RustlsConnection, name: Name) -> Protocol {
        Protocol {
            side,
            partial: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
            peer_closed: false,
            closed: false,
            failure: None,
            name,
        }
    }

    /// Whether rustls has bytes for the peer: an answer, an alert.
    fn wants_write(&self) -> bool {
        self.state().wants_write()
    }

    fn state(&self) -> &CommonState {
        match &self.side {
            RustlsConnection::Client(connection) => connection,
            RustlsConnection::Server(connection) => connection,
        }
    }

    // ---- what comes in ----------------------------------------------------------------------

    /// Takes ciphertext as it came. Decrypts whole records in place and joins their plaintext: that
    /// is in the range returned. Plaintext of records that came in pieces is earlier, and is for
    /// [`take_plain`](Self::take_plain). The caller finds failures with [`failure`](Self::failure).
    pub(super) fn feed(&mut self, bytes: &mut [u8]) -> Range<usize> {
        self.look_for_name(bytes);
        let mut at = 0;
        // Only completes the record in `partial`.
        while !self.partial.is_empty() && at < bytes.len() && self.is_open() {
            self.make_room();
            let len = self.missing().map_or(bytes.len() - at, |len| len.min(bytes.len() - at));
            self.partial.extend_from_slice(&bytes[at..at + len]);
            at += len;
            self.process(Task::Receive);
        }
        let plain = self.process_slice(&mut bytes[at..]);
        at..at + plain
    }

    /// How many bytes complete the record in `partial`, as far as that is known. `None`: the record
    /// is whole, and rustls waits for the next one, because a handshake message has several
    /// records.
    fn missing(&self) -> Option<usize> {
        let Some(header) = self.partial.first_chunk::<HEADER_LEN>() else {
            return Some(HEADER_LEN - self.partial.len());
        };
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        (HEADER_LEN + len).checked_sub(self.partial.len()).filter(|len| *len > 0)
    }

    /// Processes `bytes` in place. Then their start has the plaintext, and `partial` has the record
    /// that is not whole. Gives how much plaintext there is.
    fn process_slice(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut plain) = (0, 0);
        let mut is_done = bytes.is_empty();
        while !is_done && self.is_open() {
            let (discard, step) = self.step(
                Ciphertext::Slice(&mut bytes[at..]),
                &mut Task::Receive,
                &mut Sink::Later,
            );
            at += discard;
            match step {
                Some(Progress::Plain) => {
                    // The record was before `at`, so there is room for its plaintext.
                    let mut sink = Sink::Slice(&mut bytes[plain..at], 0);
                    self.step(Ciphertext::Slice(&mut []), &mut Task::Receive, &mut sink);
                    if let Sink::Slice(_, len) = sink {
                        plain += len;
                    }
                    // This is the usual message: one record, and rustls has nothing else to do.
                    is_done = at == bytes.len() && !self.wants_write();
                }
                Some(Progress::PeerClosed) => self.close_peer(),
                Some(Progress::Again) => {}
                Some(Progress::Blocked | Progress::Done) | None => is_done = true,
            }
        }
        if self.is_open() {
            self.store_partial(&bytes[at..]);
        }
        plain
    }

    /// Keeps a record that is not whole, with room for its rest. Empty `bytes` do nothing.
    fn store_partial(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.partial.extend_from_slice(bytes);
        self.make_room();
    }

    /// Makes room for the rest of the record in `partial`, in one allocation, if its length is
    /// known and is one that a record may have.
    fn make_room(&mut self) {
        let most = FRAGMENT_LEN + RECORD_OVERHEAD;
        if let Some(len) = self.missing().filter(|len| *len <= most) {
            self.partial.reserve_exact(len);
        }
    }

    /// Processes `partial`, and does a task. True: the task is done. False: more ciphertext is
    /// needed first, or the connection has failed; the task is not tried again. [`Task::Receive`]
    /// gives false.
    fn process(&mut self, mut task: Task<'_>) -> bool {
        let mut at = 0;
        let mut is_done = false;
        while !self.has_failed() {
            let mut plain = std::mem::take(&mut self.plain);
            let (discard, step) =
                self.step(Ciphertext::Own(at), &mut task, &mut Sink::Vec(&mut plain));
            self.plain = plain;
            at += discard;
            match step {
                Some(Progress::PeerClosed) => {
                    self.close_peer();
                    at = 0;
                }
                Some(Progress::Again | Progress::Plain) => {}
                Some(Progress::Done) => {
                    is_done = true;
                    break;
                }
                Some(Progress::Blocked) | None => break,
            }
        }
        if at >= self.partial.len() {
            self.partial = Vec::new(); // an idle connection holds no memory
        } else {
            self.partial.drain(..at);
        }
        is_done
    }

    /// Calls rustls once. `task` and `sink`: as in `handle_status`. Gives how many bytes of
    /// `incoming` are processed, and the result. `None`: it failed; `failure` has the cause, and
    /// `out` the alert.
    fn step(
        &mut self,
        incoming: Ciphertext<'_>,
        task: &mut Task<'_>,
        sink: &mut Sink<'_>,
    ) -> (usize, Option<Progress>) {
        let bytes = match incoming {
            Ciphertext::Slice(bytes) => bytes,
            Ciphertext::Own(at) => &mut self.partial[at..],
        };
        let (discard, result) = match &mut self.side {
            RustlsConnection::Client(connection) => {
                handle_status(connection.process_tls_records(bytes), task, sink, &mut self.out)
            }
            RustlsConnection::Server(connection) => {
                handle_status(connection.process_tls_records(bytes), task, sink, &mut self.out)
            }
        };
        let error = match result {
            Ok(step) => return (discard, Some(step)),
            Err(error) => error,
        };
        // The next calls give the alert for the peer. Only those are made: otherwise rustls would
        // process the failed record again, and fail for ever.
        let bytes = &mut bytes[discard..];
        loop {
            let is_more = match &mut self.side {
                RustlsConnection::Client(connection) if connection.wants_write() => {
                    encode_remaining(connection.process_tls_records(bytes), &mut self.out)
                }
                RustlsConnection::Server(connection) if connection.wants_write() => {
                    encode_remaining(connection.process_tls_records(bytes), &mut self.out)
                }
                _ => false,
            };
            if !is_more {
                break;
            }
        }
        self.fail(error);
        (discard, None)
    }

    /// Ends the connection, in both directions. The first failure stays.
    fn fail(&mut self, cause: rustls::Error) {
        let in_handshake = self.is_handshaking();
        self.failure.get_or_insert(TlsFailure::Tls { in_handshake, cause });
        self.partial = Vec::new();
    }

    /// The peer has sent a `close_notify`. Later bytes are ignored.
    fn close_peer(&mut self) {
        self.peer_closed = true;
        self.partial = Vec::new();
    }

    /// Whether received bytes are processed.
    fn is_open(&self) -> bool {
        self.failure.is_none() && !self.peer_closed
    }

    /// Whether nothing can be sent or received. A truncation ends only receiving, so it does not
    /// count.
    fn has_failed(&self) -> bool {
        matches!(self.failure, Some(TlsFailure::Tls { .. }))
    }

    /// The transport has ended. This is a failure, unless the peer has sent a `close_notify`.
    pub(super) fn eof(&mut self) {
        if self.is_open() {
            // `partial` stays, because rustls may process it again when something is sent.
            self.failure = Some(TlsFailure::Truncated { in_handshake: self.is_handshaking() });
        }
    }

    /// Takes the plaintext of records that came in pieces. It is earlier than what `feed` returned
    /// last.
    pub(super) fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    /// Gives the client's first message to rustls' acceptor, which tells the name in it. Bytes
    /// after that message, and those of a client's side, are not looked at.
    fn look_for_name(&mut self, bytes: &[u8]) {
        let Name::Awaited(acceptor) = &mut self.name else { return };
        let mut rest = bytes;
        let found = loop {
            match acceptor.read_tls(&mut rest) {
                Ok(len) if len > 0 => {}
                _ if rest.is_empty() => return,
                _ => break None,
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    break accepted.client_hello().server_name().map(str::to_owned);
                }
                Ok(None) if rest.is_empty() => return,
                Ok(None) => {}
                Err(_) => break None, // the connection itself says what is wrong
            }
        };
        self.name = Name::Known(found);
    }

    // ---- what goes out ----------------------------------------------------------------------

    /// Encrypts all of `bytes` into `out`. False: nothing can be sent in the handshake, after
    /// [`close`](Self::close), or after a failure.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty() || (!self.closed && self.process(Task::Encrypt(bytes)))
    }

    /// Writes a `close_notify` into `out`, once. After a failure it writes nothing, because the
    /// alert is there.
    pub(super) fn close(&mut self) {
        if !self.closed && self.process(Task::Close) {
            self.closed = true;
        }
    }

    /// Changes the keys for what is sent, and asks the peer to change its own. False: it is not
    /// possible, as for [`write`](Self::write), or because this is TLS 1.2.
    pub(super) fn refresh_keys(&mut self) -> bool {
        if self.closed || self.state().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return false;
        }
        let is_done = self.process(Task::Refresh);
        self.process(Task::Receive); // rustls has queued it
        is_done
    }

    /// How much memory holds a part of a record.
    #[cfg(all(test, feature = "tls-ring"))]
    pub(super) fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether there is ciphertext for [`take_out`](Self::take_out) to take.
    pub(super) fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the ciphertext to be sent, in order.
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    // ---- what there is to know --------------------------------------------------------------

    pub(super) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// Whether the peer has sent a `close_notify`.
    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Why the connection has failed; `None` if it has not.
    pub(super) fn failure(&self) -> Option<&TlsFailure> {
        self.failure.as_ref()
    }

    /// What the handshake has agreed on. Complete only when the handshake is over.
    pub(super) fn info(&self) -> TlsInfo {
        let state = self.state();
        let name = match &self.name {
            Name::Known(name) => name.clone(),
            Name::Awaited(_) => None,
        };
        TlsInfo {
            version: state.protocol_version(),
            cipher_suite: state.negotiated_cipher_suite().map(|suite| suite.suite()),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            server_name: name,
            peer_certificates: state.peer_certificates().unwrap_or_default().to_vec(),
            resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The ciphertext for one call of rustls.
enum Ciphertext<'a> {
    Slice(&'a mut [u8]),
    /// `partial`, from an offset on.
    Own(usize),
}

/// An attacker can replay early data, so it is refused, whatever the config says.
fn without_early_data(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.max_early_data_size == 0 {
        return config;
    }
    let mut config = ServerConfig::clone(&config);
    config.max_early_data_size = 0;
    Arc::new(config)
}
