//! The user types of TCP: thin handles over `connection/`, and the listener.

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
