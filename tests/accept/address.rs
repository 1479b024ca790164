//! AC6: which addresses a listener has, and when they are free again.

use std::net::{SocketAddr, TcpStream as StdStream};

use tamam::Runtime;
use tamam::net::{TcpListener, TcpSocket};

use crate::common::{Gone, alone, everywhere, start, turn, with_both};
use crate::{accept, accept_in_order, addr_of, arriving, client, is_connection_reset};

/// As std's listeners do it; `only_v6` leaves IPv4 to another socket at the same port.
#[test]
fn a_listener_at_all_addresses_serves_both_families() {
    let Ok(bare) = std::net::TcpListener::bind("[::]:0") else {
        return println!("skipped: no IPv6");
    };
    let takes_v4 = |addr: SocketAddr| StdStream::connect(("127.0.0.1", addr.port())).is_ok();
    let expected = takes_v4(bare.local_addr().expect("bound"));
    with_both(Runtime::builder(), || async move {
        let both = TcpListener::bind("[::]:0").expect("there is IPv6");
        let addr = both.local_addr().expect("bound");
        assert_eq!(takes_v4(addr), expected);
        if expected {
            let (_stream, peer) = accept(&both).await;
            assert_eq!(peer.ip().to_canonical(), std::net::Ipv4Addr::LOCALHOST);
        }
        let v6 = TcpSocket::new_v6().expect("a socket").only_v6(true);
        let v6 = v6.listen("[::]:0").expect("there is IPv6");
        assert!(!takes_v4(v6.local_addr().expect("bound")));
        let v4 = TcpSocket::new_v4().expect("a socket").only_v6(true);
        v4.listen("127.0.0.1:0").expect_err("it is for IPv6");
    });
}

#[test]
fn a_socket_is_bound_once() {
    with_both(Runtime::builder(), || async {
        let addr = "127.0.0.1:0";
        let socket = TcpSocket::new_v4().and_then(|socket| socket.bind(addr)).expect("loopback");
        let error = socket.listen(addr).map(drop).expect_err("it is bound");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("bound already"), "{error}");
    });
}

/// Text, and lists: what fits the family is taken, in order.
#[test]
fn ac13_the_first_address_that_fits_is_bound() {
    with_both(Runtime::builder(), || async {
        let v4 = || TcpSocket::new_v4().expect("a socket");
        let taken = v4().listen("127.0.0.1:0").and_then(|it| Ok((it.local_addr()?, it)));
        let (taken, _listener) = taken.expect("loopback has ports");
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let list = [addr("[::1]:0"), taken, addr("127.0.0.1:0")];
        let listener = v4().listen(list).expect("the last one fits");
        assert!(listener.local_addr().is_ok_and(|addr| addr.is_ipv4()));
        let bound = v4().bind(&list[..]).expect("the last one fits");
        assert!(bound.local_addr().is_ok_and(|addr| addr.ip().is_loopback()));
        if let Ok(Ok(listener)) = TcpSocket::new_v6().map(|socket| socket.listen(list)) {
            assert!(listener.local_addr().is_ok_and(|addr| addr.is_ipv6()));
        }
        let error = v4().listen([list[0], taken]).expect_err("it is taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");

        let error = v4().bind(("::1", 80)).map(drop).expect_err("another family");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.starts_with("bind [::1]:80: ") && text.contains("for IPv4"), "{text}");
        for text in ["localhost:80", "nonsense"] {
            let error = v4().listen(text).expect_err("no address");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(text.split(':').next().expect("text")), "{error}");
        }
    });
}

/// 127.0.0.6 is used by nobody else, so the port stays free between drop and bind.
#[test]
fn ac6_the_address_is_free_at_once() {
    // A process that another test starts has a copy of the listener until its exec.
    alone("address::ac6_the_address_is_free_at_once", || {
        everywhere(|| async {
            let mut addr: SocketAddr = "127.0.0.6:0".parse().expect("an address");
            for round in 0..100 {
                // Without SO_REUSEADDR: any socket that still listens there would be in the way.
                let listener = TcpSocket::new_v4().and_then(|socket| socket.listen(addr));
                let listener = listener.unwrap_or_else(|error| panic!("round {round}: {error}"));
                addr = listener.local_addr().expect("bound");
                Gone::BOTH[round % 2].leave(start(listener.accept()).await);
                if round % 3 == 0 {
                    turn().await; // the accept is with the kernel
                }
                drop(listener);
            }
        });
    });
}

/// As before, with connections: the dead listener accepts none that is meant for the next.
#[test]
fn ac6_the_next_listener_gets_the_next_client() {
    // A process that another test starts has a copy of the listener until its exec.
    alone("address::ac6_the_next_listener_gets_the_next_client", || {
        everywhere(|| async {
            let mut addr: SocketAddr = "127.0.0.6:0".parse().expect("an address");
            let mut previous: Option<(TcpListener, StdStream)> = None;
            for round in 0..100 {
                let lost = previous.take().map(|(listener, client)| {
                    drop(listener);
                    client
                });
                let listener =
                    TcpListener::bind(addr).unwrap_or_else(|e| panic!("round {round}: {e}"));
                addr = listener.local_addr().expect("bound");
                let (first, second) = (client(addr), client(addr));
                accept_in_order(&listener, &[addr_of(&first), addr_of(&second)]).await;
                let parked = arriving(&listener, addr, Gone::BOTH[round % 2], 1).await.remove(0);
                assert!(lost.is_none_or(|mut client| is_connection_reset(&mut client)));
                previous = Some((listener, parked));
            }
        });
    });
}
