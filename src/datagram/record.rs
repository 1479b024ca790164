//! What a received datagram says: read from the record that the kernel has written
//! (`driver/incoming.rs`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DatagramAddr, Ecn};
use crate::buf::Chunk;
use crate::driver::{RECORD_HEAD, Record, error};
use crate::sys::control;

/// A received datagram.
///
/// Its bytes stay where the kernel put them. As every [`Chunk`], it can be kept for as long as you
/// like; one socket holds at most a quarter of the runtime's buffers for datagrams, and what comes
/// beyond that is on the heap.
///
/// # Examples
/// ```
/// use tamam::net::UdpSocket;
///
/// # tamam::run(async {
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to("hello", server.local_addr()?).await?;
///
/// let datagram = server.recv().await?;
/// assert_eq!(&datagram.chunk[..], b"hello");
/// assert_eq!(datagram.from, client.local_addr()?);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[non_exhaustive]
pub struct Datagram<A = std::net::SocketAddr> {
    /// Its bytes; of several datagrams, if the kernel has merged them: see
    /// [`segments`](Self::segments).
    pub chunk: Chunk,
    /// Who has sent it.
    pub from: A,
    /// The address that it was sent to: one of this host, of a multicast group, or a broadcast. Of
    /// an IPv4 datagram at an IPv6 socket it is `::ffff:a.b.c.d`. `None` unless the socket has been
    /// told to ask for it: [`set_packet_info`](crate::net::UdpSocket::set_packet_info).
    pub to: Option<IpAddr>,
    /// What it says about congestion. `None`, as `to`, unless it was asked for.
    pub ecn: Option<Ecn>,
    /// The size of each datagram in `chunk` but the last one, which may be shorter. The length of
    /// `chunk` if it is one.
    pub segment_size: usize,
}

impl<A> Datagram<A> {
    /// The datagrams, one after the other: several only if the kernel has merged them, see
    /// [`UdpSocket::set_gro`](crate::net::UdpSocket::set_gro).
    ///
    /// # Examples
    /// ```
    /// use tamam::net::UdpSocket;
    ///
    /// # tamam::run(async {
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// server.set_gro(true)?;
    /// let client = UdpSocket::bind("127.0.0.1:0")?;
    /// client.send_segments(vec![7; 2500], 1000, server.local_addr()?).await?;
    ///
    /// let mut sizes = Vec::new();
    /// while sizes.len() < 3 {
    ///     sizes.extend(server.recv().await?.segments().map(<[u8]>::len));
    /// }
    /// assert_eq!(sizes, [1000, 1000, 500]);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        // A datagram without bytes is one, too.
        let empty = self.chunk.is_empty().then_some(&[][..]);
        empty.into_iter().chain(self.chunk.chunks(self.segment_size.max(1)))
    }
}

/// Reads a record. It is an error if the sender's address is of another family, or if the datagram was
/// cut off.
#[inline]
pub(crate) fn read_record<A: DatagramAddr>(mut chunk: Chunk) -> io::Result<Datagram<A>> {
    let record = Record::new(&chunk).expect("the kernel writes whole records");
    let from = A::from_kernel(record.name())?;
    if record.is_cut() {
        return Err(error(libc::EMSGSIZE));
    }
    let (mut to, mut ecn, mut segment_size) = (None, None, None);
    for (level, kind, data) in control::entries(record.control()) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => to = to_v4(data).or(to),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => to = to_v6(data).or(to),
            // The first is one byte, the second an int.
            (libc::IPPROTO_IP, libc::IP_TOS) => ecn = data.first().copied(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ecn = int(data).map(|bits| bits as u8),
            (libc::SOL_UDP, libc::UDP_GRO) => segment_size = int(data),
            _ => {}
        }
    }
    chunk.advance(RECORD_HEAD);
    let merged = segment_size.and_then(|size| usize::try_from(size).ok());
    let segment_size = merged.filter(|size| *size > 0).unwrap_or(chunk.len());
    Ok(Datagram { chunk, from, to, ecn: ecn.map(Ecn::of_bits), segment_size })
}

fn int(data: &[u8]) -> Option<libc::c_int> {
    data.first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes))
}

/// The address in the header of the packet, the last of `struct in_pktinfo`.
fn to_v4(info: &[u8]) -> Option<IpAddr> {
    let octets: &[u8; 4] = info.get(8..12)?.first_chunk()?;
    Some(Ipv4Addr::from(*octets).into())
}

/// The first of `struct in6_pktinfo`.
fn to_v6(info: &[u8]) -> Option<IpAddr> {
    let octets: &[u8; 16] = info.first_chunk()?;
    Some(Ipv6Addr::from(*octets).into())
}

impl<A: fmt::Debug> fmt::Debug for Datagram<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("chunk", &self.chunk)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("ecn", &self.ecn)
            .field("segment_size", &self.segment_size)
            .finish()
    }
}
