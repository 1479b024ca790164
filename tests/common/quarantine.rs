//! A global allocator that sees what the kernel writes to freed memory, which sanitizers do not.
//!
//! A freed block is filled with a pattern and kept aside; [`changed`] looks whether the pattern is
//! still whole. The oldest blocks are really freed when too many are kept.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, Ordering};

const PATTERN: u8 = 0xA5;
/// How much is kept aside before the oldest goes.
const KEPT_MAX: usize = 192 << 20;
/// Smaller blocks are no I/O buffers.
const BLOCK_MIN: usize = 16;

pub struct Quarantine;

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

struct Kept {
    blocks: VecDeque<(usize, Layout)>,
    bytes: usize,
    changed: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { blocks: VecDeque::new(), bytes: 0, changed: 0 });

/// Bytes that the program holds: allocated and not freed, whatever is kept aside.
static LIVE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// The quarantine itself allocates: that goes straight through.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: allocation is the system's; freeing is too, only later, and the block is not touched by
// anyone else in between.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        if layout.size() < BLOCK_MIN || BUSY.replace(true) {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: the block is `size` bytes long, and nobody uses it any more.
        unsafe { block.write_bytes(PATTERN, layout.size()) };
        let mut kept = KEPT.lock().expect("nothing panics while it is locked");
        kept.blocks.push_back((block as usize, layout));
        kept.bytes += layout.size();
        while kept.bytes > KEPT_MAX {
            let (oldest, layout) = kept.blocks.pop_front().expect("bytes are kept in blocks");
            kept.bytes -= layout.size();
            kept.changed += usize::from(!is_whole(oldest, layout));
            // SAFETY: the block was handed to `dealloc` with this layout, and is freed once.
            unsafe { System.dealloc(oldest as *mut u8, layout) };
        }
        drop(kept);
        BUSY.set(false);
    }
}

/// The quarantine's own blocks are not the program's.
fn count(bytes: isize) {
    if !BUSY.get() {
        LIVE.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How many bytes the program holds on the heap now, all threads together.
pub fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

fn is_whole(block: usize, layout: Layout) -> bool {
    // SAFETY: the block is kept: not freed, `size` bytes long, written by `dealloc`.
    let bytes = unsafe { std::slice::from_raw_parts(block as *const u8, layout.size()) };
    bytes.chunks(4096).all(|bytes| bytes == &[PATTERN; 4096][..bytes.len()])
}

/// How many freed blocks were written to since the process started.
pub fn changed() -> usize {
    BUSY.set(true);
    let kept = KEPT.lock().expect("nothing panics while it is locked");
    let changed = kept.blocks.iter().filter(|(block, layout)| !is_whole(*block, *layout)).count();
    let changed = changed + kept.changed;
    drop(kept);
    BUSY.set(false);
    changed
}
