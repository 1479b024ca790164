//! Addresses to bind and connect to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Something that names one or more socket addresses without asking a name server.
///
/// Implemented for [`SocketAddr`] and its two kinds, pairs of an IP address and a port, slices,
/// arrays and vectors of addresses, and text: `"127.0.0.1:80"`, `"[::1]:80"`, `("127.0.0.1", 80)`.
/// A host name is an `InvalidInput` error: looking it up would block the thread.
///
/// # Examples
/// ```
/// use tamam::net::TcpListener;
///
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let port = listener.local_addr()?.port();
///     tamam::net::TcpStream::connect(([127, 0, 0, 1], port)).await?;
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ToSocketAddrs: sealed::Sealed {}

impl<T: sealed::Sealed + ?Sized> ToSocketAddrs for T {}

pub(crate) mod sealed {
    use std::{io, net::SocketAddr};

    pub trait Sealed {
        /// The addresses, in the order in which they are to be tried; at least one.
        fn resolve(&self) -> io::Result<Vec<SocketAddr>>;
    }
}

use sealed::Sealed;

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Sealed for SocketAddr {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self])
    }
}

/// Everything that std turns into one address.
macro_rules! one_address {
    ($($type:ty),*) => {$(
        impl Sealed for $type {
            fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
                Ok(vec![SocketAddr::from(*self)])
            }
        }
    )*};
}

one_address!(
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16),
    ([u8; 4], u16),
    ([u8; 16], u16)
);

impl Sealed for [SocketAddr] {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.is_empty() {
            Err(invalid("an empty list of addresses".into()))
        } else {
            Ok(self.to_vec())
        }
    }
}

impl<const N: usize> Sealed for [SocketAddr; N] {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        self[..].resolve()
    }
}

impl Sealed for Vec<SocketAddr> {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        self[..].resolve()
    }
}

impl Sealed for str {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let addr = self.parse().map_err(|_| {
            invalid(format!("{self:?} is not an IP address with a port; names are not looked up"))
        })?;
        Ok(vec![addr])
    }
}

impl Sealed for String {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        self[..].resolve()
    }
}

impl Sealed for (&str, u16) {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = self;
        let ip: IpAddr = host.parse().map_err(|_| {
            invalid(format!("{host:?} is not an IP address; names are not looked up"))
        })?;
        Ok(vec![SocketAddr::new(ip, *port)])
    }
}

impl<T: Sealed + ?Sized> Sealed for &T {
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).resolve()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_must_be_an_address() {
        assert_eq!(
            "[::1]:5".resolve().expect("an address"),
            ["[::1]:5".parse().expect("the same")]
        );
        assert_eq!(("127.0.0.1", 5).resolve().expect("an address")[0].port(), 5);
        for error in
            ["localhost:80", "127.0.0.1", ""].map(|text| text.resolve().expect_err("no address"))
        {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert!(Vec::new().resolve().is_err());
    }
}
