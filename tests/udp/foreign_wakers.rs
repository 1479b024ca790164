//! G2: an arrival before the waker is registered, while it is cloned.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Context;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::{everywhere, start, turn, wait_for};
use crate::{pair, recv};

/// 1 a receive finds nothing; 2 its waker is cloned: foreign code makes a datagram arrive, and has it
/// reaped; 3 the waker is woken all the same.
#[test]
fn g2_a_datagram_that_comes_while_the_waker_is_cloned() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        let own = socket.as_fd().try_clone_to_owned().expect("a descriptor is left");
        let (listeners, sender) = (reaping().await, peer.try_clone().expect("as well"));
        let foreign = ForeignWaker::new(move || {
            sender.send(b"one").expect("room");
            wait_for(&own, libc::POLLIN);
            drop(listeners);
        });
        let (waker, mut receiving) = (foreign.waker(), Box::pin(socket.recv()));
        let poll = receiving.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending(), "it was about to wait");
        foreign.woken().await;
        assert_eq!(&receiving.await.expect("a datagram").chunk[..], b"one");
        drop(peer);
    });
}

/// 1 a receive is in flight; 2 the waker of another call is cloned: foreign code lets the datagram of
/// the first come and takes it; 3 the other call gets the next one.
#[test]
fn g2_a_datagram_that_another_call_takes_while_a_waker_is_cloned() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        let (socket, listeners) = (Rc::new(socket), reaping().await);
        drop(start(socket.recv()).await);
        turn().await;
        let (other, sender) = (socket.clone(), peer.try_clone().expect("a descriptor is left"));
        let foreign = ForeignWaker::new(move || {
            sender.send(b"first").expect("room");
            wait_for(&*other, libc::POLLIN);
            drop(listeners);
            let first = other.try_recv();
            assert!(first.is_err() || &first.expect("it came").chunk[..] == b"first");
        });
        let (waker, mut receiving) = (foreign.waker(), Box::pin(socket.recv()));
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        peer.send(b"second").expect("room");
        foreign.woken().await;
        let chunk = receiving.await.expect("a datagram").chunk;
        if &chunk[..] == b"first" {
            assert_eq!(&recv(&socket).await.chunk[..], b"second");
        } else {
            assert_eq!(&chunk[..], b"second");
        }
    });
}
