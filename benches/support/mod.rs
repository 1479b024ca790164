//! What the benches share: the machine, the cores, criterion's settings. Read next: `paired.rs`.
//!
//! - `client.rs`: the load, plain sockets on one thread, every byte verified;
//! - `tls_client.rs`: the same over TLS;
//! - `servers.rs`: the echo servers under test, one thread each;
//! - `rows.rs`: benches without a server, both runtimes in one table;
//! - `paired.rs`: interleaved windows and their ratios, which is what a claim of speed is made of.
#![allow(dead_code)] // every bench uses its own part

pub mod client;
pub mod paired;
pub mod rows;
pub mod servers;
pub mod tls_client;

use std::sync::OnceLock;
use std::time::Duration;

use criterion::Criterion;

/// Which core a thread belongs on. The side under test and the side that drives it never share one.
#[derive(Clone, Copy)]
pub enum Side {
    Tested,
    Driver,
}

/// The `main` of a bench: criterion, or interleaved rounds when `PAIRED` is set.
pub fn run(side: Side, bench: impl FnOnce(&mut Criterion), compare: impl FnOnce(usize)) {
    begin(side);
    match paired::rounds() {
        Some(rounds) => compare(rounds),
        None => {
            let mut criterion = criterion();
            bench(&mut criterion);
            criterion.final_summary();
        }
    }
}

/// Prints the machine once and pins the calling thread: every bench begins with this.
pub fn begin(side: Side) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name").or(line.strip_prefix("CPU part")))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let placement = match cores() {
        Some((tested, driver)) => format!("tested on core {tested}, driven from core {driver}"),
        None => "one core only: nothing is pinned, latencies include both sides".to_owned(),
    };
    println!(
        "kernel {}, {model}, {} cores, {placement}",
        read("/proc/sys/kernel/osrelease").trim(),
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
    );
    pin(side);
}

/// Binds the calling thread to the core of `side`; does nothing where there is only one.
pub fn pin(side: Side) {
    let Some((tested, driver)) = cores() else { return };
    let core = match side {
        Side::Tested => tested,
        Side::Driver => driver,
    };
    // SAFETY: cpu_set_t is a plain bit mask, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` came out of such a set, so it is in range.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid mask of the size given.
    let status = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(status, 0, "a core of this process's own mask can be chosen");
}

/// Whether the two sides have a core each, so that a thread may spin without stealing from the other.
pub fn two_cores() -> bool {
    cores().is_some()
}

/// The first two cores this process may use, found before anything is pinned.
fn cores() -> Option<(usize, usize)> {
    static CORES: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    *CORES.get_or_init(|| {
        // SAFETY: cpu_set_t is a plain bit mask, for which all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` has room for the size given.
        let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
        if status != 0 {
            return None;
        }
        // SAFETY: every index is below CPU_SETSIZE.
        let allowed = |core: &usize| unsafe { libc::CPU_ISSET(*core, &set) };
        let mut cores = (0..libc::CPU_SETSIZE as usize).filter(allowed);
        Some((cores.next()?, cores.next()?))
    })
}

/// The baseline of every bench.
pub fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an epoll instance for the baseline")
}

/// Short by default, so that all benches together stay under a few minutes; criterion's own
/// arguments (`-- --measurement-time 5`) override it.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args()
}
