//! The load over TLS: one thread, plain sockets, rustls' buffered connections, epoll; built on neither
//! runtime. Every byte that comes back is compared.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tamam::tls::rustls::pki_types::ServerName;
use tamam::tls::rustls::{ClientConfig, ClientConnection};

use super::client::{Poller, Watch};

/// Connections that stay open, each with one message under way.
pub struct TlsClient {
    poller: Poller,
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
        let poller = Poller::new()?;
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
            poller.add(&tcp, libc::EPOLLIN, index)?;
            connections.push(Connection { tcp, tls, message, received: 0, under_way: false });
        }
        Ok(TlsClient { poller, connections, scratch: vec![0; 16 * 1024] })
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
