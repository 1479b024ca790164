//! `SocketAddr` to and from the kernel's sockaddr; ip(7), ipv6(7). Only IPv4 and IPv6. Read next:
//! `socket.rs`.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

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

    /// The address that `call` writes. It gets zeroed memory with room for any address, and the
    /// length of that room, which it may change to the length of the address. An error is that of
    /// `call`, or says that the address is neither IPv4 nor IPv6.
    pub(crate) fn from_kernel(
        call: impl FnOnce(*mut libc::sockaddr, &mut libc::socklen_t) -> io::Result<()>,
    ) -> io::Result<SocketAddr> {
        // SAFETY: sockaddr_storage consists of integers, for which all zeroes are valid.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut len = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        call((&raw mut storage).cast(), &mut len)?;
        SockAddr { storage, len }.to_std()
    }

    /// It is an error if the address is neither IPv4 nor IPv6.
    fn to_std(&self) -> io::Result<SocketAddr> {
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
            // SAFETY: the pointer leads to an address of this length.
            let bytes = unsafe {
                std::slice::from_raw_parts(raw.as_ptr().cast::<u8>(), raw.len() as usize)
            };
            assert_eq!(SockAddr::from_bytes(bytes).expect("a known family"), addr);
        }
    }
}
