//! What this kernel can do. The driver asks once, at the start. If io_uring cannot be used, this
//! file says why.
//!
//! Set-up tries the best flags first and then fewer. A kernel below the minimum is an error that
//! names the cause. No other file compares kernel versions: they ask `found.no_iowait` and its
//! like. Whether the multishot receive works is not here, but in `trial.rs`.
//!
//! Read next: `trial.rs`, `capabilities.rs`, then `ring.rs`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use io_uring::IoUring;

use crate::sys;

/// The kernel features that were found, beyond those of 6.1. `capabilities.rs` describes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingFeatures {
    /// `IORING_SETUP_NO_SQARRAY`, 6.6: one load less for each submission.
    pub(super) no_sqarray: bool,
    /// `IORING_ENTER_NO_IOWAIT`, 6.15: a sleeping ring is not counted as waiting for a disk.
    pub(super) no_iowait: bool,
    /// The ring's descriptor is registered, 5.18: a lookup less for each enter.
    pub(super) registered_ring: bool,
    /// A multishot receive reports every reset, see `trial.rs`.
    pub(super) multishot_recv: bool,
}

/// A kernel's version. A pretended older version hides later features, so that one machine can try
/// every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kernel(pub(crate) u32, pub(crate) u32);

impl Kernel {
    /// The environment variable with the version to pretend.
    const VARIABLE: &str = "TAMAM_PRETEND_KERNEL";

    /// The version to pretend, if the environment has one. `None`: the variable is not set, or
    /// empty. It is an error if it is no version.
    pub(crate) fn from_env() -> io::Result<Option<Kernel>> {
        let value = std::env::var_os(Kernel::VARIABLE).unwrap_or_default();
        let value = value.to_string_lossy();
        if value.is_empty() {
            return Ok(None);
        }
        let complaint = || {
            let text = format!(
                "{} is `{value}`: it can be a version such as 6.12, or not set",
                Kernel::VARIABLE
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        Kernel::parse(&value).map(Some).ok_or_else(complaint)
    }

    /// The first two numbers of a release such as `6.12.57+deb13-amd64`; `None` if it has no such
    /// beginning.
    fn parse(release: &str) -> Option<Kernel> {
        let (major, rest) = release.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Kernel(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} (pretended)", self.0, self.1)
    }
}

/// What completes a runtime's I/O.
///
/// # Examples
/// ```
/// use tamam::{Backend, Runtime};
///
/// let runtime = Runtime::builder().backend(Backend::Epoll).build()?;
/// assert_eq!(runtime.backend(), Backend::Epoll);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// What the environment variable `TAMAM_BACKEND` says (`ring`, `epoll` or `auto`); without it
    /// io_uring if it can be used here, else epoll.
    /// [`Runtime::ring_refused`](crate::Runtime::ring_refused) tells why it could not.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Ring,
    /// epoll(7): for machines without io_uring, and to compare with. Does the same, one system call
    /// for each receive and each send.
    Epoll,
}

impl Backend {
    /// The environment variable that chooses.
    const VARIABLE: &str = "TAMAM_BACKEND";

    /// If the program has chosen an engine, that counts. Otherwise the environment chooses; it
    /// stays `Auto` if the variable is not set. It is an error if the variable names no backend.
    pub(crate) fn or_from_env(self) -> io::Result<Backend> {
        match std::env::var_os(Backend::VARIABLE) {
            Some(value) if self == Backend::Auto && !value.is_empty() => {
                let value = value.to_string_lossy();
                value.parse().map_err(|error| {
                    let text = format!("{} is `{value}`: {error}", Backend::VARIABLE);
                    io::Error::new(io::ErrorKind::InvalidInput, text)
                })
            }
            _ => Ok(self),
        }
    }
}

/// From `ring`, `epoll` or `auto`, for a program's own options.
///
/// # Examples
/// ```
/// use tamam::Backend;
///
/// assert_eq!("epoll".parse(), Ok(Backend::Epoll));
/// assert_eq!("kqueue".parse::<Backend>().unwrap_err().to_string(), "it can be ring, epoll or auto");
/// ```
impl FromStr for Backend {
    type Err = ParseBackendError;

    fn from_str(value: &str) -> Result<Backend, ParseBackendError> {
        match value {
            "auto" => Ok(Backend::Auto),
            "ring" => Ok(Backend::Ring),
            "epoll" => Ok(Backend::Epoll),
            _ => Err(ParseBackendError(())),
        }
    }
}

/// A text is not the name of a [`Backend`].
///
/// # Examples
/// ```
/// use tamam::Backend;
///
/// let error = "kqueue".parse::<Backend>().unwrap_err();
/// assert_eq!(error.to_string(), "it can be ring, epoll or auto");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseBackendError(());

impl fmt::Display for ParseBackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it can be ring, epoll or auto")
    }
}

