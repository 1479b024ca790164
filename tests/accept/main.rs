//! Accepting (SEMANTICS section 5): every connection reaches exactly one `accept`, in order of
//! arrival, whatever becomes of the futures that waited; what nobody will serve is reset; and a lack
//! of descriptors costs neither a connection nor the processor.
//!
//! AC9, errors of single connections, needs a kernel that can be told what to answer: not here.

#[path = "../common/mod.rs"]
mod common;

mod who_gets_it;
mod foreign_wakers;
mod backlog;
mod unserved;
mod address;
mod incoming;
mod options;
mod descriptors;
mod no_descriptors;
mod cannot_accept;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream as StdStream};

use common::{Gone, on_epoll, start, turn};
use tamam::net::{TcpListener, TcpStream};

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// A client that is connected as far as the kernels go: it waits in the listener's backlog.
fn client(addr: SocketAddr) -> StdStream {
    let stream = StdStream::connect(addr).expect("the backlog has room");
    stream.set_read_timeout(Some(*common::PATIENCE / 4)).expect("not zero");
    stream
}

fn clients(addr: SocketAddr, count: usize) -> Vec<StdStream> {
    (0..count).map(|_| client(addr)).collect()
}

fn addr_of(client: &StdStream) -> SocketAddr {
    client.local_addr().expect("connected")
}

fn addrs_of(clients: &[StdStream]) -> Vec<SocketAddr> {
    clients.iter().map(addr_of).collect()
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.accept().await.expect("a connection")
}

/// Accepts as many as there are `expected`, which must come in this order.
async fn accept_in_order(listener: &TcpListener, expected: &[SocketAddr]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for (number, expected) in expected.iter().enumerate() {
        let (stream, peer) = accept(listener).await;
        assert_eq!(peer, *expected, "connection {number}");
        assert_eq!(stream.peer_addr().expect("it was connected"), *expected);
        streams.push(stream);
    }
    streams
}

/// How many connections the listener holds that nobody took.
fn parked(listener: &TcpListener) -> usize {
    let text = format!("{listener:?}");
    let (_, number) = text.split_once("parked: ").expect("the listener says how many");
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// One client comes and goes, so that the accept of the next call takes all that come: the first
/// takes one (AC3).
async fn serve_one(listener: &TcpListener, addr: SocketAddr) {
    let first = client(addr);
    let (_stream, peer) = accept(listener).await;
    assert_eq!(peer, addr_of(&first));
}

/// Connects `count` clients to a listener with an accept in flight, whose future has gone. Under
/// epoll an accept is in flight only if it found nobody: there they come after it.
async fn arriving(
    listener: &TcpListener,
    addr: SocketAddr,
    gone: Gone,
    count: usize,
) -> Vec<StdStream> {
    if parked(listener) == 0 {
        serve_one(listener, addr).await;
    }
    let early = if on_epoll() { Vec::new() } else { clients(addr, count) };
    gone.leave(start(listener.accept()).await);
    if on_epoll() { clients(addr, count) } else { early }
}

/// As [`arriving`], and waits until the accept has brought what it brings.
async fn park(
    listener: &TcpListener,
    addr: SocketAddr,
    gone: Gone,
    count: usize,
) -> Vec<StdStream> {
    let clients = arriving(listener, addr, gone, count).await;
    until_parked(listener, count).await;
    clients
}

/// Waits until the accept in flight has brought `count`, or as many as a small queue has room for:
/// the kernel ends the accept there, and it starts again when somebody asks. Under epoll it brings
/// one.
async fn until_parked(listener: &TcpListener, count: usize) {
    while parked(listener) < count && tamam::metrics().ops > 0 {
        turn().await;
    }
}

fn is_connection_reset(client: &mut StdStream) -> bool {
    matches!(client.read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}
