//! The types that users call for UDP. They are thin handles over the object of `datagram/`. Read
//! next: `socket.rs`.

mod socket;
mod connect;
mod options;
mod multicast;
mod builder;

pub use builder::UdpBuilder;
pub use socket::UdpSocket;
