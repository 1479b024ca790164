//! From windows to a verdict: medians, confidence intervals, percentiles.

use std::fmt;
use std::time::Duration;

use crate::measure::{Measured, Window};

/// An interval that is wider than this share of its median, of a row or of a server against its twin, says
/// nothing.
const TOO_WIDE: f64 = 0.15;

/// A histogram of times, exact to 2 %: 64 steps for each power of two.
pub struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

impl Latencies {
    const STEPS: u32 = 64;

    pub fn new() -> Latencies {
        Latencies { counts: Vec::new(), total: 0 }
    }

    pub fn add(&mut self, time: Duration) {
        let ns = time.as_nanos() as u64;
        // `ns >> shift` keeps the highest seven bits, which are the step; `shift` is the power of
        // two.
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(Self::STEPS.ilog2() + 1);
        let at = (shift * Self::STEPS) as usize + (ns >> shift) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
    }

    /// The time that `percent` of all times do not exceed.
    pub fn percentile(&self, percent: u64) -> Duration {
        let mut left = (self.total * percent).div_ceil(100);
        for (at, &count) in self.counts.iter().enumerate() {
            if left <= u64::from(count) {
                let shift = (at as u32 / Self::STEPS).saturating_sub(1);
                let step = at as u64 - u64::from(shift * Self::STEPS);
                return Duration::from_nanos((step << shift) + (1 << shift) / 2);
            }
            left -= u64::from(count);
        }
        Duration::ZERO
    }
}

/// The median of ratios, and the interval in which the true one lies with 95 % confidence.
#[derive(Clone, Copy)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The ratio of CPU time for each request, from neighbouring windows of two servers.
    pub fn of(left: &Measured, right: &Measured) -> Interval {
        Interval::of_ratios(ratios(left, right, Window::cpu_ns))
    }

    /// The interval is that of the sign test. Whatever the distribution, each ratio lies above or
    /// below the true median with equal chance, like the toss of a coin. At each end the interval
    /// leaves out as many ratios as would all fall on one side with a chance of 2.5 % at most.
    fn of_ratios(mut ratios: Vec<f64>) -> Interval {
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        let mut chance = 0.5f64.powi(count as i32);
        let (mut tail, mut left_out) = (chance, 0);
        while tail <= 0.025 {
            left_out += 1;
            chance *= (count + 1 - left_out) as f64 / left_out as f64;
            tail += chance;
        }
        assert!(left_out > 0, "a row has six pairs of windows or more");
        Interval {
            median: median(&ratios),
            low: ratios[left_out - 1],
            high: ratios[count - left_out],
        }
    }

    fn width(self) -> f64 {
        self.high - self.low
    }

    /// Whether it is so wide that it says nothing.
    pub fn is_too_wide(self) -> bool {
        self.width() > TOO_WIDE * self.median
    }

    /// How far from 1 it reaches.
    pub fn reach(self) -> f64 {
        (self.high - 1.0).max(1.0 - self.low).max(0.0)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} (95 %: {:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// The ratio of a figure in each pair of neighbouring windows.
pub fn ratios(left: &Measured, right: &Measured, figure: fn(&Window) -> f64) -> Vec<f64> {
    let pairs = left.windows.iter().zip(&right.windows);
    pairs.map(|(left, right)| figure(left) / figure(right)).collect()
}

/// The middle of sorted figures.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// What a ratio of CPU time says about the two engines.
pub enum Verdict {
    RingCheaper(f64),
    EpollCheaper(f64),
    NoDifference,
    TooNoisy,
}

impl Verdict {
    /// `ratio` is the CPU time of ring to epoll, `noise` that of a server to its twin.
    pub fn of(ratio: Interval, noise: Interval) -> Verdict {
        if noise.is_too_wide() || ratio.is_too_wide() {
            return Verdict::TooNoisy;
        }
        let within_noise = (ratio.median - 1.0).abs() <= noise.reach();
        if within_noise || (ratio.low <= 1.0 && ratio.high >= 1.0) {
            return Verdict::NoDifference;
        }
        match ratio.median < 1.0 {
            true => Verdict::RingCheaper(1.0 - ratio.median),
            false => Verdict::EpollCheaper(1.0 - 1.0 / ratio.median),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::RingCheaper(share) => write!(f, "ring {:.0} % cheaper", share * 100.0),
            Verdict::EpollCheaper(share) => write!(f, "epoll {:.0} % cheaper", share * 100.0),
            Verdict::NoDifference => f.write_str("no difference"),
            Verdict::TooNoisy => f.write_str("too noisy to tell"),
        }
    }
}
