//! The load: one thread with plain sockets and epoll, built on neither runtime.
//!
//! It spins instead of sleeping when it has a core of its own: a sleeping client would make the server
//! pay for waking it, on the server's own core, and hide the difference that is to be measured.
//! Every message carries its connection and sequence number; every byte that comes back is compared.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::servers::Addr;
use super::two_cores;

/// A server that makes no progress for this long has lost something: stop instead of hanging.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the spinning loops look at the clock.
const TURNS_PER_LOOK: u32 = 1 << 14;

/// Connections that stay open, each with one message under way.
pub struct Client {
    poller: Poller,
    connections: Vec<Connection>,
    /// One for all: what arrives is compared at once.
    scratch: Vec<u8>,
}

impl Client {
    /// Connections whose messages come back as they are.
    pub fn connect(addr: &Addr, count: usize, message_len: usize) -> io::Result<Self> {
        Client::with(addr, count, |index| Message::new(index, message_len))
    }

    /// Connections that ask the same each time, and want the same answer.
    pub fn asking(addr: &Addr, count: usize, question: &[u8], answer: &[u8]) -> io::Result<Self> {
        Client::with(addr, count, |_| Message::fixed(question, answer))
    }

    fn with(addr: &Addr, count: usize, message: impl Fn(u32) -> Message) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = connect(addr)?;
            // Edge-triggered and for both directions, so that it is registered once and for all.
            poller.add(&stream, libc::EPOLLIN | libc::EPOLLOUT, index)?;
            connections.push(Connection::new(stream, message(index as u32)));
        }
        let longest = connections.iter().map(|connection| connection.message.answer().len()).max();
        Ok(Client { poller, connections, scratch: vec![0; longest.unwrap_or(0)] })
    }

    /// Makes `requests` requests in all, one at a time on each connection, and returns how long it took.
    pub fn exchange(&mut self, requests: u64) -> Duration {
        let start = Instant::now();
        let mut begun = requests.min(self.connections.len() as u64);
        for connection in &mut self.connections[..begun as usize] {
            connection.begin().expect("the server takes a message");
        }
        let mut done = 0;
        let mut progress = Watch::new();
        while done < requests {
            for event in self.poller.wait() {
                let connection = &mut self.connections[event.u64 as usize];
                if !connection.advance(&mut self.scratch).expect("the server echoes") {
                    continue;
                }
                done += 1;
                if begun < requests {
                    begun += 1;
                    connection.begin().expect("the server takes a message");
                }
            }
            progress.check(done, requests);
        }
        start.elapsed()
    }
}

/// The sockets of a client, and which of them have news. Spins on a core of its own.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Poller { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 512] })
    }

    /// Watches a socket for edges of `interest`; they come with `index`.
    pub fn add(
        &self,
        socket: &impl AsRawFd,
        interest: libc::c_int,
        index: usize,
    ) -> io::Result<()> {
        let events = (interest | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: index as u64 };
        let (add, fd) = (libc::EPOLL_CTL_ADD, socket.as_raw_fd());
        // SAFETY: both descriptors are open and `event` is initialised.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), add, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn wait(&mut self) -> &[libc::epoll_event] {
        self.wait_for(if two_cores() { 0 } else { 1000 })
    }

    /// Does not spin.
    pub fn sleep(&mut self) -> &[libc::epoll_event] {
        self.wait_for(-1)
    }

    fn wait_for(&mut self, timeout_ms: i32) -> &[libc::epoll_event] {
        let (events, len) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: `events` has room for `len` entries.
        let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, len, timeout_ms) };
        match usize::try_from(ready) {
            Ok(ready) => &self.events[..ready],
            Err(_) => {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), ErrorKind::Interrupted, "epoll_wait fails only by EINTR");
                &[]
            }
        }
    }
}

