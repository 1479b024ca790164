//! CL19, CL20: `close` waits in the open; a linger time never makes a drop wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::timeout;

use crate::common::{self, assert_same, everywhere, pair, pattern};
use crate::{STALLING, blocking_read_to_end};

/// CL19. The peer reads slowly, and sends what nobody reads: it has everything when `close` is over.
#[test]
fn cl19_close_waits_for_the_peer() {
    everywhere(|| async {
        let (stream, mut peer) = common::narrow_pair().await;
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            peer.write_all(&[7; 1000]).expect("somebody receives");
            peer.read_to_end(&mut bytes).map(|_| bytes)
        });
        drop(common::begin(stream.send_all(pattern(STALLING))).await);
        stream.close().await.expect("the peer finishes");
        assert_same(&common::join(reader).await.expect("no reset"), &pattern(STALLING));
    });
}

/// CL19. The peer does not finish, and the future is dropped; or the peer resets.
#[test]
fn cl19_close_that_has_no_end() {
    everywhere(|| async {
        let (stream, peer) = pair().await;
        stream.send_all("all of it").await.expect("connected");
        let waited = timeout(Duration::from_millis(5), stream.close()).await;
        waited.expect_err("the peer is silent");
        common::turn().await;
        assert_eq!(blocking_read_to_end(peer).expect("an end"), b"all of it");

        let (stream, peer) = pair().await;
        let closing = tamam::spawn(stream.close());
        common::turn().await;
        common::reset(peer);
        let error = closing.await.expect("no panic").expect_err("a reset");
        assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::NotConnected),
            "{error}"
        );
    });
}

fn set_linger(socket: &impl AsFd, seconds: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    // SAFETY: `linger` is a valid option value of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "SO_LINGER can be set");
}

/// A std pair; nobody reads at the other end.
fn std_pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let stream = StdStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    (stream, listener.accept().expect("it is there").0)
}

/// What is sent stays in the kernel, since nobody reads. A time of 30 s would show.
#[test]
fn cl20_a_linger_time_above_zero_never_blocks() {
    everywhere(|| async {
        let (stream, peer) = std_pair();
        set_linger(&stream, 30);
        let stream = TcpStream::from_std(stream).expect("a socket");
        assert_eq!(stream.linger().expect("a socket"), None, "it is switched off");
        let sent = timeout(Duration::from_millis(5), stream.send_all(vec![1; 32 << 20])).await;
        sent.expect_err("nobody reads");
        let before = Instant::now();
        drop(stream);
        common::turn().await;
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        drop(peer);

        let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        set_linger(&listener, 30);
        let listener = TcpListener::try_from(listener).expect("a socket");
        let _client = StdStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (accepted, _) = listener.accept().await.expect("it is there");
        assert_eq!(accepted.linger().expect("a socket"), None, "nor do its connections");

        let second = Some(Duration::from_secs(1));
        for time in [second, Some(Duration::from_nanos(1)), Some(Duration::MAX)] {
            let error = accepted.set_linger(time).expect_err("it would block");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().starts_with("setsockopt SO_LINGER"), "{error}");
            let socket = TcpSocket::new_v4().expect("a socket").linger(time);
            let error = socket.bind("127.0.0.1:0").map(drop).expect_err("it would block");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    });
}

/// A time of zero, set where a connection comes from, resets it as `set_zero_linger` does: no end
/// comes before the reset when halves are dropped (CL6). `None` takes it back.
#[test]
fn cl20_zero_is_inherited_and_taken_back() {
    everywhere(|| async {
        let zero = Some(Duration::ZERO);
        let socket = || TcpSocket::new_v4().expect("a socket").linger(zero);
        let listener = socket().listen("127.0.0.1:0").expect("loopback has ports");
        let foreign = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        set_linger(&foreign, 0);
        let foreign = TcpListener::from_std(foreign).expect("a socket");
        for takes_back in [false, true] {
            for way in 0..4 {
                let (stream, peer) = match way {
                    0 => {
                        let (stream, peer) = std_pair();
                        set_linger(&stream, 0);
                        (TcpStream::try_from(stream).expect("a socket"), peer)
                    }
                    1 => {
                        let listener = StdListener::bind("127.0.0.1:0").expect("a port");
                        let addr = listener.local_addr().expect("bound");
                        let stream = socket().connect(addr).await.expect("it listens");
                        (stream, listener.accept().expect("it is there").0)
                    }
                    _ => {
                        let listener = if way == 2 { &listener } else { &foreign };
                        let addr = listener.local_addr().expect("bound");
                        let peer = StdStream::connect(addr).expect("it listens");
                        (listener.accept().await.expect("it is there").0, peer)
                    }
                };
                assert_eq!(stream.linger().expect("a socket"), zero, "way {way}");
                if takes_back {
                    stream.set_linger(None).expect("a socket");
                }
                drop(stream.into_split());
                common::turn().await;
                match blocking_read_to_end(peer) {
                    Ok(bytes) => assert!(takes_back && bytes.is_empty(), "way {way}: an end"),
                    Err(error) => {
                        assert!(!takes_back, "way {way}: {error}");
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "way {way}");
                    }
                }
            }
        }
    });
}
