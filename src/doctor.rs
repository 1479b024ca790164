//! What runs here and what does not, why, and which line of which configuration changes it.
//!
//! It asks the machine, tries both engines for real, and puts the answers into words. Nothing else
//! depends on it. Read next: `driver/probe.rs`, which finds the causes.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::driver::{
    Backend, Capabilities, Feature, Kernel, SetupError, Support, ask_in_vain, io_uring_disabled,
    is_denial,
};
use crate::net::{TcpListener, TcpStream};
use crate::runtime::Runtime;
use crate::sys::{self, Limited};
use crate::time::{sleep, timeout};

/// How long a few bytes over loopback may take.
const TRIAL_MAX: Duration = Duration::from_secs(5);

/// Finds out whether io_uring can be used here, why not, what is used instead and what that costs,
/// and what has to be changed where.
///
/// It asks for limits, sysctls and seccomp filters, and starts a runtime on each engine, on a thread
/// of its own, which talks to itself over loopback. That takes a few milliseconds. It works inside
/// a runtime as well, and blocks it meanwhile.
///
/// It fails at nothing: what cannot be asked is told as not known. Only a filter that kills the
/// process for io_uring_setup(2) kills it here too, as it would in [`Runtime::new`].
///
/// `examples/doctor` prints it, and is a program to start where a service is going to run.
///
/// # Examples
/// ```
/// let report = tamam::doctor();
/// if !report.ring_is_usable() {
///     eprintln!("{report}");
/// }
/// ```
pub fn doctor() -> Report {
    let facts = Facts::look();
    let (ring, epoll) = (Trial::of(Backend::Ring), Trial::of(Backend::Epoll));
    let (choice, mistake) = match (Backend::Auto.or_from_env(), Kernel::from_env()) {
        (Ok(choice), Ok(_)) => (choice, None),
        (Err(error), _) | (_, Err(error)) => (Backend::Auto, Some(error)),
    };
    Report { facts, ring, epoll, choice, mistake }
}

/// What [`doctor`] found. Its `Display` is the whole report, for people.
#[derive(Debug)]
pub struct Report {
    facts: Facts,
    ring: Trial,
    epoll: Trial,
    /// What the environment wants.
    choice: Backend,
    /// What the environment says that cannot be.
    mistake: Option<io::Error>,
}

