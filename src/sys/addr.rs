//! Addresses to and from the kernel's sockaddr; ip(7), ipv6(7), unix(7). Read next: `socket.rs`.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

/// A socket address in the form that system calls take.
#[derive(Clone)]
pub(crate) struct SockAddr {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl SockAddr {
    pub(crate) fn new(addr: SocketAddr) -> SockAddr {
        // SAFETY: sockaddr_storage consists of integers, for which all zeroes are valid.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let len = match addr {
            SocketAddr::V4(addr) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is as large and as aligned as any sockaddr.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
                mem::size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(addr) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                // SAFETY: sockaddr_storage is as large and as aligned as any sockaddr.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
                mem::size_of::<libc::sockaddr_in6>()
            }
        };
        SockAddr { storage, len: len as libc::socklen_t }
    }

    /// The address of a Unix socket: a path with a zero byte behind it, a name behind a zero byte, or
    /// nothing.
    pub(crate) fn unix(addr: &UnixAddr) -> SockAddr {
        // SAFETY: sockaddr_un consists of integers, for which all zeroes are valid.
        let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let (start, name, end) = match (addr.as_pathname(), addr.as_abstract_name()) {
            (Some(path), _) => (0, path.as_os_str().as_bytes(), 1),
            (None, Some(name)) => (1, name, 0),
            (None, None) => (0, &[][..], 0),
        };
        // A `UnixAddr` holds no name that is too long.
        for (place, byte) in raw.sun_path[start..].iter_mut().zip(name) {
            *place = *byte as libc::c_char;
        }
        let len = mem::offset_of!(libc::sockaddr_un, sun_path) + start + name.len() + end;
        // SAFETY: sockaddr_storage consists of integers, for which all zeroes are valid.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        // SAFETY: sockaddr_storage is as large and as aligned as any sockaddr.
        unsafe { (&raw mut storage).cast::<libc::sockaddr_un>().write(raw) };
        SockAddr { storage, len: len as libc::socklen_t }
    }

    /// The address that `call` writes. It gets zeroed memory with room for any address, and the
    /// length of that room, which it may change to the length of the address. The error is that of
    /// `call`.
    pub(crate) fn from_kernel(
        call: impl FnOnce(*mut libc::sockaddr, &mut libc::socklen_t) -> io::Result<()>,
    ) -> io::Result<SockAddr> {
        // SAFETY: sockaddr_storage consists of integers, for which all zeroes are valid.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        call((&raw mut storage).cast(), &mut len)?;
        Ok(SockAddr { storage, len })
    }

    /// It is an error if the address is not that of a Unix socket.
    pub(crate) fn to_unix(&self) -> io::Result<UnixAddr> {
        if i32::from(self.storage.ss_family) != libc::AF_UNIX {
            let text = format!("not a Unix socket (address family {})", self.storage.ss_family);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // SAFETY: the storage is as large and as aligned as any sockaddr, and all of it is
        // initialised. Every byte pattern is a valid sockaddr_un.
        let raw = unsafe { (&raw const self.storage).cast::<libc::sockaddr_un>().read() };
        let len = self.len as usize - mem::offset_of!(libc::sockaddr_un, sun_path);
        let name: Vec<u8> = raw.sun_path.iter().take(len).map(|byte| *byte as u8).collect();
        match name.split_first() {
            None => UnixAddr::from_pathname(""), // as std makes an unnamed address
            Some((0, name)) => UnixAddr::from_abstract_name(name),
            Some(_) => {
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                UnixAddr::from_pathname(std::ffi::OsStr::from_bytes(&name[..end]))
            }
        }
    }

    /// It is an error if the address is neither IPv4 nor IPv6.
    pub(crate) fn to_std(&self) -> io::Result<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the storage is as large and as aligned as any sockaddr, and all of it is
                // initialised: it was zeroed before an address was written. Every byte pattern is a
                // valid sockaddr_in.
                let raw = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above, for sockaddr_in6.
                let raw = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                let port = u16::from_be(raw.sin6_port);
                Ok(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
            }
            family => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("not an internet socket (address family {family})"),
            )),
        }
    }

    /// The address that these bytes are, as the kernel has written them. It is an error if it is
    /// neither IPv4 nor IPv6.
    pub(crate) fn from_bytes(bytes: &[u8]) -> io::Result<SocketAddr> {
        SockAddr::copied(bytes)?.to_std()
    }

    /// As [`from_bytes`](Self::from_bytes), of a Unix socket. No bytes are an unnamed address: so the
    /// kernel says it of a sender.
    pub(crate) fn unix_from_bytes(bytes: &[u8]) -> io::Result<UnixAddr> {
        match bytes {
            [] => UnixAddr::from_pathname(""),
            bytes => SockAddr::copied(bytes)?.to_unix(),
        }
    }

    fn copied(bytes: &[u8]) -> io::Result<SockAddr> {
        SockAddr::from_kernel(|addr, len| {
            let count = bytes.len().min(*len as usize);
            // SAFETY: `from_kernel` gives memory of its own that is writable for `len` bytes, and
            // `count` is no more.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), addr.cast(), count) };
            *len = count as libc::socklen_t;
            Ok(())
        })
    }

    /// The address as it is part of other structs of the kernel.
    pub(crate) fn storage(&self) -> libc::sockaddr_storage {
        self.storage
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["127.0.0.1:1", "255.254.253.252:65535", "[::1]:80", "[fe80::1:2%7]:443"] {
            let addr: SocketAddr = text.parse().expect("a literal address");
            let raw = SockAddr::new(addr);
            assert_eq!(raw.to_std().expect("a known family"), addr);
            assert_eq!(SockAddr::from_bytes(bytes_of(&raw)).expect("a known family"), addr);
        }
    }

    fn bytes_of(addr: &SockAddr) -> &[u8] {
        // SAFETY: the pointer leads to an address of this length, which is borrowed.
        unsafe { std::slice::from_raw_parts(addr.as_ptr().cast(), addr.len() as usize) }
    }

    #[test]
    fn names_of_unix_sockets_survive_the_way_there_and_back() {
        let path = "p".repeat(107);
        for path in ["a", "/a/b", &path] {
            let addr = UnixAddr::from_pathname(path).expect("short enough");
            let raw = SockAddr::unix(&addr);
            let copy = SockAddr::unix_from_bytes(bytes_of(&raw));
            for back in [raw.to_unix(), copy] {
                let back = back.expect("the family");
                assert_eq!(back.as_pathname(), Some(std::path::Path::new(path)));
            }
        }
        for name in [&b""[..], b"a", b"a\0b\0", &[0xff; 107]] {
            let addr = UnixAddr::from_abstract_name(name).expect("short enough");
            let back = SockAddr::unix(&addr).to_unix().expect("the family");
            assert_eq!(back.as_abstract_name(), Some(name));
        }
        let addr = UnixAddr::from_pathname("").expect("as std does");
        let raw = SockAddr::unix(&addr);
        assert!(raw.to_unix().expect("the family").is_unnamed());
        for bytes in [&[][..], bytes_of(&raw)] {
            assert!(SockAddr::unix_from_bytes(bytes).expect("the family").is_unnamed());
        }
        assert_eq!(raw.len(), 2);
        assert!(
            raw.to_std().is_err() && SockAddr::new(([127, 0, 0, 1], 1).into()).to_unix().is_err()
        );
    }
}
