//! The two directions of a Unix stream as two values. Both are handles over the same connection.
//! Read next: `stream/mod.rs`.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::rc::Rc;

use super::stream::UnixStream;
use crate::io::{receives, transmits};
use crate::stream::{Connection, halves};
use crate::sys;

/// The receiving half of a [`UnixStream`].
///
/// Dropping it stops receiving, and the peer is pushed back. Sending goes on until the other half is
/// dropped too.
///
/// # Examples
/// See [`UnixStream::into_split`].
pub struct UnixReadHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

/// The sending half of a [`UnixStream`].
///
/// Dropping it shuts down sending: the peer sees the end after everything that was sent.
/// [`forget`](Self::forget) leaves the direction open.
///
/// # Examples
/// See [`UnixStream::into_split`].
pub struct UnixWriteHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

halves!(
    UnixStream,
    UnixReadHalf,
    UnixWriteHalf,
    UnixAddr,
    sys::unix_local_addr,
    sys::unix_peer_addr,
    "# let (client, server) = tamam::net::UnixStream::pair()?;"
);

receives!(UnixReadHalf);
transmits!(UnixWriteHalf);