/// A limit of the process, getrlimit(2); `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// The one that counts.
    pub soft: Option<u64>,
    /// What the process may raise it to.
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

    /// What a runtime gets here that leaves the choice open ([`Backend::Auto`]), the environment
    /// considered; `None` if it does not start.
    pub fn backend(&self) -> Option<Backend> {
        let may = |backend| self.choice == Backend::Auto || self.choice == backend;
        match () {
            () if self.mistake.is_some() => None,
            () if may(Backend::Ring) && self.ring_is_usable() => Some(Backend::Ring),
            () if may(Backend::Epoll) && self.epoll_is_usable() => Some(Backend::Epoll),
            () => None,
        }
    }

    /// What the ring makes of this kernel, or why it cannot be used.
    pub fn ring(&self) -> Result<&Capabilities, &io::Error> {
        self.ring.result.as_ref()
    }

    /// What epoll makes of this kernel, or why it cannot be used.
    pub fn epoll(&self) -> Result<&Capabilities, &io::Error> {
        self.epoll.result.as_ref()
    }

    /// Why the ring cannot be used, as far as that has a known cause.
    pub fn cause(&self) -> Option<&SetupError> {
        self.ring.cause()
    }

    /// The system calls of io_uring that are denied here, each with its errno.
    pub fn denied_calls(&self) -> impl Iterator<Item = (&'static str, i32)> + '_ {
        self.facts.calls.iter().copied().filter(|(_, errno)| is_denial(*errno))
    }

    /// What to change, and where: lines for Docker, Kubernetes, systemd, sysctl and the shell.
    /// Empty if the ring can be used, and the environment lets a runtime start.
    pub fn advice(&self) -> Vec<String> {
        if let Some(error) = &self.mistake {
            return vec![format!("environment: {error}")];
        }
        let mut lines = match &self.ring.result {
            Ok(_) => Vec::new(),
            Err(error) => advice(&self.facts, error),
        };
        // Where nothing works, what keeps epoll from working may be something else.
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

    /// What the engine that is used here does without, or does by other means: what is lost, or
    /// what it costs.
    pub fn degraded(&self) -> impl Iterator<Item = &Feature> {
        let used = match self.backend() {
            Some(Backend::Ring) => self.ring().ok(),
            Some(_) => self.epoll().ok(),
            None => None,
        };
        let features = used.map(Capabilities::features).unwrap_or_default();
        features.iter().filter(|feature| feature.support != Support::Native)
    }

    /// uname(2)'s release.
    pub fn kernel_release(&self) -> &str {
        &self.facts.release
    }

    /// RLIMIT_NOFILE, if it may be asked: how many descriptors the process may have. Each connection
    /// is one.
    pub fn descriptor_limit(&self) -> Option<Limit> {
        self.facts.descriptors
    }

    /// RLIMIT_MEMLOCK in bytes, if it may be asked. Rings count against it, for all rings of a user
    /// together.
    pub fn locked_memory_limit(&self) -> Option<Limit> {
        self.facts.locked_memory
    }

    /// The sysctl `kernel.io_uring_disabled`, if there is one (6.6 and later) and it can be read: 0,
    /// everybody may use io_uring; 1, root and a group; 2, nobody.
    pub fn io_uring_disabled(&self) -> Option<u32> {
        self.facts.disabled
    }

    /// The sysctl `kernel.io_uring_group`: who may in spite of 1; -1 is nobody.
    pub fn io_uring_group(&self) -> Option<i64> {
        self.facts.group
    }

    /// Whether a seccomp filter is on for this thread, if that may be asked.
    pub fn has_seccomp_filter(&self) -> Option<bool> {
        self.facts.is_filtered
    }

    /// What this process is in, if that is certain: `docker`, `kubernetes`, `podman`, or what the
    /// environment variable `container` says.
    pub fn container(&self) -> Option<&str> {
        self.facts.container.as_deref()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backend() {
            Some(backend) => writeln!(f, "A runtime works here, on {}.", name(backend))?,
            None => writeln!(f, "No runtime works here.")?,
        }
        match (&self.mistake, self.choice, self.backend()) {
            (Some(error), _, _) => writeln!(f, "{error}.")?,
            (None, Backend::Auto, _) => {}
            (None, choice, Some(_)) => writeln!(f, "TAMAM_BACKEND={choice} asks for it.")?,
            (None, choice, None) => {
                writeln!(f, "TAMAM_BACKEND={choice} asks for {}.", name(choice))?
            }
        }
        writeln!(f)?;
        for (name, trial) in [("io_uring", &self.ring), ("epoll", &self.epoll)] {
            match &trial.result {
                Ok(_) => writeln!(f, "{name:<9} usable")?,
                Err(error) => writeln!(f, "{name:<9} not usable: {error}")?,
            }
            let remarks = self.facts.remarks(trial);
            for line in trial.note.iter().chain(&remarks) {
                writeln!(f, "{:<9} {line}", "")?;
            }
        }
        write!(f, "\n{}", self.facts)?;
        let advice = self.advice();
        if !advice.is_empty() {
            writeln!(f, "\nTo change it:")?;
            advice.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        let used = match self.backend() {
            Some(Backend::Ring) => self.ring(),
            Some(_) => self.epoll(),
            None => return Ok(()),
        };
        if let (Some(Backend::Epoll), Ok(_)) = (self.backend(), used) {
            writeln!(
                f,
                "\nWhat a program does is the same on epoll. It costs a system call for each \
                 receive, send, accept and connect:"
            )?;
        }
        match used {
            Ok(capabilities) => writeln!(f, "\n{capabilities}"),
            Err(_) => Ok(()),
        }
    }
}

impl Limit {
    fn of(limited: Limited) -> Option<Limit> {
        let bound = |limit| (limit != libc::RLIM_INFINITY).then_some(limit);
        sys::limits(limited).map(|(soft, hard)| Limit { soft: bound(soft), hard: bound(hard) })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
        write!(f, "{} (may be raised to {})", text(self.soft), text(self.hard))
    }
}

fn name(backend: Backend) -> &'static str {
    if backend == Backend::Epoll { "epoll" } else { "io_uring" }
}

// ---- the trial --------------------------------------------------------------------------------

/// An engine that was tried.
#[derive(Debug)]
struct Trial {
    result: io::Result<Capabilities>,
    /// What could not be tried, and why.
    note: Option<String>,
}

impl Trial {
    fn of(backend: Backend) -> Trial {
        // A thread that turns a runtime turns no other, and has room for sixteen registered rings.
        let thread = thread::Builder::new().name("tamam-doctor".to_owned());
        match thread.spawn(move || Trial::run(backend)) {
            Ok(thread) => thread.join().unwrap_or_else(|_| Trial {
                result: Err(io::Error::other("its trial panicked")),
                note: None,
            }),
            Err(error) => {
                let result = build(backend).map(|runtime| runtime.capabilities());
                let note = format!("started only, not run: no thread could be had: {error}");
                Trial { note: result.is_ok().then_some(note), result }
            }
        }
    }

    fn run(backend: Backend) -> Trial {
        let runtime = match build(backend) {
            Ok(runtime) => runtime,
            Err(error) => return Trial { result: Err(error), note: None },
        };
        let ended = runtime.block_on(async { timeout(TRIAL_MAX, round_trip()).await });
        let (result, note) = match ended {
            Ok(Ok(())) => (Ok(runtime.capabilities()), None),
            // An errno is the network's answer, and the engine has delivered it.
            Ok(Err(error)) if error.raw_os_error().is_some() => {
                let note = format!("tried with a timer only, since loopback says: {error}");
                (Ok(runtime.capabilities()), Some(note))
            }
            Ok(Err(error)) => (Err(error), None),
            Err(_elapsed) => {
                let text = format!("a few bytes over loopback took more than {TRIAL_MAX:?}");
                (Err(io::Error::new(io::ErrorKind::TimedOut, text)), None)
            }
        };
        Trial { result, note }
    }

    fn cause(&self) -> Option<&SetupError> {
        self.result.as_ref().err().and_then(setup_error)
    }
}

fn build(backend: Backend) -> io::Result<Runtime> {
    Runtime::builder().backend(backend).build()
}

fn setup_error(error: &io::Error) -> Option<&SetupError> {
    error.get_ref()?.downcast_ref()
}

/// A timer, a connection, and bytes in both directions.
async fn round_trip() -> io::Result<()> {
    const MESSAGE: &[u8] = b"tamam";
    sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.send_all(MESSAGE).await?;
        let got = to.read_exact(Vec::with_capacity(MESSAGE.len()), MESSAGE.len()).await?;
        if got != MESSAGE {
            return Err(io::Error::other("what came over loopback is not what was sent"));
        }
    }
    Ok(())
}

