//! AC10: sockets that cannot accept, or cannot any more.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{TcpListener as StdListener, TcpStream as StdStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tamam::net::TcpListener;

use crate::common::{Gone, begin, everywhere, on_epoll, start, turn};
use crate::{addr_of, client, listening, parked};

fn refusing() -> [(&'static str, i32, TcpListener); 4] {
    let (shut_down, _) = listening();
    let dup = shut_down.as_fd().try_clone_to_owned().expect("a descriptor is left");
    // SAFETY: takes no pointers.
    let done = unsafe { libc::shutdown(dup.as_raw_fd(), libc::SHUT_RDWR) };
    assert_eq!(done, 0, "a listener can be shut down");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let file = File::open("/dev/null").expect("it is everywhere");
    let connected = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let connected = StdStream::connect(connected.local_addr().expect("bound")).expect("connects");
    let from = |fd: OwnedFd| TcpListener::from_std(StdListener::from(fd)).expect("a descriptor");
    [
        ("shut down", libc::EINVAL, shut_down),
        ("a datagram socket", libc::EOPNOTSUPP, from(udp.into())),
        ("no socket", libc::ENOTSOCK, from(file.into())),
        ("no listener", libc::EINVAL, from(connected.into())),
    ]
}

#[test]
fn ac10_a_socket_that_cannot_accept() {
    everywhere(|| async {
        for (what, errno, listener) in refusing() {
            let failed = || tamam::metrics().accept_errors;
            let before = failed();
            let mut waiting = Vec::new();
            for _ in 0..3 {
                waiting.push(begin(listener.accept()).await);
            }
            for (number, accept) in waiting.into_iter().enumerate() {
                let error = accept.await.map(drop).expect_err("it cannot accept");
                assert_eq!(error.raw_os_error(), Some(errno), "{what}, waiter {number}");
            }
            // In the ring three wait for one attempt; under epoll none of them has to wait.
            let attempts = failed() - before;
            assert_eq!(attempts, if on_epoll() { 3 } else { 1 }, "{what}");
            for calls in 1..=5 {
                let error = listener.accept().await.map(drop).expect_err("it cannot accept");
                assert_eq!(error.raw_os_error(), Some(errno), "{what}");
                assert_eq!(failed() - before, attempts + calls, "{what}: each call tries once");
            }
            for gone in Gone::BOTH {
                gone.leave(begin(listener.accept()).await);
            }
            for _ in 0..20 {
                turn().await;
            }
            let last = if on_epoll() { 2 } else { 1 };
            assert_eq!(failed() - before, attempts + 5 + last, "{what}: no attempt without a call");
            assert_eq!(tamam::metrics().ops, 0, "{what}");
        }
    });
}

/// The accept waits when the socket is shut down; what came before is served, then every waiter
/// hears of it.
#[test]
fn ac10_shut_down_under_waiters() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(start(listener.accept()).await);
        }
        turn().await;
        let client = client(addr);
        while parked(&listener) == 0 {
            turn().await;
        }
        // SAFETY: takes no pointers.
        let done = unsafe { libc::shutdown(listener.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0, "a listener can be shut down");
        let mut results = Vec::new();
        for accept in waiting {
            results.push(accept.await);
        }
        let (_stream, peer) = results.remove(0).expect("it came before");
        assert_eq!(peer, addr_of(&client));
        for result in results {
            let error = result.map(drop).expect_err("it cannot accept");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
}
