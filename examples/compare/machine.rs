//! The machine: its CPUs, its limits, its name.

use std::io;

/// A CPU for the servers and one for the client, of those that this process may use: on two cores
/// if there are two.
pub fn choose_cpus() -> Option<(usize, usize)> {
    // SAFETY: cpu_set_t is a bit mask, for which all zeroes are valid: the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size is that of `set`, which lives through the call.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return None;
    }
    // SAFETY: the range below keeps every index under CPU_SETSIZE.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let all: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(allowed).collect();
    let (&server, others) = all.split_first()?;
    let core = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(path).ok()
    };
    let own = core(server);
    let elsewhere = others.iter().find(|&&cpu| own.is_none() || core(cpu) != own);
    Some((server, *elsewhere.or(others.first())?))
}

/// Binds the calling thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a bit mask, for which all zeroes are valid: the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `choose_cpus` took `cpu` from such a set, so it is under CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the size is that of `set`, which lives through the call.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many descriptors a row takes: both ends of each connection, for two servers, and some more.
pub fn descriptors_needed(connections: usize) -> u64 {
    4 * connections as u64 + 64
}

/// How many descriptors this process may have, after raising that limit as far as it may.
pub fn descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` and `most` live through the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            let most = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &most) == 0 {
                return most.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// The release of the kernel, and the name of the CPU.
pub fn machine() -> (String, String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name").or(line.strip_prefix("CPU part")))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    (read("/proc/sys/kernel/osrelease").trim().to_owned(), model.to_owned())
}
