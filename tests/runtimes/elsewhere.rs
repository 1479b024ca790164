//! CX4, CX5: objects in another runtime than theirs, and after theirs.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::task::Poll;

use tamam::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::{at_once, narrow_pair, pair, poll_once, start, turn};
use crate::{Objects, assert_refused, common, each, full_backlog, poll_outside};

/// How each call that has to wait or to submit answers in its first poll, where it must not be
/// `Pending` and must not succeed. Buffers must come back.
async fn refusals(stream: &TcpStream, listener: &TcpListener, socket: TcpSocket) -> Vec<io::Error> {
    let (error, buf) = at_once(stream.read(Vec::with_capacity(10))).await.unwrap_err().into_parts();
    let mut errors = vec![error];
    assert_eq!((buf.len(), buf.capacity()), (0, 10));
    let (error, buf) =
        at_once(stream.read(Vec::with_capacity(100_000))).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!((buf.len(), buf.capacity()), (0, 100_000));
    let read = at_once(stream.read_exact(Vec::with_capacity(10), 10)).await;
    let (error, buf) = read.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!((buf.len(), buf.capacity()), (0, 10));
    let (error, buf) = at_once(stream.send("send")).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, "send");
    let (error, buf) = at_once(stream.send_all("send")).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, "send");
    let (error, buf) = at_once(stream.sendv(vec!["a", "b"])).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, ["a", "b"]);
    errors.push(at_once(stream.recv()).await.map(drop).unwrap_err());
    errors.push(at_once(listener.accept()).await.map(drop).unwrap_err());
    let addr = listener.local_addr().expect("bound");
    errors.push(at_once(socket.connect(addr)).await.map(drop).unwrap_err());
    errors
}

/// In another runtime, under another executor, under none.
#[test]
fn cx4_elsewhere_is_an_error_and_home_still_works() {
    each::mixed(|runtime| {
        let (home, other) = (runtime(), runtime());
        let tokio = tokio::runtime::Builder::new_current_thread().build().expect("tokio works");
        let objects = Objects::of(&home);
        let calls = || refusals(&objects.stream, &objects.listener, Objects::socket(&home));
        assert_refused(
            &other.block_on(calls()),
            "polled outside its runtime: another one turns here",
        );
        assert_refused(&tokio.block_on(calls()), "polled outside its runtime: none turns");
        let Poll::Ready(errors) = poll_outside(&mut Box::pin(calls())) else { panic!("at once") };
        assert_refused(&errors, "polled outside its runtime");
        // To enter a runtime is not to turn it: nobody would submit what is asked for.
        let guard = home.enter();
        let Poll::Ready(errors) = poll_outside(&mut Box::pin(calls())) else { panic!("at once") };
        assert_refused(&errors, "polled outside its runtime: none turns");
        drop(guard);
        objects.work_at(&home);
    });
}

#[test]
fn cx4_what_is_parked_is_served_anywhere() {
    each::mixed(|runtime| {
        let other = runtime();
        for is_gone in [false, true] {
            let home = runtime();
            let mut objects = Objects::of(&home);
            let client = home.block_on(async {
                drop(start(objects.stream.recv()).await);
                drop(start(objects.listener.accept()).await);
                turn().await;
                objects.peer.write_all(b"parked").expect("connected");
                let client = StdStream::connect(objects.addr).expect("it listens");
                while tamam::metrics().parked < 2 {
                    turn().await;
                }
                client
            });
            let home = (!is_gone).then_some(home);
            let Objects { stream, listener, .. } = &objects;
            other.block_on(async {
                let read = at_once(stream.read(Vec::with_capacity(2))).await.expect("parked bytes");
                assert_eq!(read, (2, b"pa".to_vec()));
                let chunk =
                    at_once(stream.recv()).await.expect("parked bytes").expect("not the end");
                assert_eq!(&chunk[..], b"rked");
                let (accepted, peer) =
                    at_once(listener.accept()).await.expect("a parked connection");
                assert_eq!(peer, client.local_addr().expect("connected"));
                let reason = if is_gone { "runtime is gone" } else { "polled outside its runtime" };
                assert_refused(&[at_once(stream.recv()).await.map(drop).unwrap_err()], reason);
                // It belongs to the runtime of its listener.
                assert_refused(&[at_once(accepted.recv()).await.map(drop).unwrap_err()], reason);
            });
            drop(home);
        }
    });
}

