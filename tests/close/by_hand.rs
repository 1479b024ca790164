//! CL14, CL15: the socket is used by other means than ours, beside us or before.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use tamam::net::{TcpKeepalive, TcpStream};
use tamam::time::timeout;

use crate::{blocking_read_to_end, common};

/// CL14. 1 a receive is in flight; 2 options are set and names asked for, a dup is made and
/// closed; 3 the receive goes on.
#[test]
fn cl14_options_while_a_receive_is_armed() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let recv = common::start(stream.recv()).await;
        common::turn().await;
        stream.set_nodelay(true).expect("a TCP socket");
        assert!(stream.nodelay().expect("a TCP socket"));
        let keepalive = TcpKeepalive { idle: Some(Duration::from_secs(60)), ..Default::default() };
        stream.set_keepalive(keepalive).expect("a TCP socket");
        let endless = TcpKeepalive { idle: Some(Duration::MAX), ..Default::default() };
        let error = stream.set_keepalive(endless).expect_err("the kernel takes 32767 s");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(stream.local_addr().expect("named"), peer.peer_addr().expect("connected"));
        assert_eq!(stream.peer_addr().expect("named"), peer.local_addr().expect("bound"));
        drop(stream.as_fd().try_clone_to_owned().expect("dup"));
        let dup = StdStream::from(stream.as_fd().try_clone_to_owned().expect("dup"));
        dup.set_nonblocking(false).expect("shared with the stream");
        drop(dup);
        peer.write_all(b"x").expect("connected");
        assert_eq!(&recv.await.expect("no reset").expect("not the end")[..], b"x");
    });
}

/// CL14. Somebody reads by hand from the same socket while receives are armed: each byte goes to
/// one of them, nothing crashes.
#[test]
fn cl14_reading_by_hand_steals() {
    common::everywhere(|| async {
        const LEN: usize = 200_000;
        let (stream, mut peer) = common::pair().await;
        let mut by_hand = StdStream::from(stream.as_fd().try_clone_to_owned().expect("dup"));
        let writer = thread::spawn(move || {
            for piece in common::pattern(LEN).chunks(500) {
                peer.write_all(piece).expect("connected");
                thread::yield_now();
            }
        });
        let (mut stolen, mut received) = (Vec::new(), Vec::new());
        let mut buf = [0; 400];
        loop {
            match by_hand.read(&mut buf) {
                Ok(0) => break,
                Ok(len) => stolen.extend_from_slice(&buf[..len]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            match timeout(Duration::from_micros(100), stream.recv()).await {
                Ok(Ok(Some(chunk))) => received.extend_from_slice(&chunk),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("no reset: {error}"),
                Err(_elapsed) => {}
            }
        }
        common::join(writer).await;
        by_hand.set_nonblocking(false).expect("a socket");
        by_hand.read_to_end(&mut stolen).expect("no reset");
        while let Some(chunk) = stream.recv().await.expect("no reset") {
            received.extend_from_slice(&chunk);
        }
        println!("{} stolen, {} received", stolen.len(), received.len());
        assert_eq!(stolen.len() + received.len(), LEN);
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        assert_eq!(sum(&stolen) + sum(&received), sum(&common::pattern(LEN)));
    });
}

/// CL15. A socket of std in either mode, with bytes, an end or a reset that came before.
#[test]
fn cl15_from_std_sees_what_was_there() {
    common::everywhere(|| async {
        for nonblocking in [false, true] {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let connect = || {
                let std =
                    StdStream::connect(listener.local_addr().expect("bound")).expect("connects");
                std.set_nonblocking(nonblocking).expect("a socket");
                (std, listener.accept().expect("it is there").0)
            };
            let (std, mut peer) = connect();
            peer.write_all(b"early").expect("connected");
            peer.shutdown(Shutdown::Write).expect("connected");
            common::wait_for(&std, libc::POLLIN);
            let dup = std.try_clone().expect("dup");
            let stream = TcpStream::from_std(std).expect("inside a runtime");
            // SAFETY: takes no pointers.
            let flags = unsafe { libc::fcntl(dup.as_raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_NONBLOCK, 0, "it is non-blocking, and so are its dups");
            let bytes = stream.read_exact(Vec::with_capacity(5), 5).await.expect("it is there");
            assert_eq!(bytes, b"early");
            assert!(stream.recv().await.expect("the end").is_none());
            stream.send_all("late").await.expect("the other direction is open");
            drop((stream, dup));
            common::turn().await;
            assert_eq!(blocking_read_to_end(peer).expect("no reset"), b"late");

            let (std, peer) = connect();
            common::reset(peer);
            common::wait_for(&std, libc::POLLHUP);
            let stream = TcpStream::from_std(std).expect("inside a runtime");
            for _ in 0..2 {
                let error = stream.recv().await.expect_err("a reset");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}
