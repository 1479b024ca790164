//! The bar for readiness: an echo server written straight on epoll, without futures, tasks or wakers.
//!
//! It answers the same question as `raw_ring` for the other engine: how much of a request's cost is the
//! kernel's, whoever asks. Edge-triggered. A connection is registered once, for input; for output too
//! only while it has unsent bytes. A receive that leaves room in the buffer has emptied the socket, so a
//! request takes one recv(2), one send(2) and a share of one epoll_wait(2). All connections receive into
//! one buffer, which stays in the first-level cache: the socket takes most replies whole, and only what
//! it does not take is copied aside.
//!
//! Read next: [`EchoLoop::turn`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const EVENTS_MAX: usize = 1024;
const IN: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const IN_OUT: u32 = IN | libc::EPOLLOUT as u32;
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Echoes on every connection of `listener`, which is non-blocking and of any family, until `stop` (an eventfd) becomes readable.
///
/// `buffer_len` is the size of the receive buffer. The calling thread becomes the server.
pub fn serve(listener: BorrowedFd<'_>, stop: BorrowedFd<'_>, buffer_len: usize) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let set = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: just opened, and nobody else owns it.
    let set = unsafe { OwnedFd::from_raw_fd(set) };
    let mut server = EchoLoop {
        set,
        listener: listener.as_raw_fd(),
        stop: stop.as_raw_fd(),
        connections: Vec::new(),
        buffer: vec![0; buffer_len],
    };
    server.register(libc::EPOLL_CTL_ADD, stop.as_raw_fd(), libc::EPOLLIN as u32)?;
    server.register(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), IN)?;
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    while server.turn(&mut events)? == Next::Turn {}
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Next {
    Turn,
    Stop,
}

struct EchoLoop {
    set: OwnedFd,
    listener: RawFd,
    stop: RawFd,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Vec<u8>,
}

struct Connection {
    /// Closed when this goes, and so taken out of the set: there are no duplicates.
    socket: OwnedFd,
    /// What the socket did not take, from `sent` on. Nothing is received meanwhile.
    unsent: Vec<u8>,
    sent: usize,
    /// The peer has finished or is gone: edges will not come again, so receive until the end.
    ended: bool,
}

/// What became of a connection in this turn.
enum Served {
    /// It waits for an edge.
    Waits,
    Over,
}

impl EchoLoop {
    fn turn(&mut self, events: &mut [libc::epoll_event]) -> io::Result<Next> {
        let max = events.len() as i32;
        // SAFETY: there is room for `max` events.
        let found = unsafe { libc::epoll_wait(self.set.as_raw_fd(), events.as_mut_ptr(), max, -1) };
        let found = match check(found) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            found => found? as usize,
        };
        let mut next = Next::Turn;
        for event in &events[..found] {
            let fd = event.u64 as RawFd;
            if fd == self.stop {
                next = Next::Stop;
            } else if fd == self.listener {
                self.accept_all()?;
            } else if let Served::Over = self.serve(fd, event.events)? {
                self.connections[fd as usize] = None;
            }
        }
        Ok(next)
    }

    fn accept_all(&mut self) -> io::Result<()> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let none = std::ptr::null_mut;
        loop {
            // SAFETY: null asks for no address.
            let fd = unsafe { libc::accept4(self.listener, none(), std::ptr::null_mut(), flags) };
            let fd = match check(fd) {
                Ok(fd) => fd,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(libc::ECONNABORTED | libc::EINTR) => continue,
                    _ => return Err(error),
                },
            };
            // SAFETY: just accepted, and nobody else owns it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            self.register(libc::EPOLL_CTL_ADD, fd, IN)?;
            if self.connections.len() <= fd as usize {
                self.connections.resize_with(fd as usize + 1, || None);
            }
            self.connections[fd as usize] =
                Some(Connection { socket, unsent: Vec::new(), sent: 0, ended: false });
        }
    }

    fn register(&self, how: i32, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: `event` is readable.
        check(unsafe { libc::epoll_ctl(self.set.as_raw_fd(), how, fd, &mut event) }).map(drop)
    }

    fn serve(&mut self, fd: RawFd, flags: u32) -> io::Result<Served> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let slot = self.connections.get_mut(fd as usize);
        let connection = slot.and_then(Option::as_mut).expect("events come for open connections");
        connection.ended |= flags & ENDED != 0;
        let had_unsent = !connection.unsent.is_empty();
        let served = connection.echo(&mut buffer);
        let has_unsent = !connection.unsent.is_empty();
        self.buffer = buffer;
        if had_unsent != has_unsent && matches!(served, Served::Waits) {
            let events = if has_unsent { IN_OUT } else { IN };
            self.register(libc::EPOLL_CTL_MOD, fd, events)?;
        }
        Ok(served)
    }
}

impl Connection {
    /// Sends what is left over, then echoes until the socket is empty or full.
    fn echo(&mut self, buffer: &mut [u8]) -> Served {
        if !self.unsent.is_empty() {
            match send(self.socket.as_fd(), &self.unsent[self.sent..]) {
                Some(sent) => self.sent += sent,
                None => return Served::Over,
            }
            if self.sent < self.unsent.len() {
                return Served::Waits;
            }
            self.unsent.clear();
            self.sent = 0;
        }
        loop {
            let (memory, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: `memory` has `room` writable bytes.
            let received = unsafe { libc::recv(self.socket.as_raw_fd(), memory, room, 0) };
            let received = match usize::try_from(received) {
                Ok(0) => return Served::Over,
                Ok(received) => received,
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EAGAIN) => return Served::Waits,
                    Some(libc::EINTR) => continue,
                    _ => return Served::Over,
                },
            };
            let Some(sent) = send(self.socket.as_fd(), &buffer[..received]) else {
                return Served::Over;
            };
            if sent < received {
                self.unsent.extend_from_slice(&buffer[sent..received]);
                return Served::Waits;
            }
            if received < buffer.len() && !self.ended {
                return Served::Waits;
            }
        }
    }
}

/// How many bytes the socket took; `None` if it is of no use any more.
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
    loop {
        let (memory, len) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: pointer and length come from one slice.
        let sent = unsafe { libc::send(socket.as_raw_fd(), memory, len, libc::MSG_NOSIGNAL) };
        if let Ok(sent) = usize::try_from(sent) {
            return Some(sent);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => return Some(0),
            Some(libc::EINTR) => {}
            _ => return None,
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
