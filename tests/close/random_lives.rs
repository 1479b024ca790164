//! Streams that live and end in random ways lose nothing.

use std::io::Write;

use crate::common::{Gone, arriving, assert_same};
use crate::family;
use crate::{Dropping, common};

/// CL1 to CL12 together, for each stream a random life: seeded, under all sizes.
#[test]
fn cl_random_lives() {
    common::everywhere(|| async {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        for seed in [11, seed.expect("after 1970").as_nanos() as u64 | 1] {
            println!("seed {seed}");
            let mut random = common::Random(seed);
            for _ in 0..200 {
                let (stream, mut peer) = family::pair().await;
                let gone = Gone::BOTH[random.below(2) as usize];
                let sent = random.below(2) * random.below(100_000);
                if random.below(2) == 0 {
                    let bytes = vec![1; 1 + random.below(3000) as usize];
                    peer.write_all(&bytes).expect("connected");
                    // A busy machine may deliver them late, even after the drop: then the end is a
                    // reset (CL4).
                    while common::unread(&stream) < bytes.len() {
                        std::thread::yield_now();
                    }
                }
                if random.below(2) == 0 {
                    let mut recv = Box::pin(stream.recv());
                    if common::poll_once(&mut recv).await.is_pending() {
                        gone.leave(recv);
                    }
                }
                if random.below(2) == 0 {
                    common::turn().await;
                }
                if random.below(2) == 0 {
                    let mut read = Box::pin(stream.read(Vec::with_capacity(5000)));
                    if common::poll_once(&mut read).await.is_pending() {
                        gone.leave(read);
                    }
                }
                if sent > 0 {
                    gone.leave(
                        common::begin(stream.send_all(common::pattern(sent as usize))).await,
                    );
                }
                let dropping = Dropping::ALL[random.below(3) as usize];
                let whole = random.below(2) == 0;
                if whole {
                    let reader = common::read_to_end(peer);
                    stream.send_all("end").await.expect("the peer reads");
                    dropping.drop(stream);
                    let expected = [&common::pattern(sent as usize)[..], b"end"].concat();
                    assert_same(&common::join(reader).await.expect("no reset"), &expected);
                } else {
                    dropping.drop(stream);
                    let bytes = arriving(peer).await;
                    assert!(bytes.len() <= sent as usize);
                    assert_same(&bytes, &common::pattern(bytes.len()));
                }
            }
        }
    });
}
