//! Unix sockets: what people call. The objects below are those of TCP (`stream/`), told apart by
//! `Medium`, and of UDP (`datagram/`), told apart by the type of their addresses. Read next:
//! `stream.rs`.

mod stream;
mod split;
mod descriptors;
mod listener;
mod unlink;
mod datagram;
mod peers;

pub use datagram::UnixDatagram;
pub use listener::UnixListener;
pub use split::{UnixReadHalf, UnixWriteHalf};
pub use stream::{UnixCred, UnixStream};
pub use unlink::UnlinkOnDrop;

use std::io;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;

use crate::io::CallError;

/// The address of a path, for `call`. `InvalidInput` if it has 108 bytes or more, or a zero byte.
fn addr_of(call: &'static str, path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::from_pathname(path).map_err(|error| CallError::wrap(call, path.display(), error))
}

/// An address in the form that errors show: the path, `@` and the name, or nothing.
fn shown(addr: &UnixAddr) -> String {
    use std::os::linux::net::SocketAddrExt;
    match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => "an unnamed address".to_owned(),
    }
}
