//! AC7, AC11: the listener as a descriptor: handed over, nonblocking, not inherited.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use tamam::Runtime;
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::timeout;

use crate::common::{Gone, alone, both, child, everywhere, full_backlog, on_epoll, with_both};
use crate::{accept, addrs_of, client, clients, common, listening, park};

/// Five are parked (under epoll one of them), five come later, by way of the backlog or of the accept
/// that is being ended: all ten are handed over, in order.
#[test]
fn ac7_into_std_hands_everything_over() {
    everywhere(|| async {
        for gone in Gone::BOTH {
            let (listener, addr) = listening();
            let mut all = park(&listener, addr, gone, 5).await;
            all.extend(clients(addr, 3)); // while the accept is armed
            let (listener, taken) = listener.into_std().expect("nothing failed");
            all.extend(clients(addr, 2)); // when it is not
            listener.set_nonblocking(false).expect("a socket");
            let mut served = taken;
            while served.len() < 10 {
                served.push(listener.accept().expect("it waits in the backlog"));
            }
            let peers: Vec<_> = served.iter().map(|(_, peer)| *peer).collect();
            assert_eq!(peers, addrs_of(&all), "{gone:?}");
            for ((mut stream, _), client) in served.into_iter().zip(&mut all) {
                stream.set_nonblocking(false).expect("a socket");
                stream.write_all(b"served").expect("connected");
                let mut answer = [0; 6];
                client.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"served");
            }
        }
    });
}

/// Also when nothing turns, and when the runtime is gone.
#[test]
fn ac7_into_std_outside() {
    for (name, builder) in both(&Runtime::builder()) {
        let runtime = common::build(builder);
        let listener_with_five = || {
            runtime.block_on(async {
                let (listener, addr) = listening();
                let clients = park(&listener, addr, Gone::Forgotten, 5).await;
                (listener, clients)
            })
        };
        let check = |listener: TcpListener, clients: Vec<StdStream>| {
            let (listener, mut taken) = listener.into_std().expect("it needs no turn");
            assert_eq!(taken.len(), if on_epoll() { 1 } else { 5 }, "{name}");
            listener.set_nonblocking(false).expect("a socket");
            while taken.len() < 5 {
                taken.push(listener.accept().expect("it waits in the backlog"));
            }
            let peers: Vec<_> = taken.iter().map(|(_, peer)| *peer).collect();
            assert_eq!(peers, addrs_of(&clients), "{name}");
        };
        let (listener, clients) = listener_with_five();
        check(listener, clients);
        let (listener, clients) = listener_with_five();
        drop(runtime);
        check(listener, clients);
    }
}

#[test]
fn ac11_descriptors_are_nonblocking_and_not_inherited() {
    alone("descriptors::ac11_descriptors_are_nonblocking_and_not_inherited", || {
        let before = child::inherited();
        everywhere(|| async {
            let (listener, addr) = listening();
            let mut clients: Vec<StdStream> = Vec::new();
            let mut accepted = Vec::new();
            for is_parked in [false, true] {
                if is_parked {
                    clients.extend(park(&listener, addr, Gone::Dropped, 1).await);
                } else {
                    clients.push(client(addr));
                }
                accepted.push(accept(&listener).await.0);
            }
            let connected = TcpStream::connect(addr).await.expect("it listens");
            let sockets =
                [accepted[0].as_fd(), accepted[1].as_fd(), connected.as_fd(), listener.as_fd()];
            for (number, socket) in sockets.iter().enumerate() {
                // SAFETY: takes no pointers.
                let [descriptor, status] = [libc::F_GETFD, libc::F_GETFL]
                    .map(|command| unsafe { libc::fcntl(socket.as_raw_fd(), command) });
                assert_eq!(descriptor & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "socket {number}");
                assert_eq!(status & libc::O_NONBLOCK, libc::O_NONBLOCK, "socket {number}");
            }
            assert_eq!(child::inherited(), before);
        });
    });
}

/// O_NONBLOCK belongs to the open file, so a duplicate can clear it. No call of ours leans on it.
#[test]
fn cl14_a_cleared_flag_does_not_block_the_thread() {
    with_both(Runtime::builder(), || async {
        let (listener, addr) = listening();
        let duplicate = listener.as_fd().try_clone_to_owned().expect("a descriptor");
        let duplicate = std::net::TcpListener::from(duplicate);
        for _ in 0..3 {
            duplicate.set_nonblocking(false).expect("a socket");
            let waited = timeout(Duration::from_millis(20), listener.accept()).await;
            assert!(waited.is_err(), "no client is there");
            let client = client(addr);
            let (stream, peer) = accept(&listener).await;
            assert_eq!(peer, client.local_addr().expect("connected"));
            stream.send_all("served").await.expect("connected");
        }
        // The backlog is full, so the attempt waits.
        let (full, _clients) = full_backlog();
        let socket = TcpSocket::new_v4().expect("a socket");
        let duplicate = socket.as_fd().try_clone_to_owned().expect("a descriptor");
        StdStream::from(duplicate).set_nonblocking(false).expect("a socket");
        let connecting = socket.connect(full.local_addr().expect("bound"));
        assert!(timeout(Duration::from_millis(20), connecting).await.is_err());
    });
}
