//! Which types may be used after a panic that was caught: `UnwindSafe` and `RefUnwindSafe`, where the
//! compiler cannot tell. Read next: `deferred.rs`.
//!
//! The compiler sees a cell or a raw pointer in these types, and takes them for ones that a panic may
//! leave half changed. It cannot, since a panic in foreign code never interrupts a change of state:
//!
//! - No foreign code (a waker, a buffer, a closure) runs while a state is borrowed, so none of its
//!   panics finds a change under way (invariant 3). What such code can see is whole, before and after.
//! - A future of a user's that panics is dropped, and its task has ended (SEMANTICS TK4); the panic of
//!   `block_on`'s own leaves the runtime usable (TK5).
//! - TLS calls foreign code (a provider, a verifier) in the middle of its work. After a panic there,
//!   every other call on the stream fails for ever (TL23).
//!
//! `tests/auto_traits.rs` has the table of all public types. Those with a foreign value inside (an
//! `io::Error`, a resolver, a config of rustls) are not listed here: that value decides.

use std::os::fd::AsFd;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::driver::Chunk;
use crate::executor::{AbortHandle, JoinHandle};
use crate::io::{AnyStream, DuplexStream, Readiness, Stderr, Stdin, Stdout};
use crate::net::{Incoming, OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpSocket, TcpStream};
use crate::net::{UdpSocket, UnixDatagram, UnixListener, UnixReadHalf, UnixStream, UnixWriteHalf};
use crate::pipe::{Receiver, Sender};
use crate::runtime::Runtime;
use crate::time::Sleep;
#[cfg(feature = "tls")]
use crate::tls::{TlsReadHalf, TlsStream, TlsWriteHalf};

macro_rules! whole_after_a_panic {
    ($($type:ty),*) => {$(
        impl UnwindSafe for $type {}
        impl RefUnwindSafe for $type {}
    )*};
}

// An error that a socket keeps is the system's, with no foreign value inside. A runtime shows nothing
// of the resolver that it was given: tasks whose panics are contained share that one anyway.
whole_after_a_panic!(Runtime, AbortHandle, Chunk, Sleep, TcpListener, Incoming<'_>, TcpSocket);
whole_after_a_panic!(TcpStream, OwnedReadHalf, OwnedWriteHalf);
whole_after_a_panic!(UnixListener, UnixStream, UnixReadHalf, UnixWriteHalf, Receiver, Sender);
whole_after_a_panic!(UdpSocket, UnixDatagram, DuplexStream, AnyStream, Stdin, Stdout, Stderr);
#[cfg(feature = "tls")]
whole_after_a_panic!(TlsStream, TlsReadHalf, TlsWriteHalf);

/// A handle shows nothing of the output but all of it, at once.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T: AsFd + UnwindSafe> UnwindSafe for Readiness<T> {}
impl<T: AsFd + RefUnwindSafe> RefUnwindSafe for Readiness<T> {}
