//! UD5: sends: order, errors with their buffers, futures that go.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use tamam::io::errno;
use tamam::net::{Ecn, Envelope, UdpSocket};

use crate::common::{self, Gone, begin, everywhere, turn};
use crate::{bound, numbered, pair, recv, recv_in_order};

#[test]
fn ud5_each_way_to_send_arrives() {
    everywhere(|| async {
        let (server, addr) = bound();
        let (client, from) = bound();
        for size in [0, 1, 1400, 65_507] {
            let bytes = common::pattern(size);
            let (sent, buf) = client.send_to(bytes.clone(), addr).await.expect("a route");
            assert_eq!((sent, buf.len()), (size, size));
            let datagram = recv(&server).await;
            common::assert_same(&datagram.chunk, &bytes);
            assert_eq!(datagram.from, from);
        }
        assert_eq!(client.try_send_to(b"now", addr).expect("room"), 3);
        recv_in_order(&server, [b"now".to_vec()]).await;
        client.connect(addr).await.expect("a route");
        let (sent, buf) = client.send("connected").await.expect("a peer");
        assert_eq!((sent, buf), (9, "connected"));
        assert_eq!(client.try_send(b"").expect("room"), 0);
        recv_in_order(&server, [b"connected".to_vec(), Vec::new()]).await;
        // A chunk goes out as it came: from the pool, or from the heap.
        let chunk = {
            server.send_to("echo", from).await.expect("a route");
            recv(&client).await.chunk
        };
        client.send(chunk).await.expect("a peer");
        recv_in_order(&server, [b"echo".to_vec()]).await;
    });
}

#[test]
fn ud5_a_message_says_where_it_comes_from_and_its_mark() {
    everywhere(|| async {
        let server = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let port = server.local_addr().expect("bound").port();
        let (client, addr) = bound();
        for ecn in [None, Some(Ecn::NotEct), Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)] {
            let from = Some([127, 0, 0, 7].into());
            let envelope = Envelope { to: Some(addr), from, ecn, segment_size: None };
            server.send_msg("hello", envelope).await.expect("a route");
            let datagram = recv(&client).await;
            assert_eq!(datagram.from, SocketAddr::from(([127, 0, 0, 7], port)));
            assert_eq!(datagram.ecn, Some(ecn.unwrap_or(Ecn::NotEct)));
            assert_eq!(server.try_send_msg(b"again", &envelope).expect("room"), 5);
            assert_eq!(recv(&client).await.ecn, Some(ecn.unwrap_or(Ecn::NotEct)));
        }
    });
}

#[test]
fn ud5_an_error_is_that_of_its_call_with_the_buffer() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let too_large = vec![7; 65_508];
        let everybody = ([255, 255, 255, 255], 9);
        let six: SocketAddr = "[::1]:9".parse().expect("an address");
        for _ in 0..3 {
            let error = socket.send_to(too_large.clone(), addr).await.unwrap_err();
            assert_eq!(errno(error.error()), Some(libc::EMSGSIZE));
            common::assert_same(error.buf(), &too_large);
            let error = socket.send_to(vec![1], everybody).await.unwrap_err();
            assert_eq!(errno(error.error()), Some(libc::EACCES));
            let error = socket.send_to(vec![2], six).await.unwrap_err();
            assert_eq!(errno(error.error()), Some(libc::EAFNOSUPPORT));
            let error = socket.send(vec![3]).await.unwrap_err();
            assert_eq!((errno(error.error()), error.buf()), (Some(libc::EDESTADDRREQ), &vec![3]));
            let error = socket.try_send(&too_large).unwrap_err();
            assert_eq!(errno(&error), Some(libc::EDESTADDRREQ));
            socket.send_to("fine", addr).await.expect("a route");
            recv_in_order(&socket, [b"fine".to_vec()]).await;
        }
    });
}

/// Errors and datagrams by turns, all polled before any is out.
#[test]
fn ud5_one_error_is_nobody_elses() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let mut sends = Vec::new();
        for number in 0..40 {
            let size = if number % 4 == 1 { 65_508 } else { 100 };
            sends.push(begin(socket.send_to(numbered(number, size), addr)).await);
        }
        for (number, send) in sends.into_iter().enumerate() {
            let result = send.await;
            assert_eq!(result.is_err(), number % 4 == 1, "send {number}");
        }
        let fine = (0..40).filter(|number| number % 4 != 1).map(|number| numbered(number, 100));
        recv_in_order(&socket, fine).await;
    });
}

