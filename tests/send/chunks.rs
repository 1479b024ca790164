//! TX14: chunks that are sent come back to the pool.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use tamam::Runtime;
use tamam::buf::IoBuf;

use crate::common::{Gone, assert_same, read_some};
use crate::family;
use crate::{STALLING, common, stalled_pair};

/// TX14. 1 echo tasks of many streams send chunks back to peers that do not read; 2 the chunks
/// stay lent while they are in flight, also when the tasks are gone; 3 another stream is served
/// all the while; 4 the streams are dropped: every buffer is the pool's again.
#[test]
fn tx14_chunks_come_back_to_the_pool() {
    const STREAMS: usize = 6;
    let small = Runtime::builder().buffer_size(64 * 1024).buffer_count(8);
    for builder in [small.clone(), small.entries(1).completion_entries(2)] {
        common::with_both(builder, || async {
            let streams = Rc::new(RefCell::new(Vec::new()));
            let (mut peers, mut tasks) = (Vec::new(), Vec::new());
            for _ in 0..STREAMS {
                let (stream, peer) = stalled_pair().await;
                let stream = Rc::new(stream);
                streams.borrow_mut().push(stream.clone());
                peers.push(peer);
                tasks.push(tamam::spawn(async move {
                    while let Some(chunk) = stream.recv().await.expect("no reset") {
                        stream.send_all(chunk).await.expect("the peer is there");
                    }
                }));
            }
            for peer in &mut peers {
                peer.write_all(&common::pattern(1000)).expect("the socket has room");
            }
            while tamam::metrics().buffers_lent < 6 {
                tamam::yield_now().await;
            }
            let (echo, mut client) = family::pair().await;
            for round in 0..50u8 {
                client.write_all(&[round; 100]).expect("connected");
                let mut len = 0;
                while len < 100 {
                    let chunk = echo.recv().await.expect("no reset").expect("not the end");
                    len += chunk.len();
                    echo.send_all(chunk).await.expect("connected");
                }
                let mut answer = [0; 100];
                client.read_exact(&mut answer).expect("the echo");
                assert_eq!(answer, [round; 100]);
            }
            assert!(tamam::metrics().buffers_lent >= 6, "queued chunks are lent");
            // Half of the echoes reach the kernel before their tasks go.
            for peer in peers.iter_mut().take(STREAMS / 2) {
                peer.set_nonblocking(false).expect("a socket");
                let reading = peer.try_clone().expect("dup");
                let (_, bytes) = read_some(reading, STALLING).await;
                assert_same(&bytes, &common::pattern(STALLING));
            }
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                assert!(task.await.expect_err("it never ends by itself").is_cancelled());
            }
            streams.borrow_mut().clear();
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 0, "{:?}", tamam::metrics());
        });
    }
}

/// TX14. A chunk in flight is lent until its terminal completion, whatever became of its future;
/// then it is the pool's again.
#[test]
fn tx14_a_chunk_in_flight_stays_lent() {
    for gone in Gone::BOTH {
        let large = Runtime::builder().buffer_size(STALLING).buffer_count(4);
        common::with_both(large, || async move {
            let (stream, peer) = family::narrow_pair().await;
            let (source, mut feeder) = family::pair().await;
            let feeding = thread::spawn(move || feeder.write_all(&common::pattern(STALLING)));
            // One chunk that is large enough to stall: parts of one buffer would do as well, but
            // the kernel fills one for each arrival.
            let mut chunk = source.recv().await.expect("no reset").expect("not the end");
            while chunk.len() < 64 * 1024 {
                chunk = source.recv().await.expect("no reset").expect("not the end");
            }
            drop(common::start(stream.send_all(vec![0; STALLING])).await);
            let expected = [vec![0; STALLING], chunk.to_vec()].concat();
            let send = common::start(stream.send_all(chunk)).await;
            drop(source);
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 1, "the queued one");
            let (peer, first) = read_some(peer, STALLING + 1).await;
            assert_same(&first, &expected[..STALLING + 1]);
            gone.leave(send);
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 1, "the one in flight");
            let (_peer, rest) = read_some(peer, expected.len() - STALLING - 1).await;
            assert_same(&rest, &expected[STALLING + 1..]);
            let _ = common::join(feeding).await;
            if gone == Gone::Forgotten {
                // Its entry waits for a future that never comes, until the stream goes.
                drop(stream);
            }
            tamam::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(tamam::metrics().buffers_lent, 0);
        });
    }
}
