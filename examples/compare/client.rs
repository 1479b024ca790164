//! The client: connections to one server, driven by plain system calls and epoll.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::statistics::Latencies;

/// A server that answers nothing for so long has lost a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections to one server, driven by plain system calls.
pub struct Client {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<libc::epoll_event>,
    /// Every connection reads into it, and compares at once.
    scratch: Vec<u8>,
    /// Whether it polls its sockets without ever sleeping.
    spins: bool,
    /// How many bytes came back right.
    pub verified: u64,
}

impl Client {
    pub fn connect(server: &Server, count: usize, size: usize, spins: bool) -> io::Result<Client> {
        // SAFETY: epoll_create1(2) takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: epoll_create1(2) has just opened it, so nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(server.addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            // Edge-triggered and for both directions: one registration lasts for the whole run.
            let interest = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;
            let mut event = libc::epoll_event { events: interest, u64: index as u64 };
            let (add, fd) = (libc::EPOLL_CTL_ADD, stream.as_raw_fd());
            // SAFETY: `event` lives through the call, which only reads it.
            if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &mut event) } != 0 {
                return Err(io::Error::last_os_error());
            }
            connections.push(Connection::new(stream, index, size));
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
        Ok(Client { epoll, connections, events, scratch: vec![0; size], spins, verified: 0 })
    }

    /// Sends one request after the other on each connection, for this long, and then waits until
    /// all are answered. Returns how long that took, and the number of requests.
    pub fn exchange(
        &mut self,
        length: Duration,
        latencies: &mut Latencies,
    ) -> io::Result<(Duration, u64)> {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.begin(Instant::now())?;
        }
        let (mut under_way, mut done, mut progress) = (self.connections.len(), 0, start);
        while under_way > 0 {
            let ready = self.wait()?;
            if ready == 0 && progress.elapsed() > PATIENCE {
                let text =
                    format!("no answer for {PATIENCE:?}, {under_way} requests are under way");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            for event in &self.events[..ready] {
                let connection = &mut self.connections[event.u64 as usize];
                let Some(begun) = connection.advance(&mut self.scratch)? else { continue };
                let now = Instant::now();
                latencies.add(now - begun);
                self.verified += connection.message.len() as u64;
                done += 1;
                progress = now;
                if now - start < length {
                    connection.begin(now)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok((start.elapsed(), done))
    }

    fn wait(&mut self) -> io::Result<usize> {
        let timeout_ms = if self.spins { 0 } else { 1000 };
        let (events, len) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: `events` and `len` are those of one vector.
        let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, len, timeout_ms) };
        match usize::try_from(ready) {
            Ok(ready) => Ok(ready),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Every block of it holds the connection and the number of the request, so an answer to
    /// another request is not taken for this one.
    message: Vec<u8>,
    number: u32,
    sent: usize,
    received: usize,
    /// When the request in flight was begun.
    begun: Option<Instant>,
}

impl Connection {
    const BLOCK: usize = 64;

    fn new(stream: TcpStream, index: usize, size: usize) -> Connection {
        let message = (0..size).map(|at| (at * 131 + (at >> 8) * 17 + index * 29) as u8).collect();
        Connection { stream, message, number: 0, sent: 0, received: 0, begun: None }
    }

    fn begin(&mut self, now: Instant) -> io::Result<()> {
        self.number += 1;
        let stamp = self.number.to_ne_bytes();
        for block in self.message.chunks_mut(Self::BLOCK) {
            let len = block.len().min(stamp.len());
            block[..len].copy_from_slice(&stamp[..len]);
        }
        (self.sent, self.received, self.begun) = (0, 0, Some(now));
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.message.len() {
            match (&self.stream).write(&self.message[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends and receives what it can without waiting. When the whole answer is there, returns the
    /// time when its request was begun.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Option<Instant>> {
        if self.begun.is_none() {
            return Ok(None);
        }
        self.send()?;
        while self.received < self.message.len() {
            let arrived = match (&self.stream).read(&mut scratch[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.received..self.received + len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            if arrived.end > self.sent || scratch[arrived.clone()] != self.message[arrived.clone()]
            {
                let text = format!("request {}: bytes {arrived:?} came back wrong", self.number);
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            self.received = arrived.end;
        }
        Ok(self.begun.take())
    }
}
