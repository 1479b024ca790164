//! Options of sockets: what is set is told, and connections inherit it.

use std::net::TcpStream as StdStream;
use std::time::Duration;

use tamam::Runtime;
use tamam::net::{TcpKeepalive, TcpSocket, TcpStream};

use crate::common::with_both;

#[test]
fn options_are_told_and_inherited() {
    with_both(Runtime::builder(), || async {
        let plain = TcpSocket::new_v4().and_then(|socket| socket.options()).expect("a socket");
        assert!(!plain.reuse_addr && !plain.reuse_port && !plain.nodelay);
        assert_eq!((plain.only_v6, plain.keepalive, plain.linger), (None, None, None));
        assert_eq!((plain.tos, plain.backlog), (0, 1024));
        let keepalive = TcpKeepalive {
            idle: Some(Duration::from_secs(61)),
            interval: Some(Duration::from_secs(7)),
            probes: Some(5),
        };
        for v6 in [false, true] {
            let socket = if v6 { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
            let Ok(socket) = socket else { continue };
            let socket = socket
                .reuse_addr(true)
                .reuse_port(true)
                .nodelay(true)
                .keepalive(keepalive)
                .recv_buffer_size(8192)
                .send_buffer_size(8192)
                .ttl(9)
                .tos(0xb8)
                .backlog(5);
            let options = socket.options().expect("a socket");
            assert!(options.reuse_addr && options.reuse_port && options.nodelay);
            assert_eq!((options.only_v6.is_some(), options.keepalive), (v6, Some(keepalive)));
            assert_eq!((options.recv_buffer_size, options.send_buffer_size), (16384, 16384));
            assert_eq!((options.ttl, options.tos, options.backlog), (9, 0xb8, 5));
            let Ok(listener) = socket.listen(if v6 { "[::1]:0" } else { "127.0.0.1:0" }) else {
                println!("skipped: no IPv6");
                continue;
            };
            let addr = listener.local_addr().expect("bound");
            let client = TcpStream::connect(addr).await.expect("it listens");
            let (accepted, _) = listener.accept().await.expect("it is there");
            assert!(accepted.nodelay().expect("a socket"));
            assert_eq!(accepted.keepalive().expect("a socket"), Some(keepalive));
            let told = (accepted.ttl().expect("a socket"), accepted.tos().expect("a socket"));
            assert_eq!(told, (9, 0xb8));

            client.set_ttl(255).expect("it is in range");
            client.set_tos(u8::MAX).expect("every value is taken");
            assert_eq!(client.ttl().expect("a socket"), 255);
            assert_eq!(client.tos().expect("a socket") & 0xfc, 0xfc, "the rest is TCP's");
            for hops in [0, 256, u32::MAX] {
                let error = client.set_ttl(hops).expect_err("no number of hops");
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
                assert_eq!(client.ttl().expect("a socket"), 255, "as before");
            }
        }
    });
}

/// A socket for IPv6 whose peer is one of IPv4 sends packets of IPv4.
#[test]
fn options_hold_for_ipv4_over_an_ipv6_socket() {
    with_both(Runtime::builder(), || async {
        let socket = TcpSocket::new_v6().map(|socket| socket.only_v6(false).ttl(11).tos(0x20));
        let Ok(listener) = socket.and_then(|socket| socket.listen("[::]:0")) else {
            return println!("skipped: no IPv6");
        };
        let port = listener.local_addr().expect("bound").port();
        let _client = StdStream::connect(("127.0.0.1", port)).expect("it listens");
        let (accepted, peer) = listener.accept().await.expect("it is there");
        assert!(peer.ip().to_canonical().is_ipv4());
        let socket = accepted.into_std().expect("nothing is unsent").0;
        assert_eq!(socket.ttl().expect("IP_TTL"), 11);
    });
}
