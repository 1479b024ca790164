//! The types that users call for TCP. They are thin handles over the objects of `stream/`. Read
//! next: `stream.rs`.

mod stream;
mod split;
mod establish;
mod connect;
mod race;
mod into_std;
mod listener;
mod incoming;
mod socket;
mod options;

pub use incoming::Incoming;
pub use into_std::IntoStdError;
pub use listener::TcpListener;
pub use options::{TcpKeepalive, TcpOptions};
pub use socket::TcpSocket;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use stream::TcpStream;
