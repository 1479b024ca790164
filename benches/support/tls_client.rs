//! The load over TLS: one thread, plain sockets, rustls' buffered connections, epoll; built on neither
//! runtime. Every byte that comes back is compared.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tamam::tls::rustls::pki_types::ServerName;
use tamam::tls::rustls::{ClientConfig, ClientConnection};

use super::two_cores;

/// Connections that stay open, each with one message under way.
pub struct TlsClient {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
}

struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
    message: Vec<u8>,
    received: usize,
    under_way: bool,
}

impl TlsClient {
    /// Connects and finishes the handshakes.
    pub fn connect(
        addr: SocketAddr,
        config: &Arc<ClientConfig>,
        count: usize,
        message_len: usize,
    ) -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let (mut tcp, mut tls) = handshake(addr, config)?;
            // One message there and back: session tickets have come then.
            let message: Vec<u8> =
                (0..message_len).map(|at| (at * 131 + index * 29) as u8).collect();
            let mut echo = vec![0; message_len];
            let mut stream = tamam::tls::rustls::Stream::new(&mut tls, &mut tcp);
            stream.write_all(&message)?;
            stream.read_exact(&mut echo)?;
            assert!(echo == message, "connection {index}: bytes came back changed");
            tcp.set_nonblocking(true)?;
            let interest = (libc::EPOLLIN | libc::EPOLLET) as u32;
            let mut event = libc::epoll_event { events: interest, u64: index as u64 };
            let (add, fd) = (libc::EPOLL_CTL_ADD, tcp.as_raw_fd());
            // SAFETY: both descriptors are open and `event` is initialised.
            if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &mut event) } != 0 {
                return Err(io::Error::last_os_error());
            }
            connections.push(Connection { tcp, tls, message, received: 0, under_way: false });
        }
        Ok(TlsClient { epoll, connections, scratch: vec![0; 16 * 1024] })
    }

    /// Makes `requests` requests in all, one at a time on each connection, and returns how long it took.
    pub fn exchange(&mut self, requests: u64) -> Duration {
        let start = Instant::now();
        let mut begun = requests.min(self.connections.len() as u64);
        for connection in &mut self.connections[..begun as usize] {
            connection.begin().expect("the server takes a message");
        }
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        let (mut done, mut progress) = (0, Instant::now());
        while done < requests {
            let timeout_ms = if two_cores() { 0 } else { 1000 };
            let (list, len) = (events.as_mut_ptr(), events.len() as i32);
            // SAFETY: `events` has room for `len` entries.
            let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), list, len, timeout_ms) };
            for event in &events[..usize::try_from(ready).unwrap_or(0)] {
                let connection = &mut self.connections[event.u64 as usize];
                if !connection.advance(&mut self.scratch).expect("the server echoes") {
                    continue;
                }
                (done, progress) = (done + 1, Instant::now());
                if begun < requests {
                    begun += 1;
                    connection.begin().expect("the server takes a message");
                }
            }
            if ready <= 0 {
                assert!(progress.elapsed() < Duration::from_secs(10), "{done} of {requests} done");
            }
        }
        start.elapsed()
    }
}

impl Connection {
    fn begin(&mut self) -> io::Result<()> {
        assert!(!self.under_way, "one message at a time");
        (self.received, self.under_way) = (0, true);
        self.tls.writer().write_all(&self.message)?;
        while self.tls.wants_write() {
            // A message is shorter than a socket's buffer.
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }

    /// Does what can be done now; true when the whole message is back.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            while let Ok(len) = self.tls.reader().read(scratch) {
                let expected = &self.message[self.received..self.received + len];
                assert!(scratch[..len] == *expected, "bytes came back changed");
                self.received += len;
            }
            if self.under_way && self.received == self.message.len() {
                self.under_way = false;
                return Ok(true);
            }
        }
    }
}

/// A connection whose handshake is over, blocking.
pub fn handshake(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<(TcpStream, ClientConnection)> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut tcp = TcpStream::connect(addr)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok((tcp, tls))
}
