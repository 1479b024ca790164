//! EP6: sends that the kernel takes in many pieces.

use std::io::Read;
use std::thread;
use std::time::Duration;

use tamam::Runtime;

use crate::common;
use crate::common::{Random, assert_same, begin, everywhere, pattern, turn, with_both};

/// 40 MiB in one call, as one buffer and as many, against a peer that reads in small pieces with
/// pauses: the answer is 40 MiB, and not what one edge had room for.
#[test]
fn ep6_forty_mebibytes_in_one_send() {
    const LEN: usize = 40 << 20;
    for pieces in [1, 3, 1000] {
        with_both(Runtime::builder(), || async move {
            let (stream, mut peer) = common::pair().await;
            let reader = thread::spawn(move || {
                let (mut bytes, mut buf) = (Vec::with_capacity(LEN), vec![0; 100_000]);
                let mut random = Random(6);
                loop {
                    let len = 1 + random.below(buf.len() as u64) as usize;
                    match peer.read(&mut buf[..len]).expect("no reset") {
                        0 => return bytes,
                        len => bytes.extend_from_slice(&buf[..len]),
                    }
                    if random.below(50) == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let all = pattern(LEN);
            let sent = if pieces == 1 {
                let (sent, back) = stream.send(all).await.expect("the peer reads");
                assert_same(&back, &pattern(LEN));
                sent
            } else {
                let bufs: Vec<_> = all.chunks(LEN / pieces).map(<[u8]>::to_vec).collect();
                let count = bufs.len();
                let (sent, back) = stream.sendv(bufs).await.expect("the peer reads");
                assert_eq!(back.len(), count);
                assert_same(&back.concat(), &all);
                sent
            };
            assert_eq!(sent, LEN, "in {pieces} pieces");
            drop(stream);
            turn().await;
            assert_same(&common::join(reader).await, &pattern(LEN));
        });
    }
}

/// Many sends at once, large and small, through buffers that hold a few kilobytes: each is whole, in
/// the order of the first polls, and each answer is of the whole.
#[test]
fn ep6_sends_behind_a_send_that_stalls() {
    everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        let reader = common::read_to_end(peer);
        let (mut expected, mut sends, mut random) = (Vec::new(), Vec::new(), Random(66));
        for number in 0..200u32 {
            let len = [1, 100, 5_000, 70_000][random.below(4) as usize];
            let buf = vec![number as u8; len];
            expected.extend_from_slice(&buf);
            sends.push((begin(stream.send(buf)).await, len));
        }
        for (send, len) in sends {
            let (sent, buf) = send.await.expect("the peer reads");
            assert_eq!((sent, buf.len()), (len, len));
        }
        drop(stream);
        turn().await;
        assert_same(&common::join(reader).await.expect("no reset"), &expected);
    });
}
