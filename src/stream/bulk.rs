//! Detects bulk transfers. A bulk transfer is received into large buffers on the heap.
//!
//! A pooled buffer suits messages. A peer that sends as fast as it can fills one pooled buffer
//! after the other, and each buffer costs a completion. After [`BULK_LEN`] bytes in a row that
//! filled their buffers, the next receive is into one large buffer (SEMANTICS RX20).
//!
//! This file only counts. Read next: `receive.rs`, which arms the receives.

/// How many bytes in a row make a bulk transfer at first. Also the size of the large buffer: one
/// system call and one wake-up bring at most this many bytes.
pub(super) const BULK_LEN: usize = 64 * 1024;

/// Counts received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bulk {
    /// How many bytes in a row have filled their buffers, at most `needed`.
    filled: u32,
    /// How many bytes in a row make a bulk transfer: four times as many after each false alarm.
    needed: u32,
}

impl Bulk {
    pub(super) fn new() -> Bulk {
        Bulk { filled: 0, needed: BULK_LEN as u32 }
    }

    /// Whether the next receive should be into a large buffer.
    #[inline]
    pub(super) fn is_bulk(self) -> bool {
        self.filled >= self.needed
    }

    /// Whether the last receive has filled a pooled buffer, or would have: more is there, likely.
    pub(super) fn has_filled(self) -> bool {
        self.filled > 0
    }

    /// Counts a receive that has brought `len` bytes. They make the row longer if they would have
    /// filled a pooled buffer, of `buffer_len` bytes; otherwise they end the row.
    #[inline]
    pub(super) fn received(&mut self, len: usize, buffer_len: usize) {
        let has_filled = len >= buffer_len && buffer_len < BULK_LEN;
        self.filled = match has_filled {
            true => self.filled.saturating_add(len as u32).min(self.needed),
            false => 0,
        };
    }

    /// A receive into a large buffer has brought `len` bytes. If a pooled buffer would have held
    /// them, this is no bulk transfer but messages that have just the size of a pooled buffer.
    pub(super) fn received_bulk(&mut self, len: usize, buffer_len: usize) {
        if len <= buffer_len {
            self.filled = 0;
            self.needed = self.needed.saturating_mul(4);
        } else {
            self.needed = BULK_LEN as u32;
            self.received(len, buffer_len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Step {
        /// The number of receives, and the bytes of each.
        Pooled(u32, usize),
        Large(usize),
    }
    use Step::{Large, Pooled};

    #[test]
    fn what_makes_a_bulk_transfer_and_what_ends_it() {
        const BUFFER: usize = 4096;
        // What was received, and whether the next receive is to be into a large buffer.
        let table: &[(&[Step], bool)] = &[
            (&[], false),
            (&[Pooled(15, BUFFER)], false),
            (&[Pooled(16, BUFFER)], true),
            // Messages with room to spare are none, however many.
            (&[Pooled(1000, BUFFER - 1)], false),
            // They must come in a row.
            (&[Pooled(15, BUFFER), Pooled(1, 10), Pooled(15, BUFFER)], false),
            // It stays one as long as large buffers bring more than a pooled one holds.
            (&[Pooled(16, BUFFER), Large(60_000), Large(BUFFER + 1)], true),
            // Messages of just the size of a buffer: no, and next time it takes four times as many.
            (&[Pooled(16, BUFFER), Large(BUFFER)], false),
            (&[Pooled(16, BUFFER), Large(BUFFER), Pooled(63, BUFFER)], false),
            (&[Pooled(16, BUFFER), Large(BUFFER), Pooled(64, BUFFER)], true),
            // A real one brings the threshold back down.
            (
                &[Pooled(16, BUFFER), Large(1), Pooled(64, BUFFER), Large(60_000), Pooled(1, 1)],
                false,
            ),
            (
                &[
                    Pooled(16, BUFFER),
                    Large(1),
                    Pooled(64, BUFFER),
                    Large(60_000),
                    Pooled(1, 1),
                    Pooled(16, BUFFER),
                ],
                true,
            ),
        ];
        for (row, (steps, expected)) in table.iter().enumerate() {
            let mut bulk = Bulk::new();
            for step in *steps {
                match *step {
                    Pooled(times, len) => (0..times).for_each(|_| bulk.received(len, BUFFER)),
                    Large(len) => bulk.received_bulk(len, BUFFER),
                }
            }
            assert_eq!(bulk.is_bulk(), *expected, "row {row}: {bulk:?}");
        }
    }

    #[test]
    fn pooled_buffers_as_large_as_a_bulk_buffer_are_as_good() {
        let mut bulk = Bulk::new();
        (0..100).for_each(|_| bulk.received(BULK_LEN, BULK_LEN));
        assert!(!bulk.is_bulk());
    }

    #[test]
    fn nothing_overflows() {
        let mut bulk = Bulk::new();
        for _ in 0..40 {
            bulk.received_bulk(1, 4096);
            (0..1000).for_each(|_| bulk.received(1 << 30, 4096));
        }
        assert!(bulk.is_bulk(), "what no counter can tell apart counts as a bulk transfer");
    }
}
