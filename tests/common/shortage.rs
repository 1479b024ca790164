//! A process without descriptors, or without memory for a thread.

use std::fs::File;

/// Lowers the limit of descriptors. An accept of the ring keeps to the limit of when it began.
pub fn lower_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = 64;
    // SAFETY: `limit` is a valid limit.
    let lowered = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!((known, lowered), (0, 0), "anyone may lower their limit");
}

/// Lowers the limit of descriptors and takes all that are left; each file dropped frees one.
pub fn take_all_descriptors() -> Vec<File> {
    lower_descriptor_limit();
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                return taken;
            }
        }
    }
}

/// Leaves so much address space, and no more: a thread's stack finds no room.
pub fn limit_memory(left: Option<u64>) {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages: u64 = text.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    let limit = left.map_or(libc::RLIM_INFINITY, |left| pages * 4096 + left);
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}