// ---- the machine ------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Facts {
    release: String,
    descriptors: Option<Limit>,
    locked_memory: Option<Limit>,
    disabled: Option<u32>,
    group: Option<i64>,
    is_filtered: Option<bool>,
    calls: [(&'static str, i32); 3],
    container: Option<String>,
}

impl Facts {
    fn look() -> Facts {
        let group = fs::read_to_string("/proc/sys/kernel/io_uring_group").ok();
        Facts {
            release: sys::kernel_release(),
            descriptors: Limit::of(Limited::Descriptors),
            locked_memory: Limit::of(Limited::LockedMemory),
            disabled: io_uring_disabled(),
            group: group.and_then(|text| text.trim().parse().ok()),
            is_filtered: sys::has_seccomp_filter(),
            calls: ask_in_vain(),
            container: container(),
        }
    }

    /// The denied calls: these, or all if it is not known which.
    fn calls_to_allow(&self) -> Vec<&'static str> {
        let denied = self.calls.iter().filter(|(_, errno)| is_denial(*errno));
        let denied: Vec<_> = denied.map(|(call, _)| *call).collect();
        if denied.is_empty() { self.calls.iter().map(|(call, _)| *call).collect() } else { denied }
    }

    /// What makes the cause clearer than the error alone.
    fn remarks(&self, trial: &Trial) -> Vec<String> {
        let mut lines = Vec::new();
        let cause = trial.cause();
        if !matches!(cause, Some(SetupError::Denied { .. } | SetupError::Disabled { .. })) {
            return lines;
        }
        let denied = self.calls.iter().filter(|(_, errno)| is_denial(*errno));
        let denied: Vec<_> = denied
            .map(|(call, errno)| format!("{call} ({})", io::Error::from_raw_os_error(*errno)))
            .collect();
        if !denied.is_empty() {
            lines.push(format!("denied: {}", denied.join(", ")));
        }
        lines.extend(match (cause, self.is_filtered) {
            (Some(SetupError::Disabled { .. }), Some(true)) => {
                Some("a seccomp filter is on as well, which may deny it too".to_owned())
            }
            (Some(SetupError::Denied { .. }), Some(false)) => Some(
                "no seccomp filter is on: a security module (SELinux, AppArmor, BPF), a tracer or \
                 the sandbox's own kernel denies it"
                    .to_owned(),
            ),
            _ => None,
        });
        lines
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |text: Option<String>| text.unwrap_or("not known".to_owned());
        let limit = |limit: Option<Limit>| limit.map(|limit| limit.to_string());
        let filter = self.is_filtered.map(|on| if on { "on" } else { "off" }.to_owned());
        let group = self.group.map(|group| match group {
            -1 => "-1 (nobody)".to_owned(),
            group => group.to_string(),
        });
        let sysctl = match self.disabled {
            None => "not there (before 6.6), or not to be read".to_owned(),
            Some(value) => value.to_string(),
        };
        for (name, value) in [
            ("kernel", self.release.clone()),
            ("kernel.io_uring_disabled", sysctl),
            ("kernel.io_uring_group", known(group)),
            ("seccomp filter", known(filter)),
            ("descriptors (RLIMIT_NOFILE)", known(limit(self.descriptors))),
            ("locked bytes (RLIMIT_MEMLOCK)", known(limit(self.locked_memory))),
            ("container", known(self.container.clone())),
        ] {
            writeln!(f, "{name:<30} {value}")?;
        }
        Ok(())
    }
}