/// 1 futures wait at home, their ops are in flight; 2 each is polled in another runtime; 3 it gives
/// an error at once and its buffer back; 4 at home no byte and no connection is missing.
#[test]
fn cx4_waiting_at_home_then_polled_elsewhere() {
    each::mixed(|runtime| {
        let (home, other) = (runtime(), runtime());
        let is_refused = |error: io::Error| assert_refused(&[error], "polled outside its runtime");
        for room in [10, 100_000] {
            let mut objects = Objects::of(&home);
            let mut read = Box::pin(objects.stream.read(Vec::with_capacity(room)));
            assert!(home.block_on(poll_once(&mut read)).is_pending());
            let (error, buf) = other.block_on(at_once(read)).unwrap_err().into_parts();
            is_refused(error);
            assert_eq!((buf.len(), buf.capacity()), (0, room));
            let mut exact = Box::pin(objects.stream.read_exact(Vec::with_capacity(room), room));
            objects.peer.write_all(b"some").expect("connected");
            home.block_on(async {
                let completed = tamam::metrics().completions;
                assert!(poll_once(&mut exact).await.is_pending());
                while tamam::metrics().completions == completed {
                    turn().await;
                }
                assert!(poll_once(&mut exact).await.is_pending());
            });
            let (error, _buf) = other.block_on(at_once(exact)).unwrap_err().into_parts();
            is_refused(error);
            let mut recv = Box::pin(
                home.block_on(objects.stream.recv())
                    .map(|chunk| {
                        assert_eq!(&chunk.expect("not the end")[..], b"some", "room {room}");
                        objects.stream.recv()
                    })
                    .expect("connected"),
            );
            assert!(home.block_on(poll_once(&mut recv)).is_pending());
            is_refused(other.block_on(at_once(recv)).map(drop).unwrap_err());
            let mut accept = Box::pin(objects.listener.accept());
            assert!(home.block_on(poll_once(&mut accept)).is_pending());
            is_refused(other.block_on(at_once(accept)).map(drop).unwrap_err());
            objects.work_at(&home);
        }
        let (full, _clients) = home.block_on(async { full_backlog() });
        let mut connect = Box::pin(TcpStream::connect(full.local_addr().expect("bound")));
        assert!(home.block_on(poll_once(&mut connect)).is_pending());
        is_refused(other.block_on(at_once(connect)).map(drop).unwrap_err());
        home.block_on(turn());
        assert_eq!(home.metrics().ops, 0, "the attempt has ended");
    });
}

/// The same for sends: what the kernel has seen a part of goes out whole, in its turn; what was
/// still queued is as if it had never been.
#[test]
fn cx4_sends_waiting_at_home_then_polled_elsewhere() {
    each::mixed(|runtime| {
        const LEN: usize = 8 << 20;
        let (home, other) = (runtime(), runtime());
        let (stream, peer) = home.block_on(narrow_pair());
        let in_flight = common::pattern(LEN);
        let mut first = Box::pin(stream.send_all(in_flight.clone()));
        let mut second = Box::pin(stream.send_all(vec![1; 1000]));
        let mut third = Box::pin(stream.send_all(vec![2; 1000]));
        home.block_on(async {
            assert!(poll_once(&mut first).await.is_pending());
            assert!(poll_once(&mut second).await.is_pending());
            assert!(poll_once(&mut third).await.is_pending());
            turn().await;
        });
        let (error, buf) = other.block_on(at_once(second)).unwrap_err().into_parts();
        assert_refused(&[error], "polled outside its runtime");
        assert_eq!(buf, [1; 1000]);
        let (error, buf) = other.block_on(at_once(first)).unwrap_err().into_parts();
        assert_refused(&[error], "polled outside its runtime");
        common::assert_same(&buf, &in_flight);
        drop(buf); // what goes out from now on is a copy
        let reading = common::read_to_end(peer);
        let received = home.block_on(async {
            third.await.expect("connected");
            stream.shutdown().await.expect("connected");
            common::join(reading).await.expect("no reset")
        });
        common::assert_same(&received[..LEN], &in_flight);
        assert_eq!(&received[LEN..], [2; 1000]);
    });
}

