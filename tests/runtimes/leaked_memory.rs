//! CX12: memory in flight when the engine fails is leaked: the kernel may still use it.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tamam::Runtime;
use tamam::buf::{IoBuf, IoBufMut};

use crate::common::broken::replace;
use crate::common::{Watchdog, both, child, narrow_pair, turn};
use crate::engine_failures::breakable;
use crate::words;

/// A buffer that counts how many of its kind were freed.
struct Counted {
    bytes: Vec<u8>,
    freed: Rc<Cell<usize>>,
}

// SAFETY: the bytes are those of the vector, which moves none of them when it moves, and nothing
// changes it but `set_len`.
unsafe impl IoBuf for Counted {
    fn ptr(&self) -> *const u8 {
        self.bytes.ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Counted {
    fn ptr_mut(&mut self) -> *mut u8 {
        self.bytes.ptr_mut()
    }

    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: the caller's promise is that of the vector.
        unsafe { IoBufMut::set_len(&mut self.bytes, len) };
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.freed.set(self.freed.get() + 1);
    }
}

/// Polls a future until it panics, since its buffer cannot be given back.
async fn panics<T: 'static>(
    future: impl Future<Output = T> + 'static,
    break_engine: impl FnOnce(),
) {
    let task = tamam::spawn(future);
    turn().await;
    break_engine();
    let panic = task.await.map(drop).expect_err("the buffer is lost").into_panic();
    assert!(words(&*panic).contains("failed with this buffer"));
}

/// A buffer to receive into, one to send, and two that go out together: none is freed when the
/// engine fails, nor when the stream goes, nor at the end of the runtime.
#[test]
fn cx12_memory_in_flight_is_never_freed() {
    const NAME: &str = "leaked_memory::cx12_memory_in_flight_is_never_freed";
    let Some(part) = child::part(NAME) else {
        for (engine, _) in both(&Runtime::builder()) {
            for what in ["read", "send", "sendv"] {
                child::play(NAME, &format!("{engine} {what}"), &[]);
            }
        }
        return;
    };
    let (engine, what) = part.split_once(' ').expect("an engine, and what is in flight");
    let _watchdog = Watchdog::start();
    let (runtime, fd, _registered, _) = breakable(engine);
    let freed = Rc::new(Cell::new(0));
    let buffer = |bytes| Counted { bytes, freed: freed.clone() };
    let stalling = || buffer(vec![7; 8 << 20]);
    runtime.block_on(async {
        let (stream, _peer) = narrow_pair().await;
        match what {
            "read" => {
                let buf = buffer(Vec::with_capacity(100_000));
                panics(async move { drop(stream.read(buf).await) }, || replace(fd)).await;
            }
            "send" => {
                let buf = stalling();
                panics(async move { drop(stream.send_all(buf).await) }, || replace(fd)).await;
            }
            _ => {
                let bufs = vec![stalling(), stalling()];
                panics(async move { drop(stream.sendv(bufs).await) }, || replace(fd)).await;
            }
        }
    });
    assert_eq!(freed.get(), 0, "the engine has failed");
    drop(runtime);
    assert_eq!(freed.get(), 0, "the runtime is gone");
}
