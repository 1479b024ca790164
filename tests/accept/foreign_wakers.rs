//! G2: a connection that comes before the waker is registered, while it is cloned.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::task::Context;

use crate::common::foreign::{ForeignWaker, reaping};
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
