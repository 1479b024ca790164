//! G2: an arrival before the waker is registered, while it is cloned.

use std::future::Future;
use std::io::Write;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Context;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::{start, turn, wait_for};
use crate::family::pair;
use crate::{WAYS, Way, common, receive, write};

/// 1 a receive finds nothing; 2 its waker is cloned: foreign code makes bytes arrive, and has them
/// reaped; 3 the waker is woken all the same.
#[test]
fn g2_bytes_that_come_while_the_waker_is_cloned() {
    for way in WAYS {
        common::everywhere(|| async move {
            let len = if let Way::ReadExact(len) = way { len } else { 1 };
            let (stream, peer) = pair().await;
            let socket = stream.as_fd().try_clone_to_owned().expect("a descriptor is left");
            let (listeners, writer) = (reaping().await, peer.try_clone().expect("as well"));
            let foreign = ForeignWaker::new(move || {
                write(&writer, &vec![b'x'; len]);
                wait_for(&socket, libc::POLLIN);
                while common::unread(&socket) < len {
                    std::thread::yield_now();
                }
                drop(listeners);
            });
            let mut receiving = Box::pin(receive(&stream, way));
            let waker = foreign.waker();
            let poll = receiving.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending(), "{way:?}: it was about to wait");
            foreign.woken().await;
            assert_eq!(receiving.await, (vec![b'x'; len], None), "{way:?}");
            drop(peer);
        });
    }
}

/// 1 a read has lent its buffer to the receive in flight; 2 the waker of another receive is cloned:
/// foreign code drops the read, and has the end of the receive reaped; 3 the other one arms its own.
#[test]
fn g2_a_receive_that_ends_while_another_ones_waker_is_cloned() {
    common::everywhere(|| async {
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let (listeners, lender) = (reaping().await, stream.clone());
        let lending = start(Box::pin(async move {
            drop(lender.read(Vec::with_capacity(64 * 1024)).await);
        }))
        .await;
        turn().await;
        let foreign = ForeignWaker::new(move || {
            drop(lending);
            drop(listeners);
        });
        let (waker, mut receiving) = (foreign.waker(), Box::pin(stream.recv()));
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        peer.write_all(b"x").expect("connected");
        foreign.woken().await;
        let answer = receiving.await.expect("connected").expect("a byte");
        assert_eq!(&answer[..], b"x");
    });
}
