//! A description of a runtime's engine: each kernel feature is native, emulated or absent.
//!
//! This file decides nothing. `probe.rs` and the engines have decided before. The rows and their
//! words are those of the ladder in `src/docs/kernels.md`. Read next: `probe.rs`.

use std::fmt;

use super::probe::{Backend, Kernel, RingFeatures, SetupError};
use crate::sys;

/// What a runtime uses of its kernel: the engine, and each kernel feature.
///
/// [`Runtime::capabilities`](crate::Runtime::capabilities) gives it. Its `Display` is a table for
/// people; [`doctor`](crate::doctor) adds what could be changed.
///
/// # Examples
/// ```
/// use tamam::{Backend, Runtime, Support};
///
/// let runtime = Runtime::builder().backend(Backend::Epoll).build()?;
/// let capabilities = runtime.capabilities();
/// assert_eq!(capabilities.support("multishot receive"), Some(Support::Emulated));
/// assert_eq!(capabilities.support("single issuer"), Some(Support::Absent));
/// println!("{capabilities}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Capabilities {
    backend: Backend,
    release: String,
    pretended: Option<Kernel>,
    refused: Option<SetupError>,
    features: Vec<Feature>,
}

/// A feature of the kernel, and whether a runtime uses it.
///
/// # Examples
/// The features that a program could gain by a newer kernel:
/// ```
/// let capabilities = tamam::Runtime::new()?.capabilities();
/// for feature in capabilities.features().iter().filter(|feature| feature.since > (6, 1)) {
///     let (major, minor) = feature.since;
///     println!("{major}.{minor} {}: {} ({})", feature.name, feature.gives, feature.support);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// What it is called in these tables.
    pub name: &'static str,
    /// The first kernel that has it: 5.19 is `(5, 19)`.
    pub since: (u32, u32),
    /// What it gives to a runtime.
    pub gives: &'static str,
    /// Whether this runtime uses it.
    pub support: Support,
    /// What is done instead, or why it is not there; empty if there is nothing to say.
    pub note: &'static str,
}

/// Whether a runtime uses a [`Feature`].
///
/// # Examples
/// ```
/// use tamam::{Backend, Runtime, Support};
///
/// let runtime = Runtime::builder().backend(Backend::Epoll).build()?;
/// let support = runtime.capabilities().support("multishot accept");
/// assert_eq!(support, Some(Support::Emulated)); // one accept4(2) for each connection
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Support {
    /// It is in use.
    Native,
    /// It is not in use; the runtime does the same by other means.
    Emulated,
    /// It is not in use, and nothing replaces it.
    Absent,
}

impl Capabilities {
    /// For a runtime on a ring with the features `found`. `pretended` and `refused` are only shown.
    pub(super) fn of_ring(
        found: RingFeatures,
        pretended: Option<Kernel>,
        refused: Option<SetupError>,
    ) -> Capabilities {
        let support = |row: &Row| match row.ring {
            OnRing::Always => (Support::Native, ""),
            OnRing::IfFound(is_found, note) => match is_found(found) {
                true => (Support::Native, ""),
                false => (Support::Absent, note),
            },
            OnRing::OrEmulated(is_found, note) => match is_found(found) {
                true => (Support::Native, ""),
                false => (Support::Emulated, note),
            },
        };
        Capabilities::new(Backend::Ring, pretended, refused, support)
    }

    /// For a runtime on epoll. `has_exact_waits`: whether there is epoll_pwait2(2). `refused`: why
    /// there is no ring, if one was tried.
    pub(super) fn of_epoll(
        has_exact_waits: bool,
        pretended: Option<Kernel>,
        refused: Option<SetupError>,
    ) -> Capabilities {
        let support = |row: &Row| match row.epoll {
            OnEpoll::Emulated(note) => (Support::Emulated, note),
            OnEpoll::Absent(note) => (Support::Absent, note),
            OnEpoll::ExactWaits if has_exact_waits => (Support::Native, "epoll_pwait2(2)"),
            OnEpoll::ExactWaits => {
                (Support::Absent, "no epoll_pwait2(2): a timer is up to a millisecond late")
            }
        };
        Capabilities::new(Backend::Epoll, pretended, refused, support)
    }

