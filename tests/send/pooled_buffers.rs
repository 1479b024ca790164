//! A buffer that wakes a task when it is dropped, as those of a pool do.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::buf::IoBuf;
use tamam::time::{sleep, timeout};

use crate::common::{self, with_both};
use crate::family;

/// Whether the buffer is back in its pool, and the task that waits for that.
#[derive(Clone, Default)]
struct Place {
    is_back: Rc<Cell<bool>>,
    waiting: Rc<RefCell<Option<Waker>>>,
}

struct Pooled {
    bytes: Vec<u8>,
    place: Place,
}

// SAFETY: the vector's bytes, which move with it and change never.
#[allow(unsafe_code)]
unsafe impl IoBuf for Pooled {
    fn ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.place.is_back.set(true);
        self.place.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// 1 a send stalls, its future and its stream are dropped; 2 the buffer is freed before the thread
/// sleeps, and its destructor wakes a task; 3 the thread does not sleep before that task was polled.
#[test]
fn tx3_a_buffer_that_comes_back_before_the_sleep_wakes_its_task() {
    with_both(Runtime::builder(), || async {
        let (stream, _peer) = family::narrow_pair().await;
        let place = Place::default();
        let buf = Pooled { bytes: common::pattern(4 << 20), place: place.clone() };
        drop(common::start(stream.send_all(buf)).await);
        sleep(Duration::from_millis(5)).await;
        drop(stream);
        let is_back = poll_fn(|cx| match place.is_back.get() {
            true => Poll::Ready(()),
            false => {
                place.waiting.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        });
        // Without the wake, only the timer ends the sleep, and both are ready then.
        let begin = Instant::now();
        timeout(Duration::from_secs(20), is_back).await.expect("it is back");
        assert!(begin.elapsed() < Duration::from_secs(10), "the timer has ended the sleep");
    });
}
