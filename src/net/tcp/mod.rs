//! The types that users call for TCP. They are thin handles over the objects of `stream/`. Read
//! next: `stream.rs`.

mod connect;
mod listener;
mod race;
mod socket;
mod split;
mod stream;

pub use listener::TcpListener;
pub use socket::{TcpKeepalive, TcpSocket};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use stream::{IntoStdError, TcpStream};
