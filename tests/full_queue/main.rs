//! Queues that are always full: however small the rings, no cancel is lost or sent twice, no
//! completion is lost, no byte is out of order, and nobody starves (SEMANTICS CX15, G9).

#[path = "../common/mod.rs"]
mod common;

mod cancels;
mod load;
mod budget;
mod refused_submissions;

use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;

use tamam::net::TcpStream;
use tamam::{Builder, Runtime};

/// Rings of so few entries, and buffers so small that a `read` of [`ROOM`] is lent to the kernel.
fn rings(entries: u32, completion_entries: u32) -> Builder {
    Runtime::builder().entries(entries).completion_entries(completion_entries).buffer_size(16)
}

/// A stream over any connected socket.
fn stream(socket: impl Into<OwnedFd>) -> TcpStream {
    TcpStream::from_std(StdStream::from(socket.into())).expect("inside a runtime")
}
