//! What works on this machine, what does not and why, and which line of which configuration changes
//! it.
//!
//! [`doctor`] asks the machine (`machine.rs`), starts a runtime on each engine and runs it
//! (`trial.rs`), and puts the answers into a [`Report`]. `advice.rs` finds the lines to change,
//! `display.rs` writes the report as text.
//!
//! The causes of a failure are not found here: `driver/probe.rs` finds them when a ring cannot be
//! set up. No other module depends on this one. Read next: `machine.rs`.

mod advice;
mod display;
mod machine;
mod trial;

use std::io;

use crate::driver::{Backend, Capabilities, Feature, Kernel, SetupError, Support};
use crate::sys::{self, Limited};

use self::advice::advice;
use self::machine::Facts;
use self::trial::Trial;

/// Finds out whether io_uring works here. If it does not: why, what is used instead, what that
/// costs, and what has to be changed where.
///
/// It asks for limits, sysctls and seccomp filters. For each engine it starts a thread with a
/// runtime that talks to itself over loopback. All of that takes a few milliseconds. You may call
/// it inside a runtime; it blocks that runtime until it returns.
///
/// It does not fail: the report says `not known` for what could not be asked. One thing ends the
/// process: a seccomp filter that kills it for io_uring_setup(2), as in [`Runtime::new`].
///
/// `examples/doctor` prints the report. Run it on the machine and as the user of your service.
///
/// [`Runtime::new`]: crate::Runtime::new
///
/// # Examples
/// ```
/// let report = tamam::doctor();
/// if !report.ring_is_usable() {
///     eprintln!("{report}");
/// }
/// ```
pub fn doctor() -> Report {
    let facts = Facts::gather();
    let (ring, epoll) = (Trial::of(Backend::Ring), Trial::of(Backend::Epoll));
    let (choice, mistake) = match (Backend::Auto.or_from_env(), Kernel::from_env()) {
        (Ok(choice), Ok(_)) => (choice, None),
        (Err(error), _) | (_, Err(error)) => (Backend::Auto, Some(error)),
    };
    Report { facts, ring, epoll, choice, mistake }
}

/// What [`doctor`] found. Its `Display` is the whole report, as text for people.
///
/// # Examples
/// ```
/// use tamam::Backend;
///
/// let report = tamam::doctor();
/// let container = report.container().unwrap_or("no container");
/// println!("Linux {}, in {container}", report.kernel_release());
/// match report.backend() {
///     Some(Backend::Ring) => println!("io_uring works"),
///     Some(_) => println!("epoll is used: {:?}", report.cause()),
///     None => println!("no runtime starts here"),
/// }
/// assert!(report.ring_is_usable() || report.epoll_is_usable());
/// ```
#[derive(Debug)]
pub struct Report {
    facts: Facts,
    ring: Trial,
    epoll: Trial,
    /// The engine that `TAMAM_BACKEND` chooses; `Auto` if it is not set.
    choice: Backend,
    /// What is wrong with the environment variables of this crate, if anything.
    mistake: Option<io::Error>,
}

/// A limit of the process, as getrlimit(2) reports it. `None` means unlimited.
///
/// # Examples
/// ```
/// let limit = tamam::doctor().descriptor_limit();
/// if let Some(tamam::Limit { soft: Some(soft), .. }) = limit {
///     println!("at most {soft} connections and files");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// The limit that the kernel enforces.
    pub soft: Option<u64>,
    /// The highest value to which the process may raise `soft`.
    pub hard: Option<u64>,
}

impl Report {
    /// Whether a runtime with [`Backend::Ring`] starts and works here.
    pub fn ring_is_usable(&self) -> bool {
        self.ring.result.is_ok()
    }

    /// Whether a runtime with [`Backend::Epoll`] starts and works here.
    pub fn epoll_is_usable(&self) -> bool {
        self.epoll.result.is_ok()
    }

    /// The engine that a runtime with [`Backend::Auto`] gets here, under the environment variables
    /// of this process; `None` if that runtime does not start.
    pub fn backend(&self) -> Option<Backend> {
        let may = |backend| self.choice == Backend::Auto || self.choice == backend;
        match () {
            () if self.mistake.is_some() => None,
            () if may(Backend::Ring) && self.ring_is_usable() => Some(Backend::Ring),
            () if may(Backend::Epoll) && self.epoll_is_usable() => Some(Backend::Epoll),
            () => None,
        }
    }

    /// What the ring can do on this kernel, or why it does not work.
    ///
    /// # Examples
    /// ```
    /// match tamam::doctor().ring() {
    ///     Ok(capabilities) => println!("{capabilities}"),
    ///     Err(error) => println!("no ring: {error}"),
    /// }
    /// ```
    pub fn ring(&self) -> Result<&Capabilities, &io::Error> {
        self.ring.result.as_ref()
    }

