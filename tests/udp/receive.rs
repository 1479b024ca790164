//! UD1: one datagram for each call, whole, in order, and all that is known of it.

use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use tamam::io::{Truncated, errno};
use tamam::net::{Ecn, UdpBuilder, UdpSocket};

use crate::common::{self, everywhere, settle, turn};
use crate::{bound, numbered, pair, peer, recv, recv_in_order};

/// The sizes that are special: nothing, less than a page, a page and its neighbours, the largest.
const SIZES: [usize; 9] = [0, 1, 16, 1472, 4095, 4096, 8192, 40_000, 65_507];

#[test]
fn ud1_a_datagram_comes_whole_whatever_its_size() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for round in 0..3 {
            for size in SIZES {
                let bytes = common::pattern(size);
                peer.send(&bytes).expect("room");
                let datagram = recv(&socket).await;
                assert_eq!(datagram.chunk.len(), size, "round {round}");
                common::assert_same(&datagram.chunk, &bytes);
                assert_eq!(datagram.from, peer.local_addr().expect("bound"));
                assert_eq!(datagram.to, Some(IpAddr::from([127, 0, 0, 1])));
                assert_eq!(datagram.ecn, Some(Ecn::NotEct));
                assert_eq!(datagram.segment_size, size);
                assert_eq!(datagram.segments().map(<[u8]>::len).collect::<Vec<_>>(), [size]);
            }
        }
    });
}

/// A datagram without bytes ends a multishot receive, and is no end.
#[test]
fn ud1_datagrams_without_bytes_are_datagrams() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for burst in [1, 2, 7] {
            for _ in 0..burst {
                peer.send(b"").expect("room");
                peer.send(b"some").expect("room");
                peer.send(b"").expect("room");
            }
            for _ in 0..burst {
                recv_in_order(&socket, [b"".to_vec(), b"some".to_vec(), b"".to_vec()]).await;
            }
        }
    });
}

#[test]
fn ud1_bursts_come_in_order() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for size in [0, 100, 1400] {
            let burst = || (0..60).map(move |number| numbered(number, size));
            burst().for_each(|bytes| _ = peer.send(&bytes).expect("room"));
            recv_in_order(&socket, burst()).await;
        }
    });
}

#[test]
fn ud1_read_from_appends_to_the_buffer() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        let from = peer.local_addr().expect("bound");
        for size in [0, 1, 1400, 65_507] {
            let bytes = common::pattern(size);
            peer.send(&bytes).expect("room");
            let mut buf = Vec::with_capacity(2 + size.max(1));
            buf.extend(*b"ab");
            let (len, sender, buf) = socket.read_from(buf).await.expect("a datagram");
            assert_eq!((len, sender, &buf[..2]), (size, from, &b"ab"[..]));
            common::assert_same(&buf[2..], &bytes);
            peer.send(&bytes).expect("room");
            let (len, buf) = socket.read(Vec::with_capacity(1 << 16)).await.expect("a datagram");
            assert_eq!((len, buf.len()), (size, size));
        }
    });
}

#[test]
fn ud1_too_small_a_buffer_is_an_error_that_says_so() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for (room, size) in [(1, 2), (5, 6), (100, 65_507)] {
            let bytes = common::pattern(size);
            peer.send(&bytes).expect("room");
            peer.send(b"next").expect("room");
            let error = socket.read_from(Vec::with_capacity(room)).await.map(drop).unwrap_err();
            let (error, buf) = error.into_parts();
            let capacity = buf.capacity();
            assert_eq!(errno(&error), Some(libc::EMSGSIZE));
            let expected = Truncated { received: capacity, len: size };
            assert_eq!(Truncated::of(&error), Some(&expected));
            assert_eq!(buf[..], bytes[..capacity]);
            assert!(error.to_string().contains(&size.to_string()), "{error}");
            recv_in_order(&socket, [b"next".to_vec()]).await;
        }
        // Without any room nothing is taken.
        peer.send(b"last").expect("room");
        for _ in 0..2 {
            let error = socket.read_from(Vec::new()).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            settle().await;
        }
        recv_in_order(&socket, [b"last".to_vec()]).await;
    });
}

