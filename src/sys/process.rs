//! What this process may do, and the kernel it runs on: for messages of errors and for the doctor.
//!
//! Every question here works without a descriptor, so that a process that has none left can ask.
#![allow(unsafe_code)]

use std::io;
use std::mem;

use super::check;

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid(2) takes no pointers and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The soft limit of locked memory in bytes; 0 if it is not known.
pub(crate) fn memlock_limit() -> u64 {
    limits(Limited::LockedMemory).map_or(0, |(soft, _)| soft)
}

/// What a limit counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limited {
    Descriptors,
    LockedMemory,
}

/// getrlimit(2): the soft and the hard limit; `None` if a seccomp filter denies the call.
pub(crate) fn limits(of: Limited) -> Option<(u64, u64)> {
    let resource = match of {
        Limited::Descriptors => libc::RLIMIT_NOFILE,
        Limited::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::getrlimit(resource, &mut limit) }).ok()?;
    Some((limit.rlim_cur, limit.rlim_max))
}

/// prctl(2), PR_GET_SECCOMP: whether a seccomp filter is active on this thread; `None` if the call
/// is denied.
pub(crate) fn has_seccomp_filter() -> Option<bool> {
    // SAFETY: PR_GET_SECCOMP takes no pointers.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    // EINVAL comes from a kernel that is built without seccomp.
    let is_unknown = mode < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    (!is_unknown).then_some(mode > 0)
}

/// uname(2): the release of the kernel, such as `6.18.44`; `unknown` if the call is denied.
pub(crate) fn kernel_release() -> String {
    // SAFETY: utsname consists of arrays of characters, and all zeroes are valid characters.
    let mut name: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `name` lives through the call.
    if unsafe { libc::uname(&mut name) } == -1 {
        return "unknown".to_owned();
    }
    let text: Vec<u8> = name.release.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}
