//! UD7: options, before and after binding, and the peer.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use tamam::io::{CallError, errno};
use tamam::net::{UdpBuilder, UdpSocket};

use crate::common::{at_once, everywhere, settle, start, turn};
use crate::{bound, recv, recv_in_order};

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn v6() -> Option<UdpSocket> {
    let socket = UdpSocket::bind("[::1]:0");
    if let Err(error) = &socket {
        println!("skipped: this host has no IPv6: {error}");
    }
    socket.ok()
}

#[test]
fn ud7_bind_takes_addresses_only_and_names_what_failed() {
    everywhere(|| async {
        assert_eq!(UdpSocket::bind("localhost:0").unwrap_err().kind(), ErrorKind::InvalidInput);
        let (_first, taken) = bound();
        let error = UdpSocket::bind(taken).unwrap_err();
        assert_eq!((error.kind(), errno(&error)), (ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        let failed = CallError::of(&error).expect("it says which call");
        assert_eq!((failed.call(), failed.subject()), ("bind", &*taken.to_string()));
        let second = UdpSocket::bind([taken, any()]).expect("the second address is free");
        assert_ne!(second.local_addr().expect("bound"), taken);
    });
}

#[test]
fn ud7_options_before_binding() {
    everywhere(|| async {
        let builder = || UdpBuilder::new_v4().expect("a socket");
        let one = builder().reuse_port(true).reuse_addr(true).bind(any()).expect("free");
        let addr = one.local_addr().expect("bound");
        builder().reuse_port(true).reuse_addr(true).bind(addr).expect("shared");
        builder().bind(addr).expect_err("not shared by this one");
        let sized = builder().recv_buffer_size(8192).send_buffer_size(8192).bind(any());
        let sized = sized.expect("free");
        assert_eq!(sized.recv_buffer_size().expect("a socket"), 16_384);
        assert_eq!(sized.send_buffer_size().expect("a socket"), 16_384);
        let error = builder().only_v6(true).reuse_addr(true).bind(any()).unwrap_err();
        assert!(error.to_string().contains("IPV6_V6ONLY"), "{error}");
        let error = builder().device("no such device").bind(any()).unwrap_err();
        assert!(error.to_string().contains("no such device"), "{error}");
        match builder().device("lo").bind(any()) {
            Ok(socket) => {
                let addr = socket.local_addr().expect("bound");
                socket.send_to("by lo", addr).await.expect("a route");
                recv_in_order(&socket, [b"by lo".to_vec()]).await;
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                println!("skipped: SO_BINDTODEVICE: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

fn option_of_v4(socket: &UdpSocket, option: libc::c_int) -> libc::c_int {
    let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: there is room for the int that the option is, and for its length.
    let asked = unsafe {
        let value: *mut libc::c_int = &mut value;
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            value.cast(),
            &mut len,
        )
    };
    assert_eq!(asked, 0);
    value
}

#[test]
fn ud7_options_after_binding() {
    everywhere(|| async {
        let (four, _) = bound();
        for socket in [Some(four), v6()].into_iter().flatten() {
            for on in [true, false] {
                socket.set_broadcast(on).expect("a socket");
                assert_eq!(socket.broadcast().expect("a socket"), on);
                socket.set_multicast_loop(on).expect("a socket");
                assert_eq!(socket.multicast_loop().expect("a socket"), on);
            }
            for routers in [1, 7, 255] {
                socket.set_ttl(routers).expect("a socket");
                socket.set_multicast_ttl(routers).expect("a socket");
                assert_eq!(socket.ttl().expect("a socket"), routers);
                assert_eq!(socket.multicast_ttl().expect("a socket"), routers);
            }
            for routers in [256, u32::MAX] {
                let error = socket.set_ttl(routers).unwrap_err();
                let text = error.to_string();
                assert!(text.contains("TTL") || text.contains("HOPS"), "{text}");
                socket.set_multicast_ttl(routers).unwrap_err();
            }
            socket.set_tos(0x2e << 2).expect("a socket");
            assert_eq!(socket.tos().expect("a socket"), 0x2e << 2);
            // Also for the datagrams of IPv4 that a socket for IPv6 sends.
            for (option, value) in [
                (libc::IP_TTL, 255),
                (libc::IP_MULTICAST_TTL, 255),
                (libc::IP_TOS, 0x2e << 2),
                (libc::IP_MULTICAST_LOOP, 0),
            ] {
                assert_eq!(option_of_v4(&socket, option), value, "option {option}");
            }
            for bytes in [0, u32::MAX] {
                socket.set_recv_buffer_size(bytes).expect("cut to what is allowed");
                socket.set_send_buffer_size(bytes).expect("cut to what is allowed");
            }
            assert_eq!(socket.dropped().expect("this kernel counts them"), 0);
        }
    });
}

/// `connect` looks names up, sets the peer, and filters; what was received before stays.
#[test]
fn ud7_connect_and_disconnect() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let [(one, one_addr), (other, other_addr)] = [bound(), bound()];
        drop(start(socket.recv()).await);
        one.send_to("before", addr).await.expect("a route");
        settle().await;
        let error = socket.connect("[::1]:9").await.unwrap_err();
        assert_eq!(CallError::of(&error).expect("it says which call").subject(), "[::1]:9");
        socket.connect("127.0.0.1:nonsense").await.expect_err("no port");
        assert_eq!(socket.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        for _ in 0..3 {
            socket.connect(("localhost", other_addr.port())).await.expect("a route");
            assert_eq!(socket.peer_addr().expect("connected"), other_addr);
            assert_eq!(socket.local_addr().expect("bound"), addr);
            recv_in_order(&socket, [b"before".to_vec()]).await;
            one.send_to("from another", addr).await.expect("a route");
            other.send_to("from the peer", addr).await.expect("a route");
            recv_in_order(&socket, [b"from the peer".to_vec()]).await;
            socket.send("to the peer").await.expect("a peer");
            recv_in_order(&other, [b"to the peer".to_vec()]).await;
            socket.disconnect().expect("connected");
            assert_eq!(socket.local_addr().expect("bound"), addr, "the kernel gives its own up");
            assert_eq!(socket.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
            one.send_to("before", addr).await.expect("a route");
        }
        assert_eq!(recv(&socket).await.from, one_addr);
        socket.disconnect().expect("once more is fine");
        at_once(socket.connect(one_addr)).await.expect("a route");
        turn().await;
    });
}