#[test]
fn ud5_sends_go_out_in_the_order_of_first_polls() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let socket = Rc::new(socket);
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let socket = socket.clone();
                tamam::spawn(async move {
                    for part in 0..2 {
                        let bytes = numbered(50 * part + number, 60);
                        socket.send_to(bytes, addr).await.expect("a route");
                    }
                })
            })
            .collect();
        let mut first = Vec::new();
        for _ in 0..100 {
            let chunk = recv(&socket).await.chunk;
            first.push(u32::from_le_bytes(chunk[..4].try_into().expect("a number")));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        first.retain(|number| *number < 50);
        assert_eq!(first, (0..50).collect::<Vec<_>>());
    });
}

/// The first is in flight (ring) or out (epoll), the others wait: dropped they never happened,
/// forgotten they go out in their turn.
#[test]
fn ud5_futures_that_go() {
    everywhere(|| async {
        let (socket, addr) = bound();
        for gone in Gone::BOTH {
            let mut sends = Vec::new();
            for number in 0..5 {
                sends.push(begin(socket.send_to(numbered(number, 9), addr)).await);
            }
            let is_queued: Vec<bool> = sends.iter().map(|send| !send.is_over()).collect();
            let last = sends.pop().expect("there are five");
            sends.into_iter().for_each(|send| gone.leave(send));
            last.await.expect("a route");
            let is_sent = |number: &u32| {
                let is_committed = *number == 0 || !is_queued[*number as usize];
                *number == 4 || is_committed || gone == Gone::Forgotten
            };
            let sent = (0..5).filter(is_sent).map(|number| numbered(number, 9));
            recv_in_order(&socket, sent).await;
        }
    });
}

#[test]
fn ud5_nothing_is_sent_before_the_first_poll() {
    everywhere(|| async {
        let (socket, addr) = bound();
        drop(socket.send_to("never", addr));
        let later = socket.send_to("later", addr);
        socket.send_to("now", addr).await.expect("a route");
        later.await.expect("a route");
        recv_in_order(&socket, [b"now".to_vec(), b"later".to_vec()]).await;
    });
}

/// `try_send` does not overtake sends that wait.
#[test]
fn ud5_try_send_waits_its_turn() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let first = begin(socket.send_to("first", addr)).await;
        match first.is_over() {
            true => assert_eq!(socket.try_send_to(b"second", addr).expect("room"), 6),
            false => {
                let error = socket.try_send_to(b"second", addr).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                poll_fn(|cx| socket.poll_send_ready(cx)).await.expect("at home");
                assert_eq!(socket.try_send_to(b"second", addr).expect("room"), 6);
            }
        }
        first.await.expect("a route");
        recv_in_order(&socket, [b"first".to_vec(), b"second".to_vec()]).await;
        for _ in 0..3 {
            poll_fn(|cx| socket.poll_send_ready(cx)).await.expect("at home");
        }
    });
}

/// A socket is read and written by several tasks at once.
#[test]
fn ud5_an_echo_of_many() {
    everywhere(|| async {
        let (server, addr) = bound();
        let server = Rc::new(server);
        let echo = {
            let server = server.clone();
            tamam::spawn(async move {
                loop {
                    let datagram = recv(&server).await;
                    server.send_to(datagram.chunk, datagram.from).await.expect("a route");
                }
            })
        };
        let clients: Vec<_> = (0..10)
            .map(|client| {
                tamam::spawn(async move {
                    let (socket, _) = bound();
                    socket.connect(addr).await.expect("a route");
                    for number in 0..50 {
                        let bytes = numbered(100 * client + number, 200);
                        socket.send(bytes.clone()).await.expect("a peer");
                        assert_eq!(recv(&socket).await.chunk[..], bytes);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no panic");
        }
        echo.abort();
        turn().await;
    });
}

/// A send goes on whether or not anybody receives: the kernel throws away what has no room.
#[test]
fn ud5_a_send_does_not_wait_for_the_receiver() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for number in 0..500 {
            socket.send(numbered(number, 1000)).await.expect("a peer");
        }
        drop(peer);
    });
}
