//! CL6: a drop that resets, because it was asked to.

use std::io::{ErrorKind, Write};

use crate::common::Gone;
use crate::{STALLING, blocking_read, blocking_read_to_end, common, family, park};

/// CL6. Only after `set_zero_linger` does a drop reset; then it does in every state.
#[test]
fn cl6_zero_linger_resets() {
    common::everywhere(|| async {
        for state in 0..5 {
            let (stream, mut peer) = family::narrow_pair().await;
            match state {
                0 => {}
                1 => drop(common::start(stream.recv()).await),
                2 => park(&stream, &mut peer, b"unread", Gone::Dropped).await,
                3 => drop(common::start(stream.send_all(vec![7; STALLING])).await),
                _ => {
                    peer.write_all(b"unread").expect("connected");
                    common::wait_for(&stream, libc::POLLIN);
                }
            }
            stream.set_zero_linger().expect("a TCP socket");
            drop(stream);
            common::turn().await;
            let error = blocking_read_to_end(peer).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "state {state}");
        }
    });
}

/// CL6, CL10. A reset was asked for by a half: no end comes before it, in whatever order they go.
#[test]
fn cl6_halves_that_are_dropped_reset_as_the_stream_does() {
    common::everywhere(|| async {
        for order in 0..3 {
            let (stream, mut peer) = family::pair().await;
            let (read, write) = stream.into_split();
            match order {
                0 => write.set_zero_linger().expect("a socket"),
                _ => read.set_zero_linger().expect("a socket"),
            }
            if order == 2 {
                drop(read);
                drop(write);
            } else {
                drop(write);
                drop(read);
            }
            common::turn().await;
            let error = blocking_read(&mut peer).expect_err("a reset, and no end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "order {order}");
        }
    });
}