    /// Asks `support` for each row of the ladder: whether the feature is used, and the note.
    fn new(
        backend: Backend,
        pretended: Option<Kernel>,
        refused: Option<SetupError>,
        support: impl Fn(&Row) -> (Support, &'static str),
    ) -> Capabilities {
        let feature = |row: &Row| {
            let (support, note) = support(row);
            Feature { name: row.name, since: row.since, gives: row.gives, support, note }
        };
        let features = LADDER.iter().map(feature).collect();
        Capabilities { backend, release: sys::kernel_release(), pretended, refused, features }
    }

    /// The engine in use: [`Backend::Ring`] or [`Backend::Epoll`].
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The kernel's release, as uname(2) has it: `6.12.57+deb13-amd64`.
    pub fn kernel_release(&self) -> &str {
        &self.release
    }

    /// The kernel that is pretended, if one is.
    ///
    /// # Examples
    /// ```
    /// use tamam::{Backend, Runtime};
    ///
    /// let builder = Runtime::builder().backend(Backend::Epoll).pretend_kernel(5, 10);
    /// let capabilities = builder.build()?.capabilities();
    /// assert_eq!(capabilities.pretended_kernel(), Some((5, 10)));
    /// assert_eq!(capabilities.backend(), Backend::Epoll);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pretended_kernel(&self) -> Option<(u32, u32)> {
        self.pretended.map(|Kernel(major, minor)| (major, minor))
    }

    /// Why the engine is not io_uring. `None` if it is, or if io_uring was not tried.
    pub fn ring_refused(&self) -> Option<&SetupError> {
        self.refused.as_ref()
    }

    /// All features, oldest first.
    ///
    /// # Examples
    /// ```
    /// use tamam::{Runtime, Support};
    ///
    /// let capabilities = Runtime::new()?.capabilities();
    /// let native = |feature: &&tamam::Feature| feature.support == Support::Native;
    /// let count = capabilities.features().iter().filter(native).count();
    /// println!("{count} of {} features are in use", capabilities.features().len());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Whether the feature of this name is in use; `None` if there is no such name.
    pub fn support(&self, name: &str) -> Option<Support> {
        self.features.iter().find(|feature| feature.name == name).map(|feature| feature.support)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "engine  {}", self.backend)?;
        write!(f, "kernel  {}", self.release)?;
        match self.pretended {
            Some(pretended) => writeln!(f, ", used as {pretended}")?,
            None => writeln!(f)?,
        }
        if let Some(refused) = &self.refused {
            writeln!(f, "ring    refused: {refused}")?;
        }
        let width = self.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
        write!(f, "\nsince  {:width$}  support   what it gives", "feature")?;
        for feature in &self.features {
            let Feature { name, since: (major, minor), gives, support, note } = feature;
            let since = format!("{major}.{minor}");
            write!(f, "\n{since:<5}  {name:width$}  {support:<8}  {gives}")?;
            if !note.is_empty() {
                write!(f, " ({note})")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Support::Native => "native",
            Support::Emulated => "emulated",
            Support::Absent => "absent",
        })
    }
}

/// A line of the ladder.
struct Row {
    name: &'static str,
    since: (u32, u32),
    gives: &'static str,
    ring: OnRing,
    epoll: OnEpoll,
}

