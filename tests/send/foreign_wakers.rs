//! G2: the end of a send before the waker is registered, while it is cloned.

use std::future::Future;
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::task::Context;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::{start, turn, wait_for};
use crate::family::{self, Stream, narrow_pair, reset};
use crate::{STALLING, common, stalled_pair};

/// While it is cloned, the peer resets, and what that ends is reaped.
async fn resetting(stream: &Stream, peer: StdStream) -> ForeignWaker {
    let socket = stream.as_fd().try_clone_to_owned().expect("a descriptor is left");
    let listeners = reaping().await;
    ForeignWaker::new(move || {
        reset(peer);
        wait_for(&socket, libc::POLLHUP);
        drop(listeners);
    })
}

/// 1 a send stalls; 2 it is polled with another waker: while that is cloned, the send fails; 3 the
/// waker is woken all the same.
#[test]
fn g2_a_send_that_ends_while_the_waker_is_cloned() {
    common::everywhere(|| async {
        let (stream, peer) = narrow_pair().await;
        let mut send = start(stream.send_all(vec![7; STALLING])).await;
        turn().await;
        let foreign = resetting(&stream, peer).await;
        let waker = foreign.waker();
        assert!(send.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        foreign.woken().await;
        assert_eq!(send.await.expect_err("it is reset").kind(), family::SEND_AFTER_RESET);
    });
}

/// The same, of a shutdown that waits behind an abandoned send.
#[test]
fn g2_a_shutdown_that_ends_while_the_waker_is_cloned() {
    common::everywhere(|| async {
        let (stream, peer) = stalled_pair().await;
        let foreign = resetting(&stream, peer).await;
        let (waker, mut shutdown) = (foreign.waker(), Box::pin(stream.shutdown()));
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        foreign.woken().await;
        assert_eq!(shutdown.await.expect_err("it is reset").kind(), family::SEND_AFTER_RESET);
    });
}