/// What this process is in, if it says so itself. Needs no descriptor.
fn container() -> Option<String> {
    let is_there = |path| Path::new(path).exists();
    match () {
        // A virtual machine whose image was a container's still has the files of one.
        () if !has_namespaces() => None,
        // Set by the kubelet for every container.
        () if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Some("kubernetes".to_owned()),
        () if is_there("/.dockerenv") => Some("docker".to_owned()),
        () if is_there("/run/.containerenv") => Some("podman".to_owned()),
        // systemd-nspawn, LXC and others, by the convention of systemd.
        () => env::var("container").ok().filter(|value| !value.is_empty()),
    }
}

/// Whether this process sees other processes, or another host name, than the first one of the
/// machine.
fn has_namespaces() -> bool {
    // The numbers of the initial namespaces are fixed in the kernel (include/linux/proc_ns.h).
    let initial = [("pid", 0xeffffffc_u32), ("uts", 0xeffffffe), ("ipc", 0xefffffff)];
    initial.iter().any(|(name, number)| {
        let link = fs::read_link(format!("/proc/self/ns/{name}"));
        link.is_ok_and(|link| link != Path::new(&format!("{name}:[{number}]")))
    })
}

// ---- the words --------------------------------------------------------------------------------

/// What to change so that the ring can be used, given why it cannot.
fn advice(facts: &Facts, error: &io::Error) -> Vec<String> {
    let mut places = match setup_error(error) {
        Some(SetupError::Denied { .. }) if facts.is_filtered == Some(false) => {
            return vec![
                "security module: look for io_uring in its log (ausearch -m avc; journalctl -k)"
                    .to_owned(),
            ];
        }
        Some(SetupError::Denied { .. }) => allow_calls(&facts.calls_to_allow()),
        Some(SetupError::Disabled { sysctl }) => {
            let mut lines = enable_by_sysctl(*sysctl, facts.group);
            if facts.is_filtered == Some(true) {
                lines.extend(allow_calls(&[
                    "io_uring_setup",
                    "io_uring_enter",
                    "io_uring_register",
                ]));
            }
            lines
        }
        Some(SetupError::OldKernel { release, .. }) if release.ends_with("(pretended)") => {
            vec![("environment", "unset TAMAM_PRETEND_KERNEL".to_owned())]
        }
        Some(SetupError::OldKernel { .. }) => {
            vec![("kernel", "Linux 6.1 or later".to_owned())]
        }
        Some(SetupError::NotBuilt { .. }) => {
            vec![("kernel", "one that is built with CONFIG_IO_URING=y".to_owned())]
        }
        Some(SetupError::LockedMemory { .. }) => lock_more(),
        Some(SetupError::Descriptors { errno: libc::ENFILE }) => {
            vec![("sysctl", "sysctl -w fs.file-max=1048576 (on the host)".to_owned())]
        }
        Some(SetupError::Descriptors { .. }) => open_more(facts.descriptors),
        _ => vec![("environment", format!("nothing is known of this cause: {error}"))],
    };
    // What is certainly not the place is left out.
    let container = facts.container.as_deref();
    let managers = ["docker", "podman", "kubernetes", "systemd"];
    if container.is_some_and(|name| managers.contains(&name)) {
        places.retain(|(place, _)| !managers.contains(place) || Some(*place) == container);
    }
    let title = |place| match place {
        "docker" => "Docker",
        "podman" => "Podman",
        "kubernetes" => "Kubernetes",
        other => other,
    };
    places.into_iter().map(|(place, text)| format!("{}: {text}", title(place))).collect()
}

