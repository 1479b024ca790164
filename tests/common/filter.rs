//! Seccomp filters: system calls that fail, as on a kernel or in a container that does not have them.

use std::io;

/// One step of a filter; `jt` and `jf` say how many steps to leave out when a comparison holds, or not.
pub fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Puts a filter on this thread, for ever, and on what it starts. Allocates nothing: it may run between
/// fork and exec.
pub fn install(steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (none, one): (libc::c_ulong, libc::c_ulong) = (0, 1);
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program and its steps are readable, and copied by the kernel.
    let is_done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) == 0
    };
    if is_done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As [`install`]. False, with a word, if that cannot be.
pub fn install_or_skip(steps: &mut [libc::sock_filter]) -> bool {
    let installed = install(steps);
    if let Err(error) = &installed {
        println!("skipped: needs a seccomp filter: {error}");
    }
    installed.is_ok()
}
