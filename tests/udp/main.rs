//! UDP (SEMANTICS section UDP): every datagram that the kernel accepted reaches exactly one call,
//! whole and in order, whatever becomes of the futures that waited; an error is that of one call; and
//! nothing is left when the socket goes.

#[path = "../common/mod.rs"]
mod common;

mod receive;
mod buffers;
mod unread;
mod foreign_wakers;
mod refused;
mod send;
mod segments;
mod options;
mod multicast;
mod load;
mod ends;

use std::net::{SocketAddr, UdpSocket as StdSocket};

use common::turn;
use tamam::net::{Datagram, UdpSocket};

/// A socket that hears all that there is to know of a datagram.
fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.set_packet_info(true).expect("a socket");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

/// A socket of std's, connected to `addr`.
fn peer(addr: SocketAddr) -> StdSocket {
    let any = if addr.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
    let peer = StdSocket::bind(any).expect("loopback has ports");
    peer.connect(addr).expect("loopback has a route");
    peer.set_read_timeout(Some(*common::PATIENCE / 4)).expect("not zero");
    peer
}

/// A socket and a peer, connected to each other.
async fn pair() -> (UdpSocket, StdSocket) {
    let (socket, addr) = bound();
    let peer = peer(addr);
    socket.connect(peer.local_addr().expect("bound")).await.expect("loopback has a route");
    (socket, peer)
}

async fn recv(socket: &UdpSocket) -> Datagram {
    socket.recv().await.expect("a datagram")
}

/// Receives as many as there are `expected`, which must come in this order.
async fn recv_in_order(socket: &UdpSocket, expected: impl IntoIterator<Item = Vec<u8>>) {
    for (number, expected) in expected.into_iter().enumerate() {
        let datagram = recv(socket).await;
        assert_eq!(datagram.chunk[..], expected[..], "datagram {number}");
    }
}

/// How many datagrams the socket holds that nobody took.
fn unread(socket: &UdpSocket) -> usize {
    let text = format!("{socket:?}");
    let (_, number) = text.split_once("unread: ").expect("the socket says how many");
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Waits until the receive in flight has brought `count` datagrams, or has ended: under epoll it
/// brings one.
async fn until_unread(socket: &UdpSocket, count: usize) {
    while unread(socket) < count && tamam::metrics().ops > 0 {
        turn().await;
    }
}

/// The number of a datagram, and bytes that make it as long as this.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len.max(4)];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes
}
