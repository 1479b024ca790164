//! getaddrinfo(3): the addresses of a host name, as this system is configured to find them
//! (nsswitch.conf(5)).
//!
//! This call may wait seconds for a name server. It runs on a thread of `blocking/`, never on one
//! that runs a runtime. std's `ToSocketAddrs` makes the same call, but hides its error code,
//! without which "there is no such name" looks like "no name server answered".
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::net::SocketAddr;
use std::ptr;

use super::addr::SockAddr;

/// The list that getaddrinfo(3) returned. Freed on drop.
struct Found(*mut libc::addrinfo);

impl Drop for Found {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: getaddrinfo(3) returned this list, and only this drop frees it.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// The TCP addresses of `host`, in the order of getaddrinfo(3), each with `port`. Addresses that
/// are neither IPv4 nor IPv6 are left out. Blocks.
pub(crate) fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = CString::new(host).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a host name contains no zero byte")
    })?;
    // SAFETY: addrinfo consists of integers and raw pointers, for which zero and null are valid. As
    // hints they ask for every address.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM; // without it, each address comes once for each type
    let mut found = Found(ptr::null_mut());
    // SAFETY: `name` is a C string, a null service is allowed, and `hints` and `found` live through
    // the call.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &hints, &mut found.0) };
    if code != 0 {
        return Err(failure(code));
    }
    let mut addrs = Vec::new();
    let mut next: *const libc::addrinfo = found.0;
    // SAFETY: `next` is null, or an entry of the list, which lives until `found` is dropped.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        let addr = SockAddr::from_kernel(|storage, len| {
            let bytes = entry.ai_addrlen.min(*len) as usize;
            // SAFETY: getaddrinfo(3) gave an address of `ai_addrlen` bytes, `from_kernel` gives
            // room for `len`, and `bytes` is the smaller of both.
            unsafe {
                ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), bytes);
            }
            Ok(())
        });
        // An address that is neither IPv4 nor IPv6 is left out: this crate cannot connect to it.
        let addr = addr.and_then(|addr| addr.to_std());
        addrs.extend(addr.ok().map(|mut addr| {
            addr.set_port(port);
            addr
        }));
    }
    Ok(addrs)
}

/// An error with the text of a code of getaddrinfo(3), and the kind that comes nearest.
fn failure(code: libc::c_int) -> io::Error {
    // glibc's own code: the name exists, but has no address.
    const EAI_NODATA: libc::c_int = -5;
    let kind = match code {
        libc::EAI_SYSTEM => return io::Error::last_os_error(),
        libc::EAI_NONAME | EAI_NODATA => io::ErrorKind::NotFound,
        libc::EAI_MEMORY => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    // SAFETY: for every code, gai_strerror(3) returns a C string that is never freed.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    io::Error::new(kind, text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_there_and_nothing_is_not() {
        let addrs = lookup("localhost", 80).expect("every machine has it");
        assert!(addrs.iter().all(|addr| addr.port() == 80 && addr.ip().is_loopback()), "{addrs:?}");
        assert!(!addrs.is_empty());
        // Text that no query can carry, so no name server is asked.
        assert_eq!(lookup("", 80).expect_err("no name").kind(), io::ErrorKind::NotFound);
        assert_eq!(lookup("a\0b", 80).expect_err("a zero").kind(), io::ErrorKind::InvalidInput);
    }
}
