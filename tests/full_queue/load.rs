//! Traffic over queues of a few entries: no completion is lost, no byte is out of order.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use tamam::net::{TcpListener, TcpStream};
use tamam::time::sleep;

use crate::common::{assert_same, pattern};
use crate::{common, rings};

/// Of the ring only: a completion queue of four entries under load: 1 a hundred peers write and read all the time;
/// 2 a hundred tasks echo, timers fire and other threads wake tasks; 3 the queue overflows, and
/// nothing is lost.
#[test]
fn a_completion_queue_of_four_under_load() {
    for (entries, buffers) in [(4, 256), (1, 256), (1, 1)] {
        let ring = common::ring_only(rings(entries, 4).buffer_count(buffers));
        let Some(ring) = ring else { return };
        common::with(ring, || async {
            const PEERS: usize = 100;
            const LEN: usize = 4000;
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            let addr = listener.local_addr().expect("bound");
            let peers = thread::spawn(move || {
                let peers: Vec<_> =
                    (0..PEERS).map(|_| StdStream::connect(addr).expect("connects")).collect();
                for piece in pattern(LEN).chunks(200) {
                    for mut peer in &peers {
                        peer.write_all(piece).expect("it is read");
                    }
                }
                for mut peer in peers {
                    let mut back = vec![0; LEN];
                    peer.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
                    peer.read_exact(&mut back).expect("it comes back");
                    assert_same(&back, &pattern(LEN));
                }
            });
            let mut tasks = Vec::new();
            for _ in 0..PEERS {
                let (stream, _) = listener.accept().await.expect("a connection");
                tasks.push(tamam::spawn(async move {
                    let mut len = 0;
                    while let Some(chunk) = stream.recv().await.expect("no error") {
                        len += chunk.len();
                        stream.send_all(chunk).await.expect("the peer reads");
                        if len % 10 == 0 {
                            sleep(Duration::from_micros(100)).await;
                        }
                    }
                    len
                }));
            }
            common::join(peers).await;
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), LEN);
            }
            assert!(tamam::metrics().overflows > 0, "the test tests nothing");
        });
    }
}

/// A mebibyte there and back between two streams of one runtime, sent and received at once; less of
/// it in small pieces.
#[test]
fn a_mebibyte_is_echoed_on_the_smallest_rings() {
    let sizes = [(1 << 20, 1 << 20, 64 * 1024), (1 << 18, 10_000, 100), (1 << 18, 333, 7000)];
    for (len, send_len, read_len) in sizes {
        common::everywhere(|| async move {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).await;
            let client = Rc::new(client.expect("connects"));
            let (server, _) = listener.accept().await.expect("it is there");
            let echo = tamam::spawn(async move {
                while let Some(chunk) = server.recv().await.expect("no error") {
                    server.send_all(chunk).await.expect("the client reads");
                }
                server.shutdown().await.expect("nothing failed");
            });
            let sending = tamam::spawn({
                let client = client.clone();
                async move {
                    for piece in pattern(len).chunks(send_len) {
                        client.send_all(piece.to_vec()).await.expect("the server reads");
                    }
                    client.shutdown().await.expect("nothing failed");
                }
            });
            let mut got = Vec::with_capacity(len);
            loop {
                let (received, bytes) =
                    client.read(Vec::with_capacity(read_len)).await.expect("no error");
                if received == 0 {
                    break;
                }
                got.extend(bytes);
            }
            assert_same(&got, &pattern(len));
            echo.await.expect("no panic");
            sending.await.expect("no panic");
        });
    }
}
