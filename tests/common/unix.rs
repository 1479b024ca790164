//! Unix sockets as the family of the streams under test, with the names of `tcp.rs`. The peer has the
//! type of a std TCP stream, so that the tests need no second one: std asks no socket what it is.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of it")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

pub use tamam::net::UnixStream as Stream;
use tamam::net::{UnixAddr, UnixListener};

use crate::common::PATIENCE;

/// Whether the streams are Unix sockets: for what may differ (SEMANTICS UX1).
pub const UNIX: bool = true;

/// What a send is told after the peer has reset: the kernel keeps the reset for the receive.
pub const SEND_AFTER_RESET: ErrorKind = ErrorKind::BrokenPipe;

thread_local! {
    /// The descriptor of the stream at the other end of each peer.
    static STREAMS: RefCell<HashMap<RawFd, RawFd>> = RefCell::default();
}

/// A stream of the runtime and the std socket at its other end.
pub async fn pair() -> (Stream, StdStream) {
    let (ours, theirs) = StdUnixStream::pair().expect("a pair");
    let stream = Stream::from_std(ours).expect("inside a runtime");
    theirs.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    let peer = StdStream::from(OwnedFd::from(theirs));
    STREAMS.with_borrow_mut(|streams| {
        streams.insert(peer.as_raw_fd(), stream.as_fd().as_raw_fd());
    });
    (stream, peer)
}

/// As [`pair`], with a small kernel buffer at both ends, so that sends stall early.
pub async fn narrow_pair() -> (Stream, StdStream) {
    let (stream, peer) = pair().await;
    for socket in [stream.as_fd().as_raw_fd(), peer.as_raw_fd()] {
        let bytes: libc::c_int = 4096;
        let (value, len) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
        // SAFETY: `value` leads to an int, the type of the option.
        let done =
            unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, value, len) };
        assert_eq!(done, 0, "SO_SNDBUF can be set");
    }
    (stream, peer)
}

/// A pair with the kernel's own sizes: the buffers of a Unix socket are the sender's.
pub async fn inbound_pair(_receive_buffer: u32) -> (Stream, StdStream) {
    pair().await
}

/// A stream whose receives stall the peer early: a small kernel buffer on that way.
pub async fn narrow_inbound() -> (Stream, StdStream) {
    let (stream, peer) = narrow_pair().await;
    peer.set_write_timeout(Some(*PATIENCE)).expect("not zero");
    (stream, peer)
}

/// A stream that was accepted, and the std socket that has connected.
pub async fn accepted_pair() -> (Stream, StdStream) {
    let unnamed = UnixAddr::from_pathname("").expect("as std has it");
    let listener = UnixListener::bind_addr(&unnamed).expect("the kernel chooses a name");
    let addr = listener.local_addr().expect("bound");
    let peer = StdUnixStream::connect_addr(&addr).expect("connects");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    let stream = listener.accept().await.expect("it is there").0;
    (stream, StdStream::from(OwnedFd::from(peer)))
}

/// Nothing is left to discard: the peer is gone, or reads no more.
pub fn discard(_stream: &Stream) {}

/// Makes the peer's drop reset the connection: it closes with a byte unread.
pub fn reset(peer: StdStream) {
    let stream = STREAMS.with_borrow(|streams| streams[&peer.as_raw_fd()]);
    // SAFETY: the pointer leads to one readable byte. A full socket has unread bytes already.
    unsafe {
        libc::send(stream, [0u8].as_ptr().cast(), 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    drop(peer);
}
