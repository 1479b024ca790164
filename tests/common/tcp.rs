//! TCP as the family of the streams under test: see `unix.rs` for the other one.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of it")]

use std::io::ErrorKind;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd;

pub use tamam::net::TcpStream as Stream;
use tamam::net::{TcpListener, TcpSocket};

use crate::common::PATIENCE;
pub use crate::common::{narrow_pair, pair, reset};

/// Whether the streams are Unix sockets: for what may differ (SEMANTICS UX1).
pub const UNIX: bool = false;

/// What a send is told after the peer has reset.
pub const SEND_AFTER_RESET: ErrorKind = ErrorKind::ConnectionReset;

/// A pair of which the stream has asked for so large a receive buffer.
pub async fn inbound_pair(receive_buffer: u32) -> (Stream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let socket = TcpSocket::new_v4().expect("a socket").recv_buffer_size(receive_buffer);
    let connected = socket.connect(listener.local_addr().expect("bound")).await;
    let (peer, _) = listener.accept().expect("it is there");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    (connected.expect("it listens"), peer)
}

/// A stream whose receives stall the peer early: small kernel buffers on that way.
pub async fn narrow_inbound() -> (Stream, StdStream) {
    let (stream, peer) = inbound_pair(16 * 1024).await;
    let len: libc::c_int = 16 * 1024;
    let (value, size) = ((&raw const len).cast(), size_of_val(&len) as libc::socklen_t);
    // SAFETY: an int is passed, with its length.
    let done = unsafe {
        libc::setsockopt(peer.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, value, size)
    };
    assert_eq!(done, 0, "SO_SNDBUF can be set");
    peer.set_nodelay(true).expect("a TCP socket");
    peer.set_write_timeout(Some(*PATIENCE)).expect("not zero");
    (stream, peer)
}

/// A stream that was accepted, and the std socket that has connected.
pub async fn accepted_pair() -> (Stream, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let peer = StdStream::connect(listener.local_addr().expect("bound")).expect("connects");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    (listener.accept().await.expect("it is there").0, peer)
}

/// Discards what is queued when the stream is dropped.
pub fn discard(stream: &Stream) {
    stream.set_zero_linger().expect("a socket");
}
