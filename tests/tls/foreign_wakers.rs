//! G2: a send that ends before the waker is registered, while it is cloned.

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use tamam::tls::rustls::version::TLS12;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::{self, everywhere, start, turn, unread, wait_for};
use crate::keys::{narrow_tcp_pair, tcp_pair};
use crate::pair_over;

/// 1 a send waits to be encrypted; 2 the peer sends what is no record, and TCP has it; 3 the send is
/// polled with another waker: while that is cloned, foreign code receives, so that TLS fails, and asks
/// for the shutdown, which ends what waits; 4 the waker is woken all the same. (TLS 1.3 has tickets on
/// their way.)
#[test]
fn g2_a_send_of_tls_that_ends_while_the_waker_is_cloned() {
    const NO_RECORD: [u8; 64] = [0xff; 64];
    everywhere(|| async {
        let tcp = narrow_tcp_pair().await;
        let dup = |end: &tamam::net::TcpStream| end.as_fd().try_clone_to_owned();
        let socket = dup(&tcp.0).expect("a descriptor is left");
        let mut raw = StdStream::from(dup(&tcp.1).expect("as well"));
        let (client, _server) = pair_over(&TLS12, tcp).await;
        let client = Rc::new(client);
        let mut send = start(client.send_all(vec![7; 4 << 20])).await;
        drop(start(client.recv()).await);
        turn().await;
        raw.write_all(&NO_RECORD).expect("it fits");
        wait_for(&socket, libc::POLLIN);
        while unread(&socket) == NO_RECORD.len() {
            turn().await;
        }
        let inside = client.clone();
        let foreign = ForeignWaker::new(move || {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(pin!(inside.recv()).poll(cx).is_ready(), "no record");
            assert!(pin!(inside.shutdown()).poll(cx).is_ready(), "TLS has failed");
        });
        let waker = foreign.waker();
        assert!(send.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        foreign.woken().await;
        assert_eq!(send.await.expect_err("no TLS").kind(), ErrorKind::InvalidData);
    });
}

/// 1 a receive finds nothing; 2 its waker is cloned: foreign code makes ciphertext arrive, and has it
/// reaped; 3 the waker is woken all the same.
#[test]
fn g2_ciphertext_that_comes_while_the_waker_is_cloned() {
    everywhere(|| async {
        let tcp = tcp_pair().await;
        tcp.1.set_nodelay(true).expect("connected"); // else the message waits for the client's ACK
        let socket = tcp.0.as_fd().try_clone_to_owned().expect("a descriptor is left");
        let (client, server) = pair_over(&TLS12, tcp).await;
        drop(start(client.recv()).await);
        let listeners = reaping().await;
        let foreign = ForeignWaker::new(move || {
            let cx = &mut Context::from_waker(Waker::noop());
            let _ = pin!(server.send_all("secret")).poll(cx); // it is with the kernel, or submitted
            drop(listeners); // the first submits, the others reap
            if common::on_epoll() {
                wait_for(&socket, libc::POLLIN);
            }
            std::mem::forget(server);
        });
        let (waker, mut receiving) = (foreign.waker(), Box::pin(client.recv()));
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        foreign.woken().await;
        let chunk = receiving.await.expect("connected").expect("a message");
        assert_eq!(&chunk[..], b"secret");
    });
}
