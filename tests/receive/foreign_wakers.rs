//! G2: an arrival before the waker is registered, while it is cloned.

use std::future::Future;
use std::os::fd::AsFd;
use std::task::Context;

use crate::common::foreign::{ForeignWaker, reaping};
use crate::common::{pair, wait_for};
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