impl std::error::Error for ParseBackendError {}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Ring => "ring",
            Backend::Epoll => "epoll",
        })
    }
}

/// Why a runtime could not start, or not with io_uring
/// ([`Runtime::ring_refused`](crate::Runtime::ring_refused)).
///
/// [`Runtime::new`](crate::Runtime::new) gives it inside an [`io::Error`], whose text is this
/// one's:
///
/// ```
/// use tamam::SetupError;
///
/// match tamam::Runtime::new() {
///     Ok(_) => {}
///     Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
///         Some(SetupError::Denied { .. }) => eprintln!("allow io_uring in the sandbox: {error}"),
///         _ => eprintln!("{error}"),
///     },
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// The sysctl `kernel.io_uring_disabled` forbids io_uring.
    Disabled {
        /// Its value. 1: only members of `kernel.io_uring_group` may use it; 2: no process may.
        sysctl: u32,
    },
    /// A seccomp filter or another security module denies the system call.
    Denied {
        /// Which one: `io_uring_setup`, `io_uring_enter` or `io_uring_register`.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
    /// The kernel was built without io_uring.
    NotBuilt {
        /// uname(2)'s release.
        release: String,
    },
    /// The kernel has no io_uring, or lacks what this crate needs.
    OldKernel {
        /// uname(2)'s release; or the version that is pretended, `5.10 (pretended)`.
        release: String,
        /// What is missing: `io_uring`, or a flag such as `IORING_SETUP_DEFER_TASKRUN`.
        missing: &'static str,
    },
    /// The limit of locked memory (RLIMIT_MEMLOCK) is too low for the rings, or memory is short.
    LockedMemory {
        /// The soft limit in bytes.
        limit: u64,
    },
    /// No descriptor is left for the ring, in the process or the system.
    Descriptors {
        /// EMFILE or ENFILE.
        errno: i32,
    },
    /// Anything else.
    Other {
        /// What was being done.
        step: &'static str,
        /// Its errno.
        errno: i32,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = |errno: &i32| io::Error::from_raw_os_error(*errno);
        match self {
            SetupError::Disabled { sysctl: 1 } => f.write_str(
                "io_uring is disabled for this user: kernel.io_uring_disabled is 1; add the \
                 process to kernel.io_uring_group, or set it to 0 (sysctl -w kernel.io_uring_disabled=0)",
            ),
            SetupError::Disabled { sysctl } => write!(
                f,
                "io_uring is disabled: kernel.io_uring_disabled is {sysctl}; set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0)"
            ),
            SetupError::Denied { call, errno } => write!(
                f,
                "io_uring is denied, most likely by a seccomp filter (containers have one): allow \
                 io_uring_setup, io_uring_enter and io_uring_register; {call} says: {}",
                os(errno)
            ),
            SetupError::NotBuilt { release } => {
                write!(f, "kernel {release} was built without io_uring (CONFIG_IO_URING)")
            }
            SetupError::OldKernel { release, missing } => {
                write!(f, "kernel {release} is too old: Linux 6.1 or later is needed, for {missing}")
            }
            SetupError::LockedMemory { limit } => write!(
                f,
                "no memory for the rings: RLIMIT_MEMLOCK is {limit} bytes for all rings of this \
                 user; raise it (ulimit -l, LimitMEMLOCK=), or lower the builder's entries"
            ),
            SetupError::Descriptors { errno } => write!(
                f,
                "no file descriptor left for a runtime: raise RLIMIT_NOFILE (ulimit -n); {}",
                os(errno)
            ),
            SetupError::Other { step, errno } => write!(f, "{step} failed: {}", os(errno)),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> io::Error {
        let kind = match &error {
            SetupError::Disabled { .. } | SetupError::Denied { .. } => {
                io::ErrorKind::PermissionDenied
            }
            SetupError::OldKernel { .. } | SetupError::NotBuilt { .. } => {
                io::ErrorKind::Unsupported
            }
            SetupError::LockedMemory { .. } => io::ErrorKind::OutOfMemory,
            SetupError::Descriptors { errno } | SetupError::Other { errno, .. } => {
                io::Error::from_raw_os_error(*errno).kind()
            }
        };
        io::Error::new(kind, error)
    }
}

impl SetupError {
    /// Makes an error of a failed step and the state of the machine. The name `step` is shown only
    /// if the errno tells no more.
    pub(super) fn at(step: &'static str, error: &io::Error) -> SetupError {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match errno {
            libc::ENOMEM => SetupError::LockedMemory { limit: sys::memlock_limit() },
            libc::EMFILE | libc::ENFILE => SetupError::Descriptors { errno },
            _ => SetupError::Other { step, errno },
        }
    }

    /// A step that maps memory has failed. RLIMIT_MEMLOCK does not limit that.
    pub(super) fn of_mapping(step: &'static str, error: &io::Error) -> SetupError {
        SetupError::Other { step, errno: error.raw_os_error().unwrap_or(libc::ENOMEM) }
    }

    /// Makes an error of a failed call about an existing ring. A filter may allow io_uring_setup(2)
    /// and deny the next call: then the error names `call`. Otherwise it is [`at`](Self::at)
    /// `step`.
    pub(super) fn of_call(call: &'static str, step: &'static str, error: &io::Error) -> SetupError {
        match error.raw_os_error() {
            Some(errno) if is_denial(errno) => SetupError::Denied { call, errno },
            _ => SetupError::at(step, error),
        }
    }

    /// Why io_uring_setup(2) failed, by the state of the machine.
    fn of_setup(error: &io::Error, machine: &Machine) -> SetupError {
        let Machine { sysctl, has_sysctls, is_filtered, release } = machine;
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let denied = SetupError::Denied { call: "io_uring_setup", errno };
        let old = |missing| SetupError::OldKernel { release: release.clone(), missing };
        match (errno, sysctl) {
            (libc::EPERM | libc::EACCES, Some(sysctl @ 2..)) => {
                SetupError::Disabled { sysctl: *sysctl }
            }
            // Root may, and its group; a container's root may not.
            (libc::EPERM | libc::EACCES, Some(1)) if !is_filtered || !sys::is_root() => {
                SetupError::Disabled { sysctl: 1 }
            }
            (libc::EPERM | libc::EACCES, _) => denied,
            // A kernel with this sysctl has io_uring, so a filter has denied the call.
            (libc::ENOSYS, Some(_)) => denied,
            (libc::ENOSYS, None) if *is_filtered && is_at_least(release, 5, 1) => denied,
            // Otherwise the sysctl would exist.
            (libc::ENOSYS, None) if *has_sysctls && is_at_least(release, 6, 6) => {
                SetupError::NotBuilt { release: release.clone() }
            }
            (libc::ENOSYS, None) if is_at_least(release, 6, 1) => denied,
            (libc::ENOSYS, None) => old("io_uring"),
            (libc::EINVAL, _) => old(DEFERRED),
            _ => SetupError::at("io_uring_setup", error),
        }
    }
}

/// Whether an errno of an io_uring call says that the call itself is refused.
pub(crate) fn is_denial(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES | libc::ENOSYS)
}