/// Whether a ring has the feature of a row.
enum OnRing {
    /// Older than the oldest kernel for the ring, or required by a flag that every ring has.
    Always,
    /// Native if the function says that it was found, else absent. The text is the reason.
    IfFound(fn(RingFeatures) -> bool, &'static str),
    /// Native if the function says that it was found, else emulated. The text is what replaces it.
    OrEmulated(fn(RingFeatures) -> bool, &'static str),
}

/// Whether epoll has the feature of a row. The texts are the notes.
enum OnEpoll {
    Emulated(&'static str),
    Absent(&'static str),
    /// The one that epoll has a call of its own for.
    ExactWaits,
}

const NO_RING: &str = "there is no ring";

const LADDER: [Row; 15] = [
    Row {
        name: "batched submission",
        since: (5, 1),
        gives: "one system call for all that a turn has to say",
        ring: OnRing::Always,
        epoll: OnEpoll::Absent("one for each receive, send, accept and connect"),
    },
    Row {
        name: "socket operations",
        since: (5, 6),
        gives: "connects, sends and receives are completed, not announced",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("tried at once, else at the descriptor's next edge"),
    },
    Row {
        name: "exact waits",
        since: (5, 11),
        gives: "a deadline in nanoseconds for each wait",
        ring: OnRing::Always,
        epoll: OnEpoll::ExactWaits,
    },
    Row {
        name: "multishot poll",
        since: (5, 13),
        gives: "other threads rouse the runtime, nothing is submitted for it",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("the eventfd is in the epoll set from the start"),
    },
    Row {
        name: "submit all",
        since: (5, 18),
        gives: "one bad submission does not stop the rest",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("each request is a call of its own"),
    },
    Row {
        name: "registered ring",
        since: (5, 18),
        gives: "a look-up less for each enter",
        ring: OnRing::IfFound(
            |found| found.registered_ring,
            "16 rings of a thread have room, or the kernel registers none",
        ),
        epoll: OnEpoll::Absent(NO_RING),
    },
    Row {
        name: "multishot accept",
        since: (5, 19),
        gives: "one submission for each listener",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("registered once; an accept4(2) for each connection"),
    },
    Row {
        name: "buffer ring",
        since: (5, 19),
        gives: "an idle connection holds no buffer",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("a buffer is picked when bytes are there"),
    },
    Row {
        name: "task-run flag",
        since: (5, 19),
        gives: "a busy turn enters only if there is something to fetch",
        ring: OnRing::Always,
        epoll: OnEpoll::Absent("a turn asks as long as anything waits"),
    },
    Row {
        name: "multishot receive",
        since: (6, 0),
        gives: "one submission for each connection",
        ring: OnRing::OrEmulated(
            |found| found.multishot_recv,
            "a submission for each chunk: this kernel's own may miss a reset",
        ),
        epoll: OnEpoll::Emulated("registered once; a recv(2) for each chunk"),
    },
    Row {
        name: "multishot recvmsg",
        since: (6, 0),
        gives: "one submission for each datagram socket",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("registered once; a recvmsg(2) for each datagram"),
    },
    Row {
        name: "single issuer",
        since: (6, 0),
        gives: "no locking in the kernel",
        ring: OnRing::Always,
        epoll: OnEpoll::Absent(NO_RING),
    },
    Row {
        name: "deferred task work",
        since: (6, 1),
        gives: "completions come when the loop asks, in batches",
        ring: OnRing::Always,
        epoll: OnEpoll::Emulated("events come when the loop asks, up to 128 at once"),
    },
    Row {
        name: "no sqarray",
        since: (6, 6),
        gives: "a load less for each submission",
        ring: OnRing::IfFound(|found| found.no_sqarray, "not in this kernel"),
        epoll: OnEpoll::Absent(NO_RING),
    },
    Row {
        name: "no iowait",
        since: (6, 15),
        gives: "a sleeping runtime does not count as waiting for a disk",
        ring: OnRing::IfFound(|found| found.no_iowait, "not in this kernel"),
        epoll: OnEpoll::Emulated("a wait in epoll never does"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_that_of_the_document() {
        let text = include_str!("../docs/kernels.md");
        for Row { name, since: (major, minor), .. } in &LADDER {
            let found = text.lines().any(|line| {
                let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('*'));
                cells.nth(1) == Some(&format!("{major}.{minor}")) && cells.next() == Some(name)
            });
            assert!(found, "src/docs/kernels.md has no row for {name} of {major}.{minor}");
        }
        assert!(LADDER.is_sorted_by_key(|row| row.since), "oldest first");
    }

    #[test]
    fn a_ring_has_what_was_found() {
        let found = RingFeatures { no_iowait: true, ..RingFeatures::default() };
        let told = Capabilities::of_ring(found, Some(Kernel(6, 20)), None);
        assert_eq!(told.support("no iowait"), Some(Support::Native));
        assert_eq!(told.support("no sqarray"), Some(Support::Absent));
        assert_eq!(told.support("multishot accept"), Some(Support::Native));
        assert_eq!(told.support("no such thing"), None);
        assert!(told.to_string().contains("used as 6.20 (pretended)"), "{told}");
        let emulated =
            told.features().iter().filter(|feature| feature.support == Support::Emulated);
        assert_eq!(emulated.map(|feature| feature.name).collect::<Vec<_>>(), ["multishot receive"]);
        let told =
            Capabilities::of_ring(RingFeatures { multishot_recv: true, ..found }, None, None);
        assert_eq!(told.support("multishot receive"), Some(Support::Native));
    }

    #[test]
    fn epoll_is_exact_if_the_kernel_is() {
        let told = |exact| Capabilities::of_epoll(exact, None, None);
        assert_eq!(told(true).support("exact waits"), Some(Support::Native));
        assert_eq!(told(false).support("exact waits"), Some(Support::Absent));
        assert!(told(false).to_string().contains("up to a millisecond late"));
    }
}
