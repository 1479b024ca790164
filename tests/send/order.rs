//! TX1, TX2: buffers go out whole, and in the order of first polls.

use std::io::Read;
use std::rc::Rc;
use std::thread;

use tamam::Runtime;

use crate::common::{Gone, arriving, assert_same};
use crate::family;
use crate::{after_stall, common, stalled_pair};

/// TX1. 1 two tasks send records at once; 2 the peer reads slowly; 3 each record is whole, those
/// of one task are in order, and they alternate as first polls did.
async fn records_stay_whole(records: u32) {
    const LEN: usize = 100 * 1024;
    let (stream, mut peer) = family::narrow_pair().await;
    let stream = Rc::new(stream);
    let reader = thread::spawn(move || {
        let (mut next, mut record) = ([0u32; 2], vec![0; LEN]);
        for _ in 0..2 * records {
            peer.read_exact(&mut record).expect("records come");
            let (task, number) =
                (record[0], u32::from_le_bytes([record[1], record[2], record[3], record[4]]));
            assert!(record[5..].iter().all(|byte| *byte == task), "a record is torn");
            assert_eq!(number, next[usize::from(task)], "the order of one task");
            next[usize::from(task)] += 1;
        }
        assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
        next
    });
    let tasks: Vec<_> = (0..2u8)
        .map(|task| {
            let stream = stream.clone();
            tamam::spawn(async move {
                let mut record = vec![task; LEN];
                for number in 0..records {
                    record[1..5].copy_from_slice(&number.to_le_bytes());
                    record = stream.send_all(record).await.expect("the peer reads");
                }
            })
        })
        .collect();
    drop(stream);
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(common::join(reader).await, [records; 2]);
}

#[test]
fn tx1_two_tasks_do_not_interleave() {
    common::with_both(Runtime::builder(), || records_stay_whole(1000));
    common::everywhere(|| records_stay_whole(30));
}

/// TX1. 300 messages queued behind a stalled one, of all three kinds, more than one batch holds:
/// they arrive in the order of first polls, not in that in which the futures were made or awaited.
#[test]
fn tx1_the_order_is_that_of_first_polls() {
    common::everywhere(|| async {
        let (stream, peer) = stalled_pair().await;
        let message = |number: u32| number.to_le_bytes().repeat(number as usize % 7 + 1);
        let mut futures: Vec<_> = (0..300u32)
            .map(|number| {
                let (stream, message) = (&stream, message(number));
                Box::pin(async move {
                    match number % 3 {
                        0 => drop(stream.send_all(message).await.expect("the peer reads")),
                        1 => assert_eq!(
                            stream.send(message.clone()).await.expect("sent").0,
                            message.len()
                        ),
                        _ => {
                            let pieces: Vec<Vec<u8>> =
                                message.chunks(3).map(<[u8]>::to_vec).collect();
                            assert_eq!(stream.sendv(pieces).await.expect("sent").0, message.len());
                        }
                    }
                })
            })
            .collect();
        for future in futures.iter_mut().rev() {
            assert!(common::poll_once(future).await.is_pending());
        }
        let reader = common::read_to_end(peer);
        for future in futures {
            future.await;
        }
        drop(stream);
        let expected: Vec<_> = (0..300).rev().map(message).collect();
        let expected: Vec<_> = expected.iter().map(|message| &message[..]).collect();
        assert_same(&common::join(reader).await.expect("no reset"), &after_stall(&expected));
    });
}

/// More pieces than one sendmsg(2) takes, empty ones among them.
#[test]
fn tx1_a_vector_of_any_number_of_pieces_goes_out_whole() {
    common::everywhere(|| async {
        let (stream, peer) = family::pair().await;
        let pieces: Vec<Vec<u8>> = (0..3000).map(|n| common::pattern(n % 5)).collect();
        let whole = pieces.concat();
        let reader = common::read_to_end(peer);
        let (sent, back) = stream.sendv(pieces.clone()).await.expect("sent");
        assert_eq!((sent, back), (whole.len(), pieces));
        drop(stream);
        assert_same(&common::join(reader).await.expect("no reset"), &whole);
    });
}

/// TX2. 1 a send is stalled; 2 `first`, `second` and `third` are queued behind it; 3 the future of
/// `second` goes; 4 the peer reads: dropped, nothing of it was sent; forgotten, it comes in turn.
#[test]
fn tx2_dropped_while_queued_is_not_sent_forgotten_is() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, peer) = stalled_pair().await;
            let first = common::start(stream.send_all("first")).await;
            let second = common::start(stream.send_all("second")).await;
            let third = common::start(stream.send_all("third")).await;
            gone.leave(second);
            let reader = common::read_to_end(peer);
            first.await.expect("sent");
            third.await.expect("sent");
            drop(stream);
            let expected: &[&[u8]] = match gone {
                Gone::Dropped => &[b"first", b"third"],
                Gone::Forgotten => &[b"first", b"second", b"third"],
            };
            assert_same(&common::join(reader).await.expect("no reset"), &after_stall(expected));
        });
    }
}

/// G1. A future that was never polled sends nothing.
#[test]
fn tx2_never_polled_is_never_sent() {
    common::everywhere(|| async {
        let (stream, peer) = family::pair().await;
        drop(stream.send_all("dropped"));
        std::mem::forget(stream.send("forgotten"));
        drop(stream.shutdown());
        stream.send_all("sent").await.expect("sent");
        drop(stream);
        assert_eq!(arriving(peer).await, b"sent");
    });
}
