//! What the machine says of itself: kernel, limits, sysctls, seccomp, and the container if there is
//! one.
//!
//! Only questions are asked here, most of them without a descriptor, so that they can be asked by a
//! process that has none left. What follows from the answers is in `advice.rs`. Read next:
//! `trial.rs`.

use std::env;
use std::fs;
use std::path::Path;

use crate::driver::{errnos_of_empty_calls, io_uring_disabled, is_denial};
use crate::sys::{self, Limited};

use super::Limit;

/// The answers of the machine. `None` means that the question could not be asked.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) release: String,
    pub(super) descriptors: Option<Limit>,
    pub(super) locked_memory: Option<Limit>,
    /// `kernel.io_uring_disabled`.
    pub(super) disabled: Option<u32>,
    /// `kernel.io_uring_group`.
    pub(super) group: Option<i64>,
    pub(super) is_filtered: Option<bool>,
    /// The three system calls of io_uring, each with the errno that a call with bad arguments gave.
    pub(super) calls: [(&'static str, i32); 3],
    pub(super) container: Option<String>,
}

impl Facts {
    /// Asks all questions.
    pub(super) fn gather() -> Facts {
        let group = fs::read_to_string("/proc/sys/kernel/io_uring_group").ok();
        Facts {
            release: sys::kernel_release(),
            descriptors: Limit::of(Limited::Descriptors),
            locked_memory: Limit::of(Limited::LockedMemory),
            disabled: io_uring_disabled(),
            group: group.and_then(|text| text.trim().parse().ok()),
            is_filtered: sys::has_seccomp_filter(),
            calls: errnos_of_empty_calls(),
            container: container(),
        }
    }

    /// The system calls that are denied, with their errno.
    pub(super) fn denied_calls(&self) -> impl Iterator<Item = (&'static str, i32)> + '_ {
        self.calls.iter().copied().filter(|(_, errno)| is_denial(*errno))
    }
}

/// The container this process runs in. `None`: there is none, or it cannot be told. Needs no
/// descriptor.
fn container() -> Option<String> {
    let is_there = |path| Path::new(path).exists();
    match () {
        // A virtual machine that was built from a container image still has the image's files, but
        // no namespaces of its own.
        () if !has_namespaces() => None,
        // The kubelet sets it in every container.
        () if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Some("kubernetes".to_owned()),
        () if is_there("/.dockerenv") => Some("docker".to_owned()),
        () if is_there("/run/.containerenv") => Some("podman".to_owned()),
        // systemd-nspawn, LXC and others set it (https://systemd.io/CONTAINER_INTERFACE).
        () => env::var("container").ok().filter(|value| !value.is_empty()),
    }
}

/// Whether this process is outside one of the machine's initial namespaces: of process ids, of host
/// names, or of System V IPC.
fn has_namespaces() -> bool {
    // The kernel fixes the numbers of the initial namespaces (include/linux/proc_ns.h).
    let initial = [("pid", 0xeffffffc_u32), ("uts", 0xeffffffe), ("ipc", 0xefffffff)];
    initial.iter().any(|(name, number)| {
        let link = fs::read_link(format!("/proc/self/ns/{name}"));
        link.is_ok_and(|link| link != Path::new(&format!("{name}:[{number}]")))
    })
}
