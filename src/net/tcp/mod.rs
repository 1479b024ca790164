//! The types that users call for TCP. They are thin handles over the objects of `stream/`. Read
//! next: `stream.rs`.

mod stream;
mod options;
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
