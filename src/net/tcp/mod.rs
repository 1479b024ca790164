//! The user types of TCP: thin handles over `stream/`.

mod stream;
mod split;
mod establish;
mod connect;
mod race;
mod into_std;
mod listener;
mod socket;

pub use into_std::IntoStdError;
pub use listener::TcpListener;
pub use socket::{TcpKeepalive, TcpSocket};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use stream::TcpStream;