/// A non-blocking connection, of either family: as a file, which reads and writes as both do.
fn connect(addr: &Addr) -> io::Result<File> {
    let fd: OwnedFd = match addr {
        Addr::Tcp(addr) => {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
        Addr::Unix(addr) => {
            let stream = UnixStream::connect_addr(addr)?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
        Addr::Nowhere => return Err(ErrorKind::AddrNotAvailable.into()),
    };
    Ok(fd.into())
}

struct Connection {
    stream: File,
    message: Message,
    sent: usize,
    received: usize,
    under_way: bool,
}

impl Connection {
    fn new(stream: File, message: Message) -> Self {
        Connection { stream, message, sent: 0, received: 0, under_way: false }
    }

    fn begin(&mut self) -> io::Result<()> {
        assert!(!self.under_way, "one message at a time");
        self.message.advance();
        self.sent = 0;
        self.received = 0;
        self.under_way = true;
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.message.bytes.len() {
            match (&self.stream).write(&self.message.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Does what can be done now; true when the whole message is back.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        if !self.under_way {
            return Ok(false);
        }
        self.send()?;
        while self.received < self.message.answer().len() {
            let arrived = match (&self.stream).read(&mut scratch[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(arrived) => self.received..self.received + arrived,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let has_asked = match self.message.answer {
                None => arrived.end <= self.sent,
                Some(_) => self.sent == self.message.bytes.len(),
            };
            assert!(has_asked, "more came back than was asked for");
            self.message.verify(arrived.clone(), scratch);
            self.received = arrived.end;
        }
        self.under_way = false;
        Ok(true)
    }
}

/// Datagrams that come back as they are: each client sends one and receives one, until there were this many.
/// A client is a socket with a peer, as a file.
pub fn exchange(clients: &[File], len: usize, mut datagrams: u64) {
    let mut buffer = vec![0; len + 1];
    while datagrams > 0 {
        let count = datagrams.min(clients.len() as u64);
        let clients = &clients[..count as usize];
        let message = |client: usize| vec![(datagrams + client as u64) as u8; len];
        let messages: Vec<_> = (0..clients.len()).map(message).collect();
        for (mut socket, message) in clients.iter().zip(&messages) {
            assert_eq!(socket.write(message).expect("room"), len);
        }
        for (mut socket, message) in clients.iter().zip(&messages) {
            let len = socket.read(&mut buffer).expect("an answer");
            assert!(buffer[..len] == message[..], "another datagram comes back");
        }
        datagrams -= count;
    }
}

/// Short connections, always `AT_ONCE` of them under way: connect, one message there and back, close.
pub struct Dialer {
    addr: SocketAddr,
    under_way: VecDeque<(TcpStream, Message)>,
    vacant: Vec<Message>,
    scratch: Vec<u8>,
    dialled: u64,
}

impl Dialer {
    pub const AT_ONCE: usize = 32;

    pub fn new(addr: SocketAddr, message_len: usize) -> Self {
        Dialer {
            addr,
            under_way: VecDeque::with_capacity(Self::AT_ONCE),
            vacant: (0..Self::AT_ONCE as u32).map(|slot| Message::new(slot, message_len)).collect(),
            scratch: vec![0; message_len],
            dialled: 0,
        }
    }

    /// Makes `connections` short connections and returns how long it took.
    pub fn exchange(&mut self, connections: u64) -> Duration {
        let start = Instant::now();
        let (mut begun, mut done) = (0, 0);
        while done < connections {
            while begun < connections {
                let Some(mut message) = self.vacant.pop() else { break };
                message.advance();
                let mut stream = self.dial().expect("the server accepts");
                stream.write_all(&message.bytes).expect("a fresh socket has room");
                self.under_way.push_back((stream, message));
                begun += 1;
            }
            // The oldest first: the server has had the most time for it.
            let (stream, message) = self.under_way.pop_front().expect("some are under way");
            self.receive(&stream, &message).expect("the server echoes");
            self.vacant.push(message);
            done += 1;
        }
        start.elapsed()
    }

    fn receive(&mut self, stream: &TcpStream, message: &Message) -> io::Result<()> {
        let flags = if two_cores() { libc::MSG_DONTWAIT } else { 0 };
        let mut received = 0;
        let mut progress = Watch::new();
        while received < message.bytes.len() {
            let room = &mut self.scratch[received..];
            let (fd, start) = (stream.as_raw_fd(), room.as_mut_ptr().cast());
            // SAFETY: `room` is writable for its length.
            let arrived = unsafe { libc::recv(fd, start, room.len(), flags) };
            match usize::try_from(arrived) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(arrived) => {
                    message.verify(received..received + arrived, &self.scratch);
                    received += arrived;
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != ErrorKind::WouldBlock {
                        return Err(error);
                    }
                    progress.check(received as u64, message.bytes.len() as u64);
                }
            }
        }
        Ok(())
    }

    /// Connects from one loopback address after the other: a closed connection keeps its port busy
    /// for a second or more, and a single address runs out of ports at 28 000 connections a second.
    fn dial(&mut self) -> io::Result<TcpStream> {
        const SOURCES: u64 = 16;
        self.dialled += 1;
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else owns it.
        let stream = unsafe { TcpStream::from_raw_fd(fd) };
        // The port is chosen at connect, by the pair of addresses.
        set_option(&stream, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
        let source = Ipv4Addr::new(127, 0, 0, (2 + self.dialled % SOURCES) as u8);
        let (source, server) = (sockaddr(SocketAddr::from((source, 0))), sockaddr(self.addr));
        let len = size_of::<libc::sockaddr_in>() as u32;
        // SAFETY: `source` is a sockaddr_in and `len` its length.
        if unsafe { libc::bind(fd, (&raw const source).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above, for `server`.
        if unsafe { libc::connect(fd, (&raw const server).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stream)
    }
}

/// Bytes that name their connection and sequence number, again in every block.
struct Message {
    bytes: Vec<u8>,
    /// What comes back, if not the same.
    answer: Option<Vec<u8>>,
    owner: u32,
    sequence: u32,
}

impl Message {
    const BLOCK: usize = 64;

    fn new(owner: u32, len: usize) -> Self {
        let pattern = |at: usize| (at * 131 + (at >> 8) * 17 + owner as usize * 29) as u8;
        let bytes = (0..len).map(pattern).collect();
        Message { bytes, answer: None, owner, sequence: 0 }
    }

    fn fixed(question: &[u8], answer: &[u8]) -> Self {
        Message { bytes: question.to_vec(), answer: Some(answer.to_vec()), owner: 0, sequence: 0 }
    }

    fn answer(&self) -> &[u8] {
        self.answer.as_deref().unwrap_or(&self.bytes)
    }

    fn advance(&mut self) {
        self.sequence += 1;
        if self.answer.is_some() {
            return;
        }
        let (owner, sequence) = (self.owner.to_ne_bytes(), self.sequence.to_ne_bytes());
        for block in self.bytes.chunks_exact_mut(Self::BLOCK) {
            block[..4].copy_from_slice(&owner);
            block[4..8].copy_from_slice(&sequence);
        }
    }

    fn verify(&self, range: std::ops::Range<usize>, arrived: &[u8]) {
        assert!(
            self.answer()[range.clone()] == arrived[range.clone()],
            "connection {}, message {}: bytes {range:?} came back changed",
            self.owner,
            self.sequence,
        );
    }
}

/// Panics when a count stands still for too long, looking at the clock only now and then.
pub(super) struct Watch {
    turns: u32,
    seen: (u64, Option<Instant>),
}

impl Watch {
    pub(super) fn new() -> Self {
        Watch { turns: 0, seen: (0, None) }
    }

    pub(super) fn check(&mut self, done: u64, of: u64) {
        self.turns += 1;
        if two_cores() && self.turns % TURNS_PER_LOOK != 0 {
            return;
        }
        match self.seen {
            (before, Some(since)) if before == done => assert!(
                since.elapsed() < PATIENCE,
                "no progress for {PATIENCE:?}: {done} of {of} are done"
            ),
            _ => self.seen = (done, Some(Instant::now())),
        }
    }
}

pub(super) fn set_option(socket: &impl AsRawFd, level: i32, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (value, len) = ((&raw const on).cast(), size_of_val(&on) as u32);
    // SAFETY: `value` points at an int that lives until the call returns.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn sockaddr(addr: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(addr) = addr else { panic!("the benches use IPv4 loopback only") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
