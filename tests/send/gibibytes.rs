//! G10: more bytes than a submission can name.

use std::io::Read;
use std::thread;

use tamam::Runtime;
use tamam::buf::IoBuf;

use crate::common;
use crate::family;

/// `len` zeroes of which only the page that is shared by all is in memory.
struct Zeroes {
    start: *mut libc::c_void,
    len: usize,
}

impl Zeroes {
    fn new(len: usize) -> Zeroes {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "address space is there");
        Zeroes { start, len }
    }
}

// SAFETY: pointer and length are those of a mapping that lives as long as the value.
unsafe impl IoBuf for Zeroes {
    fn ptr(&self) -> *const u8 {
        self.start.cast()
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Zeroes {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping made in `new`, which ends here.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// G10. More than one call transfers (0x7fff_f000 bytes), alone and as the middle of a batch, goes
/// out whole.
#[test]
fn g10_more_than_two_gibibytes() {
    const LEN: usize = (2 << 30) + 100;
    common::with_both(Runtime::builder(), || async {
        let (stream, mut peer) = family::pair().await;
        let reader = thread::spawn(move || {
            let (mut buf, mut len, mut marks) = (vec![0; 4 << 20], 0, Vec::new());
            loop {
                let read = peer.read(&mut buf).expect("no reset");
                if read == 0 {
                    return (len, marks);
                }
                if buf[0] != 0 || buf[read - 1] != 0 || buf[read / 2] != 0 {
                    marks.extend(
                        buf[..read]
                            .iter()
                            .enumerate()
                            .filter(|(_, byte)| **byte != 0)
                            .map(|(at, _)| len + at),
                    );
                }
                len += read;
            }
        });
        let alone = common::start(stream.send_all(Zeroes::new(LEN))).await;
        let before = common::start(stream.send_all("<")).await;
        let middle = common::start(stream.send(Zeroes::new(LEN))).await;
        alone.await.expect("the peer reads");
        before.await.expect("the peer reads");
        assert_eq!(middle.await.expect("the peer reads").0, LEN);
        stream.send_all(">").await.expect("the peer reads");
        stream.shutdown().await.expect("connected");
        let (len, marks) = common::join(reader).await;
        assert_eq!(len, 2 * LEN + 2);
        println!("marks seen at {marks:?}");
    });
}
