//! What a server's thread uses: CPU time, context switches, system calls.

use std::ops::{AddAssign, Sub};

use tamam::Metrics;

/// What a server has used since its thread began.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of the thread, exact.
    pub cpu_ns: u64,
    /// The kernel's estimate of how that time divides: it samples at timer ticks, and scales the
    /// samples to the exact sum. Only the proportion over many windows means anything.
    pub user_us: u64,
    pub system_us: u64,
    /// Context switches of the thread, voluntary and involuntary.
    pub switches: u64,
    /// System calls of its engine.
    pub calls: u64,
}

impl Usage {
    pub fn of_this_thread(metrics: Metrics) -> Usage {
        // SAFETY: rusage consists of integers, for which all zeroes are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` lives through the call. (RUSAGE_THREAD: Linux 2.6.26.)
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
        let mut cpu = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `cpu` lives through the call. Every Linux has this clock.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut cpu) };
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        Usage {
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
            calls: metrics.system_calls,
        }
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            user_us: self.user_us - before.user_us,
            system_us: self.system_us - before.system_us,
            switches: self.switches - before.switches,
            calls: self.calls - before.calls,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.cpu_ns += more.cpu_ns;
        self.user_us += more.user_us;
        self.system_us += more.system_us;
        self.switches += more.switches;
        self.calls += more.calls;
    }
}
