//! EP3: no flag is believed: the call itself tells.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use tamam::Runtime;
use tamam::net::TcpStream;
use tamam::time::timeout;

use crate::common::{assert_same, begin, everywhere, pattern, start, turn, with_both};
use crate::{STALLING, common};

/// 1 a receive waits, and perhaps a send that has stalled; 2 the peer resets, perhaps after last
/// bytes; 3 those come first, then each direction hears of the reset.
#[test]
fn ep3_a_reset_is_told_by_each_call() {
    everywhere(|| async {
        for (stalled, last) in
            [false, true].into_iter().flat_map(|stalled| [(stalled, ""), (stalled, "last")])
        {
            let (stream, mut peer) = common::narrow_pair().await;
            let recv = start(stream.recv()).await;
            let mut send = None;
            if stalled {
                send = Some(start(stream.send_all(pattern(STALLING))).await);
            }
            turn().await;
            peer.write_all(last.as_bytes()).expect("connected");
            if !last.is_empty() {
                common::wait_for(&stream, libc::POLLIN);
            }
            common::reset(peer);
            common::wait_for(&stream, libc::POLLHUP);
            let (mut bytes, mut answer) = (Vec::new(), recv.await);
            while let Ok(Some(chunk)) = &answer {
                bytes.extend_from_slice(chunk);
                answer = stream.recv().await;
            }
            assert_eq!(bytes, last.as_bytes());
            let error = answer.expect_err("a reset is no end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "stalled: {stalled}");
            if let Some(send) = send {
                let error = send.await.expect_err("it cannot be sent").into_parts().0;
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "last: {last:?}");
            }
            stream.send_all("x").await.expect_err("the connection is gone");
            let error = stream.recv().await.expect_err("it stays so");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// 1 a receive waits, and perhaps a send that has stalled; 2 the peer finishes, which ends the
/// receive and nothing else.
#[test]
fn ep3_an_end_is_of_one_direction() {
    everywhere(|| async {
        for len in [0, STALLING] {
            let (stream, peer) = common::narrow_pair().await;
            let recv = start(stream.recv()).await;
            let send = begin(stream.send_all(pattern(len))).await;
            turn().await;
            peer.shutdown(Shutdown::Write).expect("connected");
            assert!(recv.await.expect("no reset").is_none());
            let (peer, bytes) = common::read_some(peer, len).await;
            assert_same(&bytes, &pattern(len));
            send.await.expect("the peer reads");
            stream.send_all("and more").await.expect("this direction is open");
            stream.shutdown().await.expect("and can be ended");
            assert_eq!(common::arriving(peer).await, b"and more");
        }
    });
}

/// A connect that waits hears from connect(2) how it went: the listener gets room, or goes.
#[test]
fn ep3_a_connect_that_waited() {
    with_both(Runtime::builder(), || async {
        for goes in [false, true] {
            let (full, filling) = common::full_listener();
            let addr = full.local_addr().expect("bound");
            let connect = start(TcpStream::connect(addr)).await;
            turn().await;
            let mut served = Vec::new();
            let mut listening = Some(full);
            match &listening {
                Some(full) if !goes => {
                    full.set_nonblocking(true).expect("a socket");
                    while let Ok(accepted) = full.accept() {
                        served.push(accepted);
                    }
                    assert!(!served.is_empty() && filling.len() >= served.len());
                }
                _ => listening = None,
            }
            // The kernel tries again after a second, then after two.
            let connected = timeout(Duration::from_secs(60), connect).await.expect("an answer");
            match connected {
                Ok(stream) => {
                    assert!(!goes);
                    assert_eq!(stream.peer_addr().expect("connected"), addr);
                    let listener = listening.expect("it is kept");
                    listener.set_nonblocking(false).expect("a socket");
                    let (mut peer, _) = listener.accept().expect("it connected");
                    stream.send_all("x").await.expect("connected");
                    assert_eq!(peer.read(&mut [0; 2]).expect("connected"), 1);
                }
                Err(error) => {
                    assert!(goes, "{error}");
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                }
            }
        }
    });
}
