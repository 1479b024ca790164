//! G2: a connection that comes before the waker is registered, while it is cloned.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use tamam::Runtime;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::shortage::take_all_descriptors;
use crate::common::{alone, pair, turn, with_both};
use crate::{addr_of, client, common, listening};

/// 1 an accept finds nobody; 2 its waker is cloned: foreign code connects, and has the connection
/// reaped; 3 the waker is woken all the same.
#[test]
fn g2_a_connection_that_comes_while_the_waker_is_cloned() {
    common::everywhere(|| async {
        let (listener, addr) = listening();
        let (listeners, connected) = (reaping().await, Rc::new(RefCell::new(None)));
        let foreign = ForeignWaker::new({
            let connected = connected.clone();
            move || {
                connected.replace(Some(client(addr)));
                drop(listeners);
            }
        });
        let (waker, mut accept) = (foreign.waker(), Box::pin(listener.accept()));
        assert!(accept.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        foreign.woken().await;
        let (_stream, peer) = accept.await.expect("a connection");
        assert_eq!(peer, addr_of(connected.borrow().as_ref().expect("it was cloned")));
    });
}

/// 1 the listener pauses for want of a descriptor; 2 the waker of an accept is cloned, for the timer of
/// the pause and then for a close: foreign code closes a descriptor; 3 the pause is over.
#[test]
fn ac8_a_close_while_the_waker_is_cloned_ends_the_pause() {
    const NAME: &str = "foreign_wakers::ac8_a_close_while_the_waker_is_cloned_ends_the_pause";
    alone(NAME, || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let (own, _own_peer) = pair().await;
            let client = client(addr);
            let _files = take_all_descriptors();
            for _ in 0..6 {
                listener.accept().await.expect_err("no descriptor"); // the pauses grow
            }
            let mut accept = Box::pin(listener.accept());
            let foreign = ForeignWaker::after(1, move || drop(own));
            let waker = foreign.waker();
            let mut turns = 0;
            let (_stream, peer) = loop {
                let poll = accept.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(result) = poll {
                    break result.expect("there is a descriptor");
                }
                // Only its own wakes: another poll would find the pause over.
                while foreign.take_wakes() == 0 {
                    turns += 1;
                    assert!(turns < 10, "it waits the pause out");
                    turn().await;
                }
            };
            assert_eq!(peer, addr_of(&client));
        });
    });
}