/// The facts that tell the causes of a refusal apart.
#[derive(Clone, Debug)]
struct Machine {
    /// `kernel.io_uring_disabled`, absent below 6.6.
    sysctl: Option<u32>,
    /// Whether it would be visible that the sysctl is absent.
    has_sysctls: bool,
    /// Whether a seccomp filter is on, or may be.
    is_filtered: bool,
    release: String,
}

impl Machine {
    fn look() -> Machine {
        Machine {
            sysctl: io_uring_disabled(),
            has_sysctls: std::path::Path::new("/proc/sys/kernel/osrelease").exists(),
            is_filtered: sys::has_seccomp_filter() != Some(false),
            release: sys::kernel_release(),
        }
    }
}

/// Whether a release is of this version or a later one; false if it is no version.
fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    Kernel::parse(release).is_some_and(|kernel| kernel >= Kernel(major, minor))
}

/// The sysctl `kernel.io_uring_disabled`. `None`: it is absent (below 6.6), or cannot be read.
pub(crate) fn io_uring_disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// The feature that makes 6.1 the oldest kernel.
const DEFERRED: &str = "IORING_SETUP_DEFER_TASKRUN";

/// The smallest completion queue that set-up falls back to when locked memory is short.
const COMPLETIONS_FLOOR: u32 = 128;

/// Makes a call, and up to three more of it, 10 ms apart, while it fails with ENOMEM: the kernel
/// gives back the memory of a closed ring a little later. Gives the last result.
pub(super) fn retry_on_enomem<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..3 {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
    call()
}

