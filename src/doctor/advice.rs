//! Which lines of which configuration make an engine work, given why it does not.
//!
//! Nothing is asked of the machine here: `machine.rs` has the answers, `driver/probe.rs` the cause.
//! [`advice`] picks the lines; the functions below it write them. Read next: `display.rs`.

use std::io;

use crate::driver::SetupError;

use super::trial::setup_error;
use super::{Facts, Limit};

/// What to change so that an engine works that failed with `error`: one line for each place.
pub(super) fn advice(facts: &Facts, error: &io::Error) -> Vec<String> {
    let mut places = match setup_error(error) {
        Some(SetupError::Denied { .. }) if facts.is_filtered == Some(false) => {
            return vec![
                "security module: look for io_uring in its log (ausearch -m avc; journalctl -k)"
                    .to_owned(),
            ];
        }
        Some(SetupError::Denied { .. }) => allow_calls(&calls_to_allow(facts)),
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
    // In a container whose manager is known, lines for the other managers are of no use.
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

/// Where to change something, and what to write there.
type Places = Vec<(&'static str, String)>;

/// The denied calls; all calls if it is not known which are denied.
fn calls_to_allow(facts: &Facts) -> Vec<&'static str> {
    let denied: Vec<_> = facts.denied_calls().map(|(call, _)| call).collect();
    if denied.is_empty() { facts.calls.iter().map(|(call, _)| *call).collect() } else { denied }
}

/// For a seccomp filter: what allows these system calls.
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

/// For `kernel.io_uring_disabled` with this value. `group` is `kernel.io_uring_group`, to which the
/// process may be added; if it is negative or not known, the lines leave its number open.
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

/// For RLIMIT_MEMLOCK.
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

/// For RLIMIT_NOFILE. The lines name its hard limit, if the soft one can be raised to that.
fn open_more(limit: Option<Limit>) -> Places {
    // If the hard limit is not above the soft one, root has to raise both.
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
