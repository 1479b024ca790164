//! UD9: what is left when the socket goes, or its runtime.

use std::net::UdpSocket as StdSocket;
use std::os::fd::AsFd;
use std::rc::Rc;

use tamam::net::{Datagram, UdpSocket};

use crate::common::{
    Gone, alone, begin, engines, everywhere, poll_once, settle, start, turn, wait_for,
};
use crate::{bound, numbered, pair, peer, recv, recv_in_order, until_unread};

#[test]
fn ud9_a_dropped_socket_leaves_its_address_at_once() {
    everywhere(|| async {
        let (socket, addr) = bound();
        drop(start(socket.recv()).await);
        turn().await;
        drop(socket);
        turn().await;
        let again = UdpSocket::bind(addr).expect("the address is free");
        assert_eq!(tamam::metrics().ops, 0);
        again.send_to("myself", addr).await.expect("a route");
        recv_in_order(&again, [b"myself".to_vec()]).await;
    });
}

/// Sends that a forgotten future has left in the queue go out when the socket is dropped.
#[test]
fn ud9_a_dropped_socket_sends_what_is_queued() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for number in 0..5 {
            std::mem::forget(begin(socket.send(numbered(number, 9))).await);
        }
        drop(socket);
        turn().await;
        let mut buf = [0; 16];
        for number in 0..5 {
            let len = peer.recv(&mut buf).expect("it was sent");
            assert_eq!(buf[..len], numbered(number, 9));
        }
    });
}