/// Sets a ring up with the best flags that this kernel takes, or that the `pretended` kernel would
/// take. If locked memory is short, the completion queue is smaller than asked. Of the features,
/// `registered_ring` and `multishot_recv` are not looked for here, and are false.
pub(super) fn set_up(
    entries: u32,
    completion_entries: u32,
    pretended: Option<Kernel>,
) -> Result<(IoUring, RingFeatures), SetupError> {
    let has = |major, minor| pretended.is_none_or(|kernel| kernel >= Kernel(major, minor));
    if !has(6, 1) {
        let release = pretended.map_or_else(sys::kernel_release, |kernel| kernel.to_string());
        return Err(SetupError::OldKernel { release, missing: DEFERRED });
    }
    let mut completions = completion_entries.max(entries);
    let mut no_sqarray = has(6, 6);
    loop {
        let error = match retry_on_enomem(|| build(entries, completions, no_sqarray)) {
            Ok(ring) => {
                let no_iowait = has(6, 15) && ring.params().is_feature_no_iowait();
                let found = RingFeatures { no_sqarray, no_iowait, ..RingFeatures::default() };
                return Ok((ring, found));
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL) if no_sqarray => no_sqarray = false,
            // A smaller queue may fit.
            Some(libc::ENOMEM) if completions / 2 >= entries.max(COMPLETIONS_FLOOR) => {
                completions /= 2;
            }
            _ => return Err(SetupError::of_setup(&error, &Machine::look())),
        }
    }
}

/// One io_uring_setup(2). EINVAL: the kernel does not know one of the flags.
fn build(entries: u32, completions: u32, no_sqarray: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_clamp()
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_words() {
        let here = Machine {
            sysctl: Some(0),
            has_sysctls: true,
            is_filtered: false,
            release: "6.12.1".to_owned(),
        };
        let old = Machine { sysctl: None, release: "5.10.0-30".to_owned(), ..here.clone() };
        let of = |errno, machine: &Machine| {
            SetupError::of_setup(&io::Error::from_raw_os_error(errno), machine).to_string()
        };
        let disabled = |sysctl| Machine { sysctl: Some(sysctl), ..here.clone() };
        assert!(of(libc::EPERM, &disabled(2)).contains("kernel.io_uring_disabled is 2"));
        assert!(of(libc::EPERM, &disabled(1)).contains("kernel.io_uring_group"));
        assert!(of(libc::EPERM, &here).contains("seccomp"));
        assert!(of(libc::ENOSYS, &here).contains("seccomp"));
        assert!(of(libc::EINVAL, &old).contains("too old"));
        assert!(of(libc::ENOSYS, &old).contains("kernel 5.10.0-30 is too old"));
        assert!(of(libc::ENOMEM, &here).contains("RLIMIT_MEMLOCK"));
        assert!(of(libc::EMFILE, &here).contains("RLIMIT_NOFILE"));
        assert!(of(libc::EIO, &here).contains("io_uring_setup failed"));
    }

    #[test]
    fn a_kernel_without_io_uring_is_not_a_filter() {
        let error = io::Error::from_raw_os_error(libc::ENOSYS);
        let bare = Machine {
            sysctl: None,
            has_sysctls: true,
            is_filtered: false,
            release: "6.12.1".to_owned(),
        };
        let of = |machine| SetupError::of_setup(&error, &machine);
        assert_eq!(of(bare.clone()), SetupError::NotBuilt { release: "6.12.1".to_owned() });
        let denied = SetupError::Denied { call: "io_uring_setup", errno: libc::ENOSYS };
        assert_eq!(of(Machine { is_filtered: true, ..bare.clone() }), denied);
        // Without /proc the value is unknown.
        assert_eq!(of(Machine { has_sysctls: false, ..bare }), denied);
    }

    #[test]
    fn a_call_that_is_denied_is_named() {
        let of = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            SetupError::of_call("io_uring_register", "registering the receive buffers", &error)
        };
        let denied = SetupError::Denied { call: "io_uring_register", errno: libc::EPERM };
        assert_eq!(of(libc::EPERM), denied);
        assert!(of(libc::ENOSYS).to_string().contains("io_uring_register says"));
        assert!(of(libc::EINVAL).to_string().contains("registering the receive buffers failed"));
    }

    #[test]
    fn the_error_keeps_its_cause_inside_an_io_error() {
        let error = io::Error::from(SetupError::Disabled { sysctl: 2 });
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
        assert_eq!(inner, Some(&SetupError::Disabled { sysctl: 2 }));
    }
}