#[test]
fn ud1_peek_leaves_the_datagram() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        peer.send(b"first").expect("room");
        peer.send(b"second").expect("room");
        for _ in 0..3 {
            let (len, from, buf) = socket.peek_from(Vec::with_capacity(9)).await.expect("one");
            assert_eq!((len, &buf[..]), (5, &b"first"[..]));
            assert_eq!(from, peer.local_addr().expect("bound"));
        }
        let error = socket.peek_from(Vec::with_capacity(1)).await.map(drop).unwrap_err();
        assert_eq!(errno(error.error()), Some(libc::EMSGSIZE));
        recv_in_order(&socket, [b"first".to_vec(), b"second".to_vec()]).await;
    });
}

#[test]
fn ud1_each_datagram_goes_to_one_task() {
    everywhere(|| async {
        const MANY: u32 = 400;
        let (socket, addr) = bound();
        socket.set_recv_buffer_size(8 << 20).expect("as much as is allowed");
        let socket = Rc::new(socket);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let socket = socket.clone();
                tamam::spawn(async move {
                    let mut numbers = Vec::new();
                    loop {
                        let chunk = recv(&socket).await.chunk;
                        if chunk.is_empty() {
                            return numbers;
                        }
                        let number = chunk[..4].try_into().expect("a number");
                        numbers.push(u32::from_le_bytes(number));
                    }
                })
            })
            .collect();
        turn().await;
        let peer = peer(addr);
        for number in 0..MANY {
            peer.send(&numbered(number, 100)).expect("room");
            if number % 50 == 0 {
                turn().await;
            }
        }
        (0..4).for_each(|_| _ = peer.send(b"").expect("room"));
        common::assert_dealt_out(tasks, MANY).await;
    });
}

#[test]
fn ud1_ipv6_tells_the_same() {
    everywhere(|| async {
        let Ok(socket) = UdpSocket::bind("[::1]:0") else {
            return println!("skipped: this host has no IPv6");
        };
        socket.set_packet_info(true).expect("a socket");
        let addr = socket.local_addr().expect("bound");
        let peer = peer(addr);
        peer.send(b"six").expect("room");
        let datagram = recv(&socket).await;
        assert_eq!(&datagram.chunk[..], b"six");
        assert_eq!(datagram.from, peer.local_addr().expect("bound"));
        assert_eq!(datagram.to, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(datagram.ecn, Some(Ecn::NotEct));
        socket.send_to("answer", datagram.from).await.expect("a route");
        let mut buf = [0; 16];
        assert_eq!(peer.recv(&mut buf).expect("the answer"), 6);
    });
}

/// One socket for both families: an IPv4 sender is `::ffff:127.0.0.1`.
#[test]
fn ud1_ipv4_at_an_ipv6_socket() {
    everywhere(|| async {
        let socket = UdpBuilder::new_v6().map(|builder| builder.only_v6(false).packet_info(true));
        let Ok(socket) = socket.and_then(|builder| builder.bind(([0u16; 8], 0).into())) else {
            return println!("skipped: this host has no IPv6");
        };
        let port = socket.local_addr().expect("bound").port();
        let peer = peer(([127, 0, 0, 1], port).into());
        peer.send(b"four").expect("room");
        let datagram = recv(&socket).await;
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        assert_eq!((datagram.from.ip(), datagram.to), (mapped, Some(mapped)));
        assert_eq!(datagram.ecn, Some(Ecn::NotEct));
        let answer = tamam::net::Envelope {
            to: Some(datagram.from),
            from: datagram.to,
            ecn: Some(Ecn::Ect1),
            segment_size: None,
        };
        socket.send_msg("answer", answer).await.expect("a route");
        let mut buf = [0; 16];
        assert_eq!(peer.recv(&mut buf).expect("the answer"), 6);
    });
}

/// What comes without a task: `poll_recv` and `try_recv`, in between each other.
#[test]
fn ud1_without_a_future() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        assert_eq!(socket.try_recv().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        for number in 0..100u32 {
            peer.send(&numbered(number, 20)).expect("room");
            let datagram = match number % 3 {
                0 => std::future::poll_fn(|cx| socket.poll_recv(cx)).await.expect("a datagram"),
                1 => recv(&socket).await,
                _ => loop {
                    match socket.try_recv() {
                        Ok(datagram) => break datagram,
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                    }
                    turn().await;
                },
            };
            assert_eq!(datagram.chunk[..], numbered(number, 20));
        }
    });
}
