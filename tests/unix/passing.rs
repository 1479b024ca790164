//! UX5, in the ways that lose or leak descriptors, or bytes beside them.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};

use tamam::net::UnixStream;
use tamam::time::{sleep, timeout};

use crate::MS;
use crate::common::{alone, begin, descriptors, everywhere, pattern, start, turn};
use crate::descriptors::{numbered, numbers, send, stream_pair};

/// 1 a send with a descriptor is in flight on a full socket, and its future is gone; 2 the peer makes room;
/// 3 the stream is dropped in the same turn: the message does not go out without its descriptor.
#[test]
fn ux5_a_drop_sends_no_message_without_its_descriptors() {
    everywhere(async || {
        let (stream, mut peer) = crate::family::narrow_pair().await;
        drop(start(stream.send_all(pattern(1 << 20))).await);
        turn().await;
        drop(start(stream.send_fds("MESSAGE", &[numbered(1).as_fd()])).await);
        turn().await;
        let mut room = vec![0; 64 * 1024];
        peer.read_exact(&mut room[..4096]).expect("it is full");
        drop(stream);
        turn().await;
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).expect("no reset");
        assert!(!rest.ends_with(b"MESSAGE"));
    });
}

/// The passed file is closed here when the buffer is out, whatever becomes of the future.
#[test]
fn ux5_duplicates_are_closed_when_the_buffer_is_out() {
    alone("passing::ux5_duplicates_are_closed_when_the_buffer_is_out", || {
        everywhere(async || {
            let (sender, receiver) = stream_pair(4);
            let before = descriptors().len();
            let file = numbered(1);
            let fds = [file.as_fd()];
            std::mem::forget(begin(sender.send_fds("x", &fds)).await);
            let sending = begin(sender.send_fds("y", &fds)).await;
            let mut came = 0;
            while came < 2 {
                came += receiver.recv_fds().await.expect("connected").expect("no end").1.len();
            }
            turn().await;
            assert_eq!(descriptors().len(), before + 1, "the file itself");
            drop(sending);
        });
    });
}

/// Descriptors that were kept come before a reset, end with the half that receives, and are not lost
/// by a conversion.
#[test]
fn ux5_kept_descriptors_and_the_end_of_the_stream() {
    alone("passing::ux5_kept_descriptors_and_the_end_of_the_stream", || {
        everywhere(async || {
            let (sender, receiver) = stream_pair(4);
            send(&sender, "one", &[numbered(1)]).await;
            receiver.send_all("unread").await.expect("connected");
            assert_eq!(receiver.read_exact(Vec::with_capacity(3), 3).await.expect("bytes"), b"one");
            drop(receiver.into_std().map(drop).expect_err("a descriptor is kept"));

            let (sender, receiver) = stream_pair(4);
            send(&sender, "one", &[numbered(1)]).await;
            receiver.read_exact(Vec::with_capacity(3), 3).await.expect("bytes");
            receiver.send_all("unread").await.expect("connected");
            let (socket, _) = sender.into_std().expect("nothing is on its way");
            drop(socket); // with a byte unread: a reset
            let (chunk, fds) = receiver.recv_fds().await.expect("first").expect("a descriptor");
            assert_eq!((chunk.len(), numbers(fds)), (0, vec![1]));
            let error = receiver.recv_fds().await.map(drop).expect_err("the peer has reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);

            let (sender, receiver) = stream_pair(4);
            let before = descriptors().len();
            send(&sender, "one", &[numbered(1)]).await;
            receiver.read_exact(Vec::with_capacity(3), 3).await.expect("bytes");
            let (read, write) = receiver.into_split();
            drop(read);
            turn().await;
            assert_eq!(descriptors().len(), before);
            drop(write);
        });
    });
}

/// CL14: an option that makes the kernel tell the sender takes no room of the descriptors.
#[test]
fn ux5_options_of_the_socket_take_no_room() {
    alone("passing::ux5_options_of_the_socket_take_no_room", || {
        everywhere(async || {
            const SO_PASSPIDFD: libc::c_int = 76;
            for option in [libc::SO_PASSCRED, SO_PASSPIDFD] {
                let (sender, receiver) = stream_pair(1);
                let on: libc::c_int = 1;
                let (value, len) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
                let fd = receiver.as_fd().as_raw_fd();
                // SAFETY: an int is passed, with its length.
                if unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, len) } != 0 {
                    println!("skipped: this kernel has no option {option}");
                    continue;
                }
                let before = descriptors().len();
                for number in 0..5 {
                    send(&sender, "one", &[numbered(number)]).await;
                    let (chunk, fds) = receiver.recv_fds().await.expect("room").expect("no end");
                    assert_eq!((&chunk[..], numbers(fds)), (&b"one"[..], vec![number]));
                }
                assert_eq!(descriptors().len(), before);
            }
        });
    });
}

/// UX1, AC10: a listener that was shut down for receiving alone does not spin either.
#[test]
fn ux1_ac10_shut_down_for_receiving() {
    everywhere(async || {
        for late in [false, true] {
            let (listener, _addr) = crate::listening();
            let fd = listener.as_fd().as_raw_fd();
            // SAFETY: takes no pointers.
            let shut_down = move || assert_eq!(unsafe { libc::shutdown(fd, libc::SHUT_RD) }, 0);
            let waiting = late.then(|| start(listener.accept()));
            let waiting = match waiting {
                Some(accept) => Some(accept.await),
                None => None,
            };
            turn().await;
            shut_down();
            if let Some(accept) = waiting {
                accept.await.map(drop).expect_err("it accepts no more");
            }
            for _ in 0..3 {
                let error = listener.accept().await.map(drop).expect_err("as well");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
        }
    });
}

/// UX1, RX10: a peer that has shut down receiving ends with an end, though a send was cut short by it.
#[test]
fn ux1_rx10_a_peer_that_receives_no_more_ends_cleanly() {
    everywhere(async || {
        let (stream, mut peer): (UnixStream, _) = crate::family::narrow_pair().await;
        let send = start(stream.send_all(pattern(1 << 20))).await;
        turn().await;
        peer.shutdown(Shutdown::Read).expect("connected");
        let mut bytes = vec![0; 64 * 1024];
        while peer.read(&mut bytes).is_ok_and(|len| len > 0) {}
        let error = timeout(5000 * MS, send).await.expect("an answer").expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        peer.write_all(b"bye").expect("the other direction is open");
        drop(peer);
        sleep(MS).await;
        assert_eq!(stream.read_exact(Vec::with_capacity(3), 3).await.expect("bytes"), b"bye");
        assert!(stream.recv().await.expect("no reset").is_none());
    });
}
