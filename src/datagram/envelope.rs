//! What is said of a datagram that is sent, beside its bytes. What a received one says is in
//! `record.rs`: read that next.

use std::io;
use std::net::IpAddr;

use super::DatagramAddr;
use crate::sys::addr::SockAddr;
use crate::sys::control::Control;

/// The most bytes that a datagram of IP has, without its own header.
const SEGMENT_MAX: usize = 65_527;

/// Where a datagram goes, and how: for [`UdpSocket::send_msg`](crate::net::UdpSocket::send_msg).
///
/// Its default says nothing: the datagram goes to the peer of a connected socket, from the address
/// that the system chooses.
///
/// # Examples
/// An answer that comes from the address that was asked:
/// ```
/// use tamam::net::{Envelope, UdpSocket};
///
/// # tamam::run(async {
/// let server = UdpSocket::bind("0.0.0.0:0")?;
/// server.set_packet_info(true)?; // it hears where a datagram was sent to
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// let port = server.local_addr()?.port();
/// client.send_to("ping", ([127, 0, 0, 9], port)).await?;
///
/// let asked = server.recv().await?;
/// let answer = Envelope { to: Some(asked.from), from: asked.to, ..Envelope::default() };
/// server.send_msg("pong", answer).await?;
///
/// let answer = client.recv().await?;
/// assert_eq!(answer.from, ([127, 0, 0, 9], port).into());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<A = std::net::SocketAddr> {
    /// Whom it goes to. `None`: to the peer of the socket.
    pub to: Option<A>,
    /// Which of its own addresses it comes from. `None`: the system chooses.
    pub from: Option<IpAddr>,
    /// What it says about congestion. `None`: what the socket's type of service says.
    pub ecn: Option<Ecn>,
    /// The bytes are several datagrams, each of this size; the last one may be shorter. `None`: they
    /// are one.
    pub segment_size: Option<usize>,
}

impl<A> Default for Envelope<A> {
    fn default() -> Envelope<A> {
        Envelope { to: None, from: None, ecn: None, segment_size: None }
    }
}

/// Explicit congestion notification (RFC 3168): two bits in the header of each IP packet.
///
/// # Examples
/// ```
/// use tamam::net::{Ecn, Envelope, UdpSocket};
///
/// # tamam::run(async {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.set_packet_info(true)?;
/// let to = Some(socket.local_addr()?);
/// let envelope = Envelope { to, ecn: Some(Ecn::Ect0), ..Envelope::default() };
/// socket.send_msg("capable", envelope).await?;
/// assert_eq!(socket.recv().await?.ecn, Some(Ecn::Ect0));
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not know of it: 00.
    NotEct,
    /// The transport knows of it: 01.
    Ect1,
    /// The transport knows of it: 10.
    Ect0,
    /// A router on the way was congested: 11.
    Ce,
}

impl Ecn {
    /// The lowest two bits of a type of service.
    pub(super) fn of_bits(bits: u8) -> Ecn {
        match bits & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    fn bits(self) -> libc::c_int {
        match self {
            Ecn::NotEct => 0b00,
            Ecn::Ect1 => 0b01,
            Ecn::Ect0 => 0b10,
            Ecn::Ce => 0b11,
        }
    }
}

impl<A> Envelope<A> {
    /// `InvalidInput` if the size of its segments is none that a datagram can have.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.segment_size {
            Some(size) if !(1..=SEGMENT_MAX).contains(&size) => {
                let text = format!("a segment of {size} bytes: it can have 1 to {SEGMENT_MAX}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
            _ => Ok(()),
        }
    }
}

/// The address of a message, and its control data. `segment_len`: the kernel divides the message.
pub(super) fn message_parts<A: DatagramAddr>(
    envelope: &Envelope<A>,
    segment_len: Option<u16>,
) -> (Option<SockAddr>, Control) {
    (envelope.to.as_ref().map(A::to_kernel), control_of(envelope, segment_len))
}

/// The control data of a message. `segment_len`: the kernel divides the message.
#[inline]
pub(super) fn control_of<A>(envelope: &Envelope<A>, segment_len: Option<u16>) -> Control {
    let mut control = Control::EMPTY;
    if let Some(ecn) = envelope.ecn {
        // Each family reads the entry of its own level and passes over the other.
        let bits = ecn.bits().to_ne_bytes();
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &bits);
        control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &bits);
    }
    match envelope.from {
        None => {}
        Some(IpAddr::V4(ip)) => {
            // `struct in_pktinfo`: an interface, the address to send from, and one that is not
            // read.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            // `struct in6_pktinfo`: the address to send from, and an interface.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
    }
    if let Some(len) = segment_len {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }
    control
}
