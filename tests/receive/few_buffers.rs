//! RX15: one-shot and multishot receives over a pool that is often empty.

use std::io::ErrorKind;
use std::thread;

use tamam::Runtime;

use crate::common::{assert_same, pattern, start, turn};
use crate::family::{self, pair};
use crate::{EOF, WAYS, assert_ended, common, receive, until_end, write};

/// RX15. Queues of a few entries and pools of a few bytes: shots end for want of buffers and
/// completions overflow, and nothing of it is visible.
#[test]
fn rx15_shots_that_end_with_data_are_invisible() {
    let tiny = Runtime::builder().entries(1).completion_entries(4).buffer_size(16);
    for buffers in [1, 2, 4, 8] {
        common::with_both(tiny.clone().buffer_count(buffers), || async {
            for way in WAYS {
                for armed in [false, true] {
                    for end in [EOF, ErrorKind::ConnectionReset] {
                        let (stream, peer) = pair().await;
                        if armed {
                            drop(start(receive(&stream, way)).await);
                            turn().await;
                        }
                        write(&peer, &pattern(200));
                        match end {
                            EOF => drop(peer),
                            _ => family::reset(peer),
                        }
                        let got = until_end(&stream, way).await;
                        assert_eq!(got, (pattern(200), end), "{way:?}, armed: {armed}");
                        assert_ended(&stream, end).await;
                    }
                }
            }
        });
    }
}

/// RX15. As above with 64 streams at once and chunks that are kept: buffers run out for certain.
#[test]
fn rx15_many_streams_over_few_buffers() {
    let tiny = Runtime::builder().entries(1).completion_entries(4).buffer_size(16).buffer_count(4);
    common::with_both(tiny, || async {
        const LEN: usize = 2000;
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..64 {
            let (stream, peer) = pair().await;
            peers.push(peer);
            tasks.push(tamam::spawn(async move {
                let mut kept = Vec::new();
                while let Some(chunk) = stream.recv().await.expect("no error") {
                    kept.push(chunk);
                }
                kept.iter().flat_map(|chunk| chunk.to_vec()).collect::<Vec<u8>>()
            }));
        }
        let writer = thread::spawn(move || {
            for piece in pattern(LEN).chunks(50) {
                for peer in &peers {
                    write(peer, piece);
                }
            }
        });
        for task in tasks {
            assert_same(&task.await.expect("no panic"), &pattern(LEN));
        }
        common::join(writer).await;
        let metrics = tamam::metrics();
        // Epoll has no queue that could overflow, and sees an empty pool before it asks.
        let is_tested = metrics.pool_empty > 0 && metrics.overflows > 0;
        assert!(is_tested || common::on_epoll(), "the test tests nothing: {metrics:?}");
    });
}