#[test]
fn ud9_into_std_gives_the_socket_and_what_is_unread() {
    everywhere(|| async {
        for count in [0, 1, 5] {
            let (socket, peer) = pair().await;
            drop(start(socket.recv()).await);
            for number in 0..count {
                peer.send(&numbered(number, 20)).expect("room");
            }
            until_unread(&socket, count as usize).await;
            std::mem::forget(begin(socket.send(numbered(7, 9))).await);
            let (socket, unread) = socket.into_std().expect("the ring works");
            let mut all: Vec<Vec<u8>> =
                unread.iter().map(|datagram: &Datagram| datagram.chunk.to_vec()).collect();
            let mut buf = [0; 64];
            while let Ok(len) = socket.recv(&mut buf) {
                all.push(buf[..len].to_vec());
            }
            let expected: Vec<_> = (0..count).map(|number| numbered(number, 20)).collect();
            assert_eq!(all, expected);
            assert_eq!(peer.recv(&mut buf).expect("it was sent"), 9);
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}

#[test]
fn ud9_from_std_gives_what_waits() {
    everywhere(|| async {
        let std = StdSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = std.local_addr().expect("bound");
        let peer = peer(addr);
        peer.send(b"early").expect("room");
        wait_for(&std, libc::POLLIN);
        let socket = UdpSocket::from_std(std).expect("a runtime");
        let datagram = recv(&socket).await;
        assert_eq!(&datagram.chunk[..], b"early");
        assert_eq!((datagram.to, datagram.ecn), (None, None), "nobody has asked for it");
        socket.set_packet_info(true).expect("a socket");
        peer.send(b"late").expect("room");
        assert_eq!(recv(&socket).await.to, Some([127, 0, 0, 1].into()));
        socket.set_packet_info(false).expect("a socket");
        peer.send(b"last").expect("room");
        assert_eq!(recv(&socket).await.to, None);
    });
}

/// 1 a receive is in flight, a `read_from` waits, a send is queued; 2 the runtime is dropped; 3 what
/// is unread is served, then every call fails, and buffers come back.
#[test]
fn ud9_the_runtime_is_dropped_and_the_socket_lives_on() {
    alone("ends::ud9_the_runtime_is_dropped_and_the_socket_lives_on", || {
        for (name, builder) in engines() {
            eprintln!("-- {name}");
            let runtime = builder.build().expect("an engine");
            let (socket, peer) = runtime.block_on(async {
                let (socket, peer) = pair().await;
                (Rc::new(socket), peer)
            });
            let waiting = {
                let socket = socket.clone();
                async move {
                    let read = socket.read_from(Vec::with_capacity(7)).await;
                    let send = socket.send(vec![7; 9]).await;
                    (read.map(drop), send.map(drop))
                }
            };
            let mut waiting = Box::pin(waiting);
            runtime.block_on(async {
                assert!(poll_once(&mut waiting).await.is_pending());
                (0..3).for_each(|number| _ = peer.send(&numbered(number, 20)).expect("room"));
                until_unread(&socket, 1).await;
            });
            drop(runtime);
            let other = tamam::Runtime::new().expect("an engine");
            other.block_on(async {
                let mut served = 0;
                let error = loop {
                    match socket.recv().await {
                        Ok(datagram) => {
                            assert_eq!(datagram.chunk.len(), 20);
                            served += 1;
                        }
                        Err(error) => break error,
                    }
                };
                assert!(
                    (1..=3).contains(&served) && error.to_string().contains("gone"),
                    "{served}: {error}"
                );
                let error = socket.send(vec![7; 9]).await.unwrap_err();
                assert_eq!(error.buf(), &vec![7; 9]);
                let error = socket.read_from(Vec::with_capacity(7)).await.map(drop).unwrap_err();
                assert_eq!(error.buf().capacity(), 7);
                assert!(socket.try_recv().is_err() && socket.try_send(b"no").is_err());
                socket.local_addr().expect("names work");
            });
            drop((waiting, socket, peer));
        }
    });
}

/// The runtime ends with a thousand receives and sends in flight: every buffer and descriptor is
/// given back, and nothing is written to freed memory.
#[test]
fn ud9_the_runtime_is_dropped_with_ops_in_flight() {
    alone("ends::ud9_the_runtime_is_dropped_with_ops_in_flight", || {
        for (name, builder) in engines() {
            eprintln!("-- {name}");
            let runtime = builder.build().expect("an engine");
            let mut peers = Vec::new();
            runtime.block_on(async {
                for _ in 0..100 {
                    let (socket, peer) = pair().await;
                    peers.push(peer);
                    tamam::spawn(async move {
                        let socket = Rc::new(socket);
                        for _ in 0..4 {
                            let socket = socket.clone();
                            tamam::spawn(async move {
                                loop {
                                    let (len, from, buf) = socket
                                        .read_from(Vec::with_capacity(2000))
                                        .await
                                        .expect("a datagram");
                                    assert_eq!(len, buf.len());
                                    socket.send_to(buf, from).await.expect("a route");
                                }
                            });
                        }
                        loop {
                            recv(&socket).await;
                        }
                    });
                }
                settle().await;
                for peer in &peers {
                    (0..8).for_each(|number| _ = peer.send(&numbered(number, 1500)));
                }
                turn().await;
                for peer in &peers {
                    (0..8).for_each(|number| _ = peer.send(&numbered(number, 1500)));
                }
            });
            drop(runtime);
        }
    });
}

/// Datagrams outlive their socket and their runtime.
#[test]
fn ud9_datagrams_live_on() {
    alone("ends::ud9_datagrams_live_on", || {
        for (name, builder) in engines() {
            eprintln!("-- {name}");
            let runtime = builder.build().expect("an engine");
            let kept = runtime.block_on(async {
                let (socket, peer) = pair().await;
                let mut kept = Vec::new();
                for number in 0..20 {
                    peer.send(&numbered(number, 900)).expect("room");
                    kept.push(recv(&socket).await);
                }
                kept
            });
            drop(runtime);
            for (number, datagram) in kept.iter().enumerate() {
                assert_eq!(datagram.chunk[..], numbered(number as u32, 900));
            }
        }
    });
}

/// Away from home: the error says so, buffers come back, and at home it goes on.
#[test]
fn ud9_away_from_home_calls_fail_and_lose_nothing() {
    for (name, builder) in engines() {
        eprintln!("-- {name}");
        let runtime = builder.clone().build().expect("an engine");
        let other = builder.build().expect("an engine");
        let (socket, peer) = runtime.block_on(pair());
        let mut send = Box::pin(socket.send(vec![7; 9]));
        let mut read = Box::pin(socket.read_from(Vec::with_capacity(100)));
        let sent = runtime.block_on(async {
            assert!(poll_once(&mut read).await.is_pending());
            poll_once(&mut send).await
        });
        other.block_on(async {
            // It may be out by now: then that is told anywhere.
            match if sent.is_pending() { send.await } else { Ok((9, Vec::new())) } {
                Ok((sent, _)) => assert_eq!(sent, 9),
                Err(error) => {
                    assert_eq!(error.buf(), &vec![7; 9]);
                    assert!(error.to_string().contains("outside its runtime"), "{error}");
                }
            }
            let error = read.await.map(drop).unwrap_err();
            assert_eq!(error.buf().capacity(), 100);
            assert!(socket.recv().await.is_err());
        });
        runtime.block_on(async {
            peer.send(b"at home").expect("room");
            recv_in_order(&socket, [b"at home".to_vec()]).await;
            socket.send("again").await.expect("a peer");
        });
        let fd = socket.as_fd();
        assert!(std::os::fd::AsRawFd::as_raw_fd(&fd) > 2);
        drop(socket);
    }
}

/// A future that goes when its socket has gone through every state: no op is left behind.
#[test]
fn ud9_random_lives_leave_nothing() {
    everywhere(|| async {
        let mut random = crate::common::Random(17);
        for _ in 0..60 {
            let (socket, peer) = pair().await;
            for _ in 0..random.below(8) {
                match random.below(5) {
                    0 => {
                        let future = begin(socket.recv()).await;
                        // A datagram that is forgotten keeps its buffer.
                        if !future.is_over() {
                            Gone::BOTH[random.below(2) as usize].leave(future);
                        }
                    }
                    1 => {
                        let future = begin(socket.send(numbered(1, 300))).await;
                        Gone::BOTH[random.below(2) as usize].leave(future);
                    }
                    2 => _ = peer.send(&numbered(2, random.below(3000) as usize)),
                    3 => _ = peer.send(b""),
                    _ => turn().await,
                }
            }
        }
    });
}
