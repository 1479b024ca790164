//! Addresses to bind and connect to.
//!
//! No host name is looked up here. Read next: `resolve.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Something that names one or more socket addresses, or a host and a port.
///
/// Implemented for [`SocketAddr`] and its two kinds, pairs of an IP address and a port, slices,
/// arrays and vectors of addresses, and text: `"127.0.0.1:80"`, `"[::1]:80"`, `("127.0.0.1", 80)`,
/// `"example.org:443"`, `("example.org", 443)`.
///
/// Only async calls look host names up: [`TcpStream::connect`](crate::net::TcpStream::connect),
/// [`TcpStream::connect_staggered`](crate::net::TcpStream::connect_staggered) and
/// [`lookup_host`](crate::net::lookup_host). Calls that are not async, such as
/// [`TcpListener::bind`](crate::net::TcpListener::bind), fail with `InvalidInput`: a lookup would
/// block the thread.
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
pub trait ToSocketAddrs: sealed::AddrSource {}

impl<T: sealed::AddrSource + ?Sized> ToSocketAddrs for T {}

pub(crate) mod sealed {
    use std::{io, net::SocketAddr};

    /// What is named.
    pub enum Destination {
        /// At least one, in the order in which they are tried.
        Addrs(Vec<SocketAddr>),
        /// A host that is no IP address, and a port.
        Name(String, u16),
    }

    pub trait AddrSource {
        /// What `self` names; nothing is looked up. `InvalidInput` if it is malformed, or an empty
        /// list.
        fn destination(&self) -> io::Result<Destination>;

        /// The addresses, for callers that cannot wait for a lookup; `InvalidInput` for a host
        /// name.
        fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
            match self.destination()? {
                Destination::Addrs(addrs) => Ok(addrs),
                Destination::Name(host, port) => Err(super::invalid(format!(
                    "{host:?} is a host name, and looking it up would block: give what \
                     tamam::net::lookup_host(\"{host}:{port}\").await says"
                ))),
            }
        }
    }
}

use sealed::AddrSource;
pub(crate) use sealed::Destination;

/// What `attempt` gives for the first of `addrs` that does not fail, or the error of the last.
pub(super) fn first_of<T>(
    addrs: Vec<SocketAddr>,
    attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for result in addrs.into_iter().map(attempt) {
        match result {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is at least one address"))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl AddrSource for SocketAddr {
    fn destination(&self) -> io::Result<Destination> {
        Ok(Destination::Addrs(vec![*self]))
    }
}

/// The types that std converts into one address.
macro_rules! one_address {
    ($($type:ty),*) => {$(
        impl AddrSource for $type {
            fn destination(&self) -> io::Result<Destination> {
                SocketAddr::from(*self).destination()
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

impl AddrSource for [SocketAddr] {
    fn destination(&self) -> io::Result<Destination> {
        if self.is_empty() {
            Err(invalid("an empty list of addresses".into()))
        } else {
            Ok(Destination::Addrs(self.to_vec()))
        }
    }
}

impl<const N: usize> AddrSource for [SocketAddr; N] {
    fn destination(&self) -> io::Result<Destination> {
        self[..].destination()
    }
}

impl AddrSource for Vec<SocketAddr> {
    fn destination(&self) -> io::Result<Destination> {
        self[..].destination()
    }
}

impl AddrSource for str {
    fn destination(&self) -> io::Result<Destination> {
        if let Ok(addr) = self.parse::<SocketAddr>() {
            return addr.destination();
        }
        let form = |why: &str| invalid(format!("{self:?} is not of the form host:port: {why}"));
        if self.contains("://") {
            return Err(form("it is a URL, give its host and its port"));
        }
        let (host, port) = self.rsplit_once(':').ok_or_else(|| form("it has no port"))?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(form("the port is not a number"));
        }
        let port = port.parse().map_err(|_| form("the port is above 65535"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bracketed {
            // `[fe80::1%eth0]`: the system knows the number of the interface.
            Some(inner) if inner.contains('%') => (inner, port).destination(),
            Some(_) => Err(form("what is in brackets is no IPv6 address")),
            None if host.contains(':') => Err(form("an IPv6 address needs brackets, [::1]:80")),
            None => (host, port).destination(),
        }
    }
}

impl AddrSource for String {
    fn destination(&self) -> io::Result<Destination> {
        self[..].destination()
    }
}

impl AddrSource for (&str, u16) {
    fn destination(&self) -> io::Result<Destination> {
        let (host, port) = *self;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return SocketAddr::new(ip, port).destination();
        }
        // Hosts in URLs have brackets.
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(Ok(ip)) = bracketed.map(str::parse::<Ipv6Addr>) {
            return (ip, port).destination();
        }
        if host.is_empty() {
            let text = format!(":{port}");
            return Err(invalid(format!("the host of {text:?} is empty")));
        }
        if host.contains('\0') {
            let text = format!("{host}:{port}");
            return Err(invalid(format!("a host name contains no zero byte: {text:?}")));
        }
        Ok(Destination::Name(host.to_owned(), port))
    }
}

impl AddrSource for (String, u16) {
    fn destination(&self) -> io::Result<Destination> {
        (&self.0[..], self.1).destination()
    }
}

impl<T: AddrSource + ?Sized> AddrSource for &T {
    fn destination(&self) -> io::Result<Destination> {
        (**self).destination()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_an_address_or_a_name() {
        assert_eq!(
            "[::1]:5".resolve().expect("an address"),
            ["[::1]:5".parse().expect("the same")]
        );
        assert_eq!(("127.0.0.1", 5).resolve().expect("an address")[0].port(), 5);
        assert!(("[::1]", 5).resolve().expect("as in a URL")[0].is_ipv6());
        for (text, host) in
            [("localhost:80", "localhost"), ("a.b:80", "a.b"), ("[fe80::1%lo]:80", "fe80::1%lo")]
        {
            let Ok(Destination::Name(name, 80)) = text.destination() else {
                panic!("{text}: no name")
            };
            assert_eq!(name, host);
            assert_eq!(text.resolve().expect_err("a name").kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for text in [
            "",
            "127.0.0.1",
            "localhost",
            ":80",
            "a:",
            "a:b",
            "a:+1",
            "a:65536",
            "a:-1",
            "::1:80",
            "[::1]",
            "[a]:80",
            "[]:80",
            "http://a:80",
            "a\0b:80",
        ] {
            let error = text.destination().err().unwrap_or_else(|| panic!("{text:?} is accepted"));
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&text.escape_debug().to_string()), "{error}");
        }
        assert!(Vec::new().resolve().is_err());
    }
}
