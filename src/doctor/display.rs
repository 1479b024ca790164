//! The report as text. Nothing is decided here.

use std::fmt;
use std::io;

use crate::driver::{Backend, SetupError};

use super::trial::Trial;
use super::{Facts, Limit, Report};

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
            let remarks = remarks(&self.facts, trial);
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

/// What the machine adds to the cause of a denial. Empty if nothing was denied.
fn remarks(facts: &Facts, trial: &Trial) -> Vec<String> {
    let mut lines = Vec::new();
    let cause = trial.cause();
    if !matches!(cause, Some(SetupError::Denied { .. } | SetupError::Disabled { .. })) {
        return lines;
    }
    let denied: Vec<_> = facts
        .denied_calls()
        .map(|(call, errno)| format!("{call} ({})", io::Error::from_raw_os_error(errno)))
        .collect();
    if !denied.is_empty() {
        lines.push(format!("denied: {}", denied.join(", ")));
    }
    lines.extend(match (cause, facts.is_filtered) {
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

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
        write!(f, "{} (may be raised to {})", text(self.soft), text(self.hard))
    }
}

fn name(backend: Backend) -> &'static str {
    if backend == Backend::Epoll { "epoll" } else { "io_uring" }
}
