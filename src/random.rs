//! Pseudo-random numbers for unit tests that compare with a naive model.

/// A small generator (xorshift64*): the same seed repeats a run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number, below `bound`. Panics if `bound` is zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}
