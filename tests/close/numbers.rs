//! CL18: the number of a descriptor is given to another file while an op means the first.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tamam::Runtime;

use crate::family;
use crate::{blocking_read, common};

/// Makes `number` mean /dev/null from now on, as foreign code does that closes descriptors which
/// are not its own and opens others.
fn usurp(number: RawFd) {
    let null = std::fs::File::open("/dev/null").expect("there is /dev/null");
    // SAFETY: takes no pointers. The number's owner is the stream under test.
    let done = unsafe { libc::dup2(null.as_raw_fd(), number) };
    assert_eq!(done, number);
    if null.as_raw_fd() == number {
        std::mem::forget(null); // it was free, and is this file's now
    }
}

/// CL18. 1 a receive is in flight; 2 foreign code closes the number and opens another file there;
/// 3 the receive still gets the peer's bytes, since it holds the file; 4 the drop ends the op, and
/// the peer sees the end. Only an op of the ring holds its file: under epoll a receive that waits is
/// a number, and what is behind that is what foreign code put there.
#[test]
fn cl18_an_op_in_flight_holds_the_file() {
    common::alone("numbers::cl18_an_op_in_flight_holds_the_file", || {
        let Some(ring) = common::ring_only(Runtime::builder()) else { return };
        let small = ring.clone().entries(1).completion_entries(2).buffer_size(16).buffer_count(1);
        let test = || async {
            let (stream, mut peer) = family::pair().await;
            let recv = common::start(stream.recv()).await;
            common::turn().await;
            usurp(stream.as_fd().as_raw_fd());
            peer.write_all(b"x").expect("connected");
            assert_eq!(&recv.await.expect("no reset").expect("not the end")[..], b"x");
            drop(stream);
            common::turn().await;
            assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
        };
        common::with(ring, test);
        common::with(small, test);
    });
}

/// CL18. Later calls say what the kernel says of the number: EBADF, or ENOTSOCK. No crash, no
/// hang, buffers come back.
#[test]
fn cl18_later_calls_say_what_the_kernel_says() {
    common::alone("numbers::cl18_later_calls_say_what_the_kernel_says", || {
        common::everywhere(|| async {
            for errno in [libc::EBADF, libc::ENOTSOCK] {
                let (stream, _peer) = family::pair().await;
                let number = stream.as_fd().as_raw_fd();
                if errno == libc::EBADF {
                    // SAFETY: takes no pointers. The number is usurped before the stream goes.
                    assert_eq!(unsafe { libc::close(number) }, 0);
                } else {
                    usurp(number);
                }
                let (error, buf) = stream.send_all("x").await.expect_err("no socket").into_parts();
                assert_eq!((error.raw_os_error(), buf), (Some(errno), "x"));
                let read = stream.read(Vec::with_capacity(10)).await.expect_err("no socket");
                assert_eq!(read.error().raw_os_error(), Some(errno));
                let recv = stream.recv().await.expect_err("no socket");
                assert_eq!(recv.raw_os_error(), Some(errno));
                usurp(number);
                drop(stream);
            }
        });
    });
}
