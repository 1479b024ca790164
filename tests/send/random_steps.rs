//! Random steps, against a list of what has to arrive.

use std::io::Read;
use std::thread;
use std::time::Duration;

use tamam::time::timeout;

use crate::common;
use crate::family;

/// TX1 to TX11 together: 400 random steps a seed, on tiny and usual sizes. Sends of all sizes are
/// started, awaited, dropped before or after their turn, forgotten; the peer reads in bursts. What
/// arrives is a sequence of whole messages in the order of first polls: each message that was
/// awaited or forgotten, none that was dropped unseen by the kernel more than once or in part.
#[test]
fn tx_random_steps_arrive_whole_and_in_order() {
    for seed in [1u64, 2, 3, fresh_seed()] {
        common::everywhere(|| async move {
            println!("seed {seed}");
            let mut random = common::Random(seed);
            let (stream, mut peer) = family::narrow_pair().await;
            let reader = thread::spawn(move || {
                let (mut bytes, mut buf) = (Vec::new(), vec![0; 50_000]);
                let mut random = common::Random(seed | 1 << 32);
                loop {
                    let len = 1 + random.below(buf.len() as u64 - 1) as usize;
                    match peer.read(&mut buf[..len]).expect("no reset") {
                        0 => return bytes,
                        len => bytes.extend_from_slice(&buf[..len]),
                    }
                    if random.below(20) == 0 {
                        thread::sleep(Duration::from_micros(random.below(2000)));
                    }
                }
            });
            // A message: its number, its length, then bytes that follow from the number.
            let message = |number: u32, len: usize| {
                let mut message = vec![number as u8; 8 + len];
                message[..4].copy_from_slice(&number.to_le_bytes());
                message[4..8].copy_from_slice(&(len as u32).to_le_bytes());
                message
            };
            let mut must_arrive = Vec::new();
            let mut under_way = Vec::new();
            for number in 0..400 {
                let len = match random.below(4) {
                    0 => 0,
                    1 => random.below(100),
                    2 => random.below(5_000),
                    _ => random.below(60_000),
                };
                let send = stream.send_all(message(number, len as usize));
                // Epoll may be through with it at once.
                under_way.push((number, common::begin(send).await));
                while under_way.len() > random.below(12) as usize {
                    let (number, send) =
                        under_way.remove(random.below(under_way.len() as u64) as usize);
                    match random.below(5) {
                        // Dropped after it was over, it has arrived all the same.
                        0 if send.is_over() => must_arrive.push(number),
                        0 => drop(send),
                        1 => {
                            must_arrive.push(number);
                            std::mem::forget(send);
                        }
                        2 => {
                            let pause = Duration::from_micros(random.below(500));
                            if let Ok(sent) = timeout(pause, send).await {
                                sent.expect("no reset");
                                must_arrive.push(number);
                            }
                        }
                        _ => {
                            send.await.expect("no reset");
                            must_arrive.push(number);
                        }
                    }
                }
            }
            drop(under_way);
            stream.shutdown().await.expect("the peer reads");
            let bytes = common::join(reader).await;
            let (mut rest, mut arrived) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                let word = |at: usize| {
                    u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
                };
                let (number, len) = (word(0), word(4) as usize);
                assert!(arrived.last() < Some(&number), "{number} after {:?}", arrived.last());
                assert!(
                    rest[8..8 + len].iter().all(|byte| *byte == number as u8),
                    "{number} is torn"
                );
                arrived.push(number);
                rest = &rest[8 + len..];
            }
            must_arrive.sort_unstable();
            for number in must_arrive {
                assert!(arrived.binary_search(&number).is_ok(), "{number} did not arrive");
            }
        });
    }
}

/// A seed of this run, printed with each use.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64 | 1
}