type Places = Vec<(&'static str, String)>;

fn allow_calls(calls: &[&str]) -> Places {
    let quoted: Vec<_> = calls.iter().map(|call| format!("\"{call}\"")).collect();
    let rule = format!("{{\"names\": [{}], \"action\": \"SCMP_ACT_ALLOW\"}}", quoted.join(", "));
    vec![
        ("docker", "docker run --security-opt seccomp=io-uring.json".to_owned()),
        ("podman", "podman run --security-opt seccomp=io-uring.json".to_owned()),
        (
            "kubernetes",
            "securityContext: {seccompProfile: {type: Localhost, localhostProfile: \
             profiles/io-uring.json}}; on each node the file is \
             /var/lib/kubelet/seccomp/profiles/io-uring.json"
                .to_owned(),
        ),
        (
            "io-uring.json",
            format!(
                "the default profile (of Docker: \
                 https://github.com/moby/profiles/blob/main/seccomp/default.json, of Podman: \
                 /usr/share/containers/seccomp.json; for containerd without its elements that \
                 include \"caps\") with one more element in \"syscalls\": {rule}"
            ),
        ),
        (
            "systemd",
            format!(
                "SystemCallFilter={}, below the unit's other SystemCallFilter= lines",
                calls.join(" ")
            ),
        ),
    ]
}

fn enable_by_sysctl(value: u32, group: Option<i64>) -> Places {
    let mut places = vec![(
        "sysctl",
        "sysctl -w kernel.io_uring_disabled=0 (on the host, also for containers; to stay: \
         kernel.io_uring_disabled = 0 in /etc/sysctl.d/60-io-uring.conf)"
            .to_owned(),
    )];
    if value != 1 {
        return places;
    }
    let group = match group {
        Some(group @ 0..) => group.to_string(),
        _ => {
            let text = "or, for one group only: sysctl -w kernel.io_uring_group=GID";
            places.push(("sysctl", text.to_owned()));
            "GID".to_owned()
        }
    };
    places.extend([
        ("docker", format!("docker run --group-add {group}")),
        ("podman", format!("podman run --group-add {group}")),
        ("kubernetes", format!("the pod's securityContext: {{supplementalGroups: [{group}]}}")),
        ("systemd", format!("SupplementaryGroups={group}")),
    ]);
    places
}

fn lock_more() -> Places {
    vec![
        ("shell", "ulimit -l unlimited, or a number of KiB".to_owned()),
        ("docker", "docker run --ulimit memlock=-1".to_owned()),
        ("podman", "podman run --ulimit memlock=-1".to_owned()),
        ("kubernetes", "LimitMEMLOCK=infinity in the unit of the node's containerd".to_owned()),
        ("systemd", "LimitMEMLOCK=infinity, or a number of bytes".to_owned()),
        ("program", "fewer entries: Builder::entries(64).completion_entries(128)".to_owned()),
    ]
}

fn open_more(limit: Option<Limit>) -> Places {
    // Where the hard limit is used up too, root has to raise it.
    let wanted = match limit {
        Some(Limit { soft, hard: Some(hard) }) if Some(hard) != soft => hard.to_string(),
        _ => "65536".to_owned(),
    };
    vec![
        ("shell", format!("ulimit -n {wanted}")),
        ("docker", format!("docker run --ulimit nofile={wanted}:{wanted}")),
        ("podman", format!("podman run --ulimit nofile={wanted}:{wanted}")),
        ("kubernetes", format!("LimitNOFILE={wanted} in the unit of the node's containerd")),
        ("systemd", format!("LimitNOFILE={wanted}")),
        ("program", "close descriptors that are not needed: a runtime has two".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let limit = Some(Limit { soft: Some(1024), hard: Some(4096) });
        Facts {
            release: "6.12.1".to_owned(),
            descriptors: limit,
            locked_memory: Some(Limit { soft: None, hard: None }),
            disabled: Some(0),
            group: Some(-1),
            is_filtered: Some(true),
            calls: [("io_uring_setup", 14), ("io_uring_enter", 9), ("io_uring_register", 9)],
            container: None,
        }
    }

    fn told(facts: &Facts, error: SetupError) -> String {
        advice(facts, &error.into()).join("\n")
    }

    #[test]
    fn a_denied_call_is_the_one_to_allow() {
        let denied = SetupError::Denied { call: "io_uring_register", errno: libc::EPERM };
        let mut facts = facts();
        let all = told(&facts, denied.clone());
        assert!(
            all.contains(r#""names": ["io_uring_setup", "io_uring_enter", "io_uring_register"]"#)
        );
        assert!(all.contains("systemd: SystemCallFilter=io_uring_setup io_uring_enter"), "{all}");
        facts.calls[2].1 = libc::EPERM;
        let one = told(&facts, denied.clone());
        assert!(one.contains(r#""names": ["io_uring_register"]"#), "{one}");
        assert!(one.contains("Docker: docker run --security-opt seccomp=io-uring.json"), "{one}");
        facts.container = Some("kubernetes".to_owned());
        let one = told(&facts, denied.clone());
        assert!(one.contains("Kubernetes: ") && one.contains("io-uring.json: "), "{one}");
        assert!(!one.contains("docker run") && !one.contains("systemd"), "{one}");
        facts.is_filtered = Some(false);
        assert!(told(&facts, denied).starts_with("security module: "));
    }

    #[test]
    fn a_sysctl_is_the_hosts() {
        let mut facts = facts();
        facts.is_filtered = Some(false);
        let nobody = told(&facts, SetupError::Disabled { sysctl: 2 });
        assert!(nobody.starts_with("sysctl: sysctl -w kernel.io_uring_disabled=0"), "{nobody}");
        assert!(!nobody.contains("group"), "{nobody}");
        let some = told(&facts, SetupError::Disabled { sysctl: 1 });
        assert!(some.contains("sysctl -w kernel.io_uring_group=GID"), "{some}");
        facts.group = Some(987);
        let some = told(&facts, SetupError::Disabled { sysctl: 1 });
        assert!(some.contains("systemd: SupplementaryGroups=987"), "{some}");
        facts.is_filtered = Some(true);
        assert!(told(&facts, SetupError::Disabled { sysctl: 2 }).contains("seccomp=io-uring.json"));
    }

    #[test]
    fn limits_have_lines_of_their_own() {
        let facts = facts();
        let none = told(&facts, SetupError::Descriptors { errno: libc::EMFILE });
        assert!(none.contains("systemd: LimitNOFILE=4096"), "{none}");
        let system = told(&facts, SetupError::Descriptors { errno: libc::ENFILE });
        assert!(system.contains("fs.file-max"), "{system}");
        let memory = told(&facts, SetupError::LockedMemory { limit: 0 });
        assert!(memory.contains("systemd: LimitMEMLOCK="), "{memory}");
        assert!(facts.to_string().contains("1024 (may be raised to 4096)"));
    }

    #[test]
    fn a_kernel_is_old_or_pretends() {
        let old = |release: &str| {
            let release = release.to_owned();
            told(&facts(), SetupError::OldKernel { release, missing: "something" })
        };
        assert!(old("5.10.0").contains("Linux 6.1 or later"));
        assert!(old("5.10 (pretended)").contains("unset TAMAM_PRETEND_KERNEL"));
        let bare = told(&facts(), SetupError::NotBuilt { release: "6.12".to_owned() });
        assert!(bare.contains("CONFIG_IO_URING"), "{bare}");
    }

    #[test]
    fn an_unknown_cause_is_told_as_it_is() {
        let lines = advice(&facts(), &io::Error::other("a riddle"));
        assert_eq!(lines, ["environment: nothing is known of this cause: a riddle"]);
    }
}