/// Every method, outside of all runtimes and in another one: an error, never a panic or a hang.
#[test]
fn cx5_after_the_runtime() {
    each::mixed(|runtime| {
        let other = runtime();
        for is_inside in [false, true] {
            let home = runtime();
            let Objects { stream, mut peer, listener, addr } = Objects::of(&home);
            let (to_split, mut split_peer) = home.block_on(pair());
            let (to_convert, mut convert_peer) = home.block_on(pair());
            let sockets = [(); 4].map(|()| Objects::socket(&home));
            drop(home);
            let [connecting, binding, bound, dropped] = sockets;
            let use_all = async {
                assert_refused(
                    &refusals(&stream, &listener, connecting).await,
                    "its tamam runtime is gone",
                );
                assert_eq!(
                    stream.local_addr().expect("a socket"),
                    peer.peer_addr().expect("connected")
                );
                assert_eq!(
                    stream.peer_addr().expect("a socket"),
                    peer.local_addr().expect("connected")
                );
                stream.set_nodelay(true).expect("a socket");
                assert!(stream.nodelay().expect("a socket"));
                assert_eq!(listener.local_addr().expect("a socket"), addr);
                assert!(!format!("{stream:?} {listener:?}").is_empty());
                let (read, write) = to_split.into_split();
                let recv = at_once(read.recv()).await.map(drop).unwrap_err();
                let send = at_once(write.send_all("x")).await.unwrap_err().into_parts().0;
                assert_refused(&[recv, send], "its tamam runtime is gone");
                drop(read.reunite(write).expect("one pair"));
                let (mut converted, unread) = to_convert.into_std().expect("nothing is unsent");
                assert!(unread.is_empty());
                converted.write_all(b"converted").expect("connected");
                let (_listener, parked) = listener.into_std().expect("it has no need of the ring");
                assert!(parked.is_empty());
                let listener = bound.bind("127.0.0.1:0");
                drop(listener.expect("bind(2) has no need of the ring"));
                drop(binding.listen("127.0.0.1:0"));
                drop(dropped);
                // Nothing is queued, so this does not wait: shutdown(2), and the peer has the end.
                let _ = at_once(stream.shutdown()).await;
                drop(stream);
            };
            match is_inside {
                true => other.block_on(use_all),
                false => {
                    let mut use_all = Box::pin(use_all);
                    assert!(poll_outside(&mut use_all).is_ready());
                }
            }
            for peer in [&mut peer, &mut split_peer] {
                assert_eq!(peer.read(&mut [0]).expect("closed"), 0);
            }
            let mut text = String::new();
            convert_peer.read_to_string(&mut text).expect("closed");
            assert_eq!(text, "converted");
        }
    });
}

/// The runtime goes while futures wait: each gives an error, and its buffer back.
#[test]
fn cx5_futures_that_waited_when_the_runtime_went() {
    each::mixed(|runtime| {
        let home = runtime();
        let Objects { stream, peer: _peer, listener, .. } = Objects::of(&home);
        let (stalled, _stalled_peer) = home.block_on(narrow_pair());
        let mut read = Box::pin(stream.read(Vec::with_capacity(100_000)));
        let mut recv = Box::pin(stream.recv());
        let mut accept = Box::pin(listener.accept());
        let mut in_flight = Box::pin(stalled.send_all(vec![1; 8 << 20]));
        let mut queued = Box::pin(stalled.send_all(vec![2; 1000]));
        let mut shutdown = Box::pin(stalled.shutdown());
        home.block_on(async {
            assert!(poll_once(&mut read).await.is_pending());
            assert!(poll_once(&mut recv).await.is_pending());
            assert!(poll_once(&mut accept).await.is_pending());
            assert!(poll_once(&mut in_flight).await.is_pending());
            assert!(poll_once(&mut queued).await.is_pending());
            assert!(poll_once(&mut shutdown).await.is_pending());
            turn().await;
        });
        drop(home);
        runtime().block_on(async {
            let (error, buf) = at_once(read).await.unwrap_err().into_parts();
            assert_eq!(buf.capacity(), 100_000);
            let mut errors = vec![error];
            errors.push(at_once(recv).await.map(drop).unwrap_err());
            errors.push(at_once(accept).await.map(drop).unwrap_err());
            let (error, buf) = at_once(in_flight).await.unwrap_err().into_parts();
            errors.push(error);
            assert_eq!(buf.len(), 8 << 20);
            let (error, buf) = at_once(queued).await.unwrap_err().into_parts();
            errors.push(error);
            assert_eq!(buf.len(), 1000);
            assert_refused(&errors, "its tamam runtime is gone");
            drop(at_once(shutdown).await); // Ok or not: it does not hang
        });
    });
}