    /// What epoll can do on this kernel, or why it does not work.
    pub fn epoll(&self) -> Result<&Capabilities, &io::Error> {
        self.epoll.result.as_ref()
    }

    /// Why the ring does not work, if the cause is one that this crate knows.
    ///
    /// # Examples
    /// ```
    /// use tamam::SetupError;
    ///
    /// let report = tamam::doctor();
    /// match report.cause() {
    ///     Some(SetupError::Disabled { sysctl }) => println!("forbidden by a sysctl: {sysctl}"),
    ///     Some(cause) => println!("{cause}"),
    ///     None => println!("the ring works, or the cause is not known"),
    /// }
    /// ```
    pub fn cause(&self) -> Option<&SetupError> {
        self.ring.cause()
    }

    /// The system calls of io_uring that are denied here, each with its errno.
    pub fn denied_calls(&self) -> impl Iterator<Item = (&'static str, i32)> + '_ {
        self.facts.denied_calls()
    }

    /// What to change, and where: lines for Docker, Kubernetes, systemd, sysctl and the shell.
    /// Empty if the ring works and the environment variables let a runtime start.
    ///
    /// # Examples
    /// ```
    /// let report = tamam::doctor();
    /// for line in report.advice() {
    ///     println!("{line}");
    /// }
    /// if report.ring_is_usable() && report.backend().is_some() {
    ///     assert!(report.advice().is_empty());
    /// }
    /// ```
    pub fn advice(&self) -> Vec<String> {
        if let Some(error) = &self.mistake {
            return vec![format!("environment: {error}")];
        }
        let mut lines = match &self.ring.result {
            Ok(_) => Vec::new(),
            Err(error) => advice(&self.facts, error),
        };
        // If neither engine works, the two may have different causes.
        if let (Err(_), Err(error)) = (&self.ring.result, &self.epoll.result) {
            for line in advice(&self.facts, error) {
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        if self.backend().is_none() && (self.ring_is_usable() || self.epoll_is_usable()) {
            lines.push("environment: or unset TAMAM_BACKEND, or set it to auto".to_owned());
        }
        lines
    }

    /// The kernel features that the engine used here lacks or emulates. Each says what is lost, or
    /// what the emulation costs.
    ///
    /// # Examples
    /// ```
    /// let report = tamam::doctor();
    /// for feature in report.degraded() {
    ///     println!("{} ({}): {}", feature.name, feature.support, feature.note);
    /// }
    /// assert!(report.degraded().all(|feature| feature.support != tamam::Support::Native));
    /// ```
    pub fn degraded(&self) -> impl Iterator<Item = &Feature> {
        let used = match self.backend() {
            Some(Backend::Ring) => self.ring().ok(),
            Some(_) => self.epoll().ok(),
            None => None,
        };
        let features = used.map(Capabilities::features).unwrap_or_default();
        features.iter().filter(|feature| feature.support != Support::Native)
    }

    /// The release of the kernel, from uname(2).
    pub fn kernel_release(&self) -> &str {
        &self.facts.release
    }

    /// RLIMIT_NOFILE: how many descriptors the process may have open. Each connection is one.
    /// `None` if getrlimit(2) is denied.
    pub fn descriptor_limit(&self) -> Option<Limit> {
        self.facts.descriptors
    }

    /// RLIMIT_MEMLOCK in bytes. The kernel charges rings against it, all rings of a user together.
    /// `None` if getrlimit(2) is denied.
    pub fn locked_memory_limit(&self) -> Option<Limit> {
        self.facts.locked_memory
    }

    /// The sysctl `kernel.io_uring_disabled`. 0: every process may use io_uring; 1: root and the
    /// members of one group; 2: no process. `None` before Linux 6.6, or if it cannot be read.
    pub fn io_uring_disabled(&self) -> Option<u32> {
        self.facts.disabled
    }

    /// The sysctl `kernel.io_uring_group`: the group whose members may use io_uring while
    /// `io_uring_disabled` is 1. -1 means that there is no such group.
    pub fn io_uring_group(&self) -> Option<i64> {
        self.facts.group
    }

    /// Whether a seccomp filter is active on this thread. `None` if prctl(2) is denied.
    pub fn has_seccomp_filter(&self) -> Option<bool> {
        self.facts.is_filtered
    }

    /// The kind of container this process runs in, if there is proof of it: `docker`, `kubernetes`,
    /// `podman`, or the value of the environment variable `container`.
    pub fn container(&self) -> Option<&str> {
        self.facts.container.as_deref()
    }
}

impl Limit {
    /// Asks for a limit of this process. `None`: getrlimit(2) is denied.
    fn of(limited: Limited) -> Option<Limit> {
        let bound = |limit| (limit != libc::RLIM_INFINITY).then_some(limit);
        sys::limits(limited).map(|(soft, hard)| Limit { soft: bound(soft), hard: bound(hard) })
    }
}
