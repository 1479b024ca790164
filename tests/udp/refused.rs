//! UD4: an ICMP error is told once, and ends nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;

use tamam::net::UdpSocket;
use tamam::time::timeout;

use crate::common::{everywhere, settle, start};
use crate::{bound, recv_in_order};

/// An address at which nobody is.
fn nobody() -> SocketAddr {
    let socket = StdSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.local_addr().expect("bound")
}

async fn connected(to: SocketAddr) -> UdpSocket {
    let (socket, _) = bound();
    socket.connect(to).await.expect("loopback has a route");
    socket
}

#[test]
fn ud4_a_refusal_is_told_once_to_the_call_that_waits() {
    everywhere(|| async {
        let socket = connected(nobody()).await;
        for _ in 0..5 {
            let waiting = start(socket.recv()).await;
            socket.send("anybody").await.expect("it goes out");
            let error = waiting.await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(timeout(Duration::from_millis(2), socket.recv()).await.is_err(), "once");
        }
    });
}

/// Somebody comes to the address that refused: receiving and sending have gone on.
#[test]
fn ud4_receiving_goes_on_after_a_refusal() {
    everywhere(|| async {
        let addr = nobody();
        let socket = connected(addr).await;
        let waiting = start(socket.recv()).await;
        socket.send("anybody").await.expect("it goes out");
        assert_eq!(waiting.await.map(drop).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let Ok(peer) = StdSocket::bind(addr) else {
            return println!("skipped: another process has taken the port");
        };
        peer.connect(socket.local_addr().expect("bound")).expect("a route");
        peer.set_read_timeout(Some(*crate::common::PATIENCE)).expect("not zero");
        let waiting = start(socket.recv()).await;
        socket.send("hello").await.expect("it goes out");
        let mut buf = [0; 16];
        assert_eq!(peer.recv(&mut buf).expect("it arrives"), 5);
        peer.send(b"answer").expect("room");
        assert_eq!(&waiting.await.expect("no error").chunk[..], b"answer");
    });
}

/// The refusal comes while no call waits: the next call that meets it is told, and only that one.
#[test]
fn ud4_a_refusal_without_a_call_is_told_to_the_next() {
    everywhere(|| async {
        let socket = connected(nobody()).await;
        drop(start(socket.recv()).await);
        socket.send("anybody").await.expect("it goes out");
        settle().await;
        let mut told = 0;
        for _ in 0..3 {
            match timeout(Duration::from_millis(2), socket.recv()).await {
                Ok(result) => {
                    assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::ConnectionRefused);
                    told += 1;
                }
                Err(_elapsed) => {}
            }
        }
        assert_eq!(told, 1);
    });
}

/// Without a receive the next send meets it: that one is not sent, and its buffer comes back.
#[test]
fn ud4_a_send_that_meets_a_refusal_gives_its_buffer_back() {
    everywhere(|| async {
        let socket = connected(nobody()).await;
        for _ in 0..5 {
            socket.send("anybody").await.expect("it goes out");
            settle().await;
            let (error, buf) = socket.send(vec![7; 9]).await.unwrap_err().into_parts();
            assert_eq!((error.kind(), &buf[..]), (ErrorKind::ConnectionRefused, &[7; 9][..]));
            settle().await;
        }
    });
}

/// A socket without a peer is told of no refusal.
#[test]
fn ud4_a_socket_without_a_peer_hears_of_none() {
    everywhere(|| async {
        let (socket, addr) = bound();
        let waiting = start(socket.recv()).await;
        socket.send_to("anybody", nobody()).await.expect("it goes out");
        settle().await;
        socket.send_to("myself", addr).await.expect("it goes out");
        assert_eq!(&waiting.await.expect("no error").chunk[..], b"myself");
        socket.send_to("again", addr).await.expect("it goes out");
        recv_in_order(&socket, [b"again".to_vec()]).await;
    });
}
