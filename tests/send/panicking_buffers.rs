//! H7: a buffer that panics when it is dropped holds nobody up.

use tamam::buf::IoBuf;

use crate::common::assert_same;
use crate::family;
use crate::{STALLING, after_stall, common};

/// A buffer that panics when it is dropped.
struct Panics(Vec<u8>);

// SAFETY: the vector's bytes, which move with it and change never.
#[allow(unsafe_code)]
unsafe impl IoBuf for Panics {
    fn ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("a buffer that panics when it is dropped");
    }
}

/// H7. 1 a send stalls, and its future is dropped; others are queued behind it; 2 it is out, and its
/// buffer panics in its drop; 3 the others go out.
#[test]
fn h7_a_buffer_that_panics_when_dropped_holds_nobody_up() {
    common::everywhere(|| async {
        let (stream, peer) = family::narrow_pair().await;
        drop(common::start(stream.send_all(Panics(common::pattern(STALLING)))).await);
        drop(common::start(stream.send_all("dropped before its turn")).await);
        let second = common::start(stream.send_all("second")).await;
        let third = common::start(stream.sendv(vec!["th", "ird"])).await;
        let bytes = common::read_to_end(peer);
        second.await.expect("connected");
        third.await.expect("connected");
        drop(stream);
        let bytes = common::join(bytes).await.expect("no reset");
        assert_same(&bytes, &after_stall(&[b"second", b"third"]));
    });
}
