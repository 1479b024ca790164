//! getaddrinfo(3): the addresses of a host name, as the system has them (nsswitch.conf(5)).
//!
//! The one call in `sys` that waits, for a name server and for long: it runs on a thread of
//! `blocking.rs`, never on one that turns a runtime. std has it too, but keeps the code of a failure
//! to itself, and "there is no such name" could not be told from "nobody answers".
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::net::SocketAddr;
use std::ptr;

use super::addr::SockAddr;

/// What getaddrinfo(3) found, freed when this is dropped.
struct Found(*mut libc::addrinfo);

impl Drop for Found {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo(3) and is freed once.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// The addresses of `host` for TCP, in the order of getaddrinfo(3), all with `port`. Waits.
pub(crate) fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = CString::new(host).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a host name contains no zero byte")
    })?;
    // SAFETY: zeroes are hints that ask for everything.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM; // else each address comes once for every type
    let mut found = Found(ptr::null_mut());
    // SAFETY: `name` ends with a zero, null asks for no service, `hints` is readable and the place
    // for the list writable.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &hints, &mut found.0) };
    if code != 0 {
        return Err(failure(code));
    }
    let mut addrs = Vec::new();
    let mut next: *const libc::addrinfo = found.0;
    // SAFETY: an entry of the list, which lives as long as `found`, or null at its end.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        let addr = SockAddr::fill(|storage, len| {
            let bytes = entry.ai_addrlen.min(*len) as usize;
            // SAFETY: the entry's address has that many bytes, and `fill` gives room for them.
            unsafe {
                ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), bytes);
            }
            Ok(())
        });
        // A family that is neither of the two cannot be connected to.
        addrs.extend(addr.ok().map(|mut addr| {
            addr.set_port(port);
            addr
        }));
    }
    Ok(addrs)
}

/// The code of getaddrinfo(3) as an error: its words, and the kind nearest to it.
fn failure(code: libc::c_int) -> io::Error {
    // The only address family or the only record that was asked for is missing: no code of POSIX,
    // but of glibc.
    const EAI_NODATA: libc::c_int = -5;
    let kind = match code {
        libc::EAI_SYSTEM => return io::Error::last_os_error(),
        libc::EAI_NONAME | EAI_NODATA => io::ErrorKind::NotFound,
        libc::EAI_MEMORY => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    // SAFETY: gives a text that ends with a zero and is never freed, for every code.
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
