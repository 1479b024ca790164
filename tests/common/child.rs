//! A test that plays further parts in processes of their own: one that dies, that is traced by
//! strace, or whose ledger cannot balance.
//!
//! The part is the same test function, run again with a name in its environment.

use std::process::{Command, Output, Stdio};

const PART: &str = "TAMAM_TEST_PART";

/// The part that this process plays of the test `name`; `None` in the process that was started by
/// hand.
pub fn part(name: &str) -> Option<String> {
    let part = std::env::var(PART).ok()?;
    part.strip_prefix(name)?.strip_prefix('/').map(str::to_owned)
}

/// The command that plays `part` of the test `name`, behind `launcher` (a program and its
/// arguments) unless that is empty.
pub fn command(name: &str, part: &str, launcher: &[String]) -> Command {
    let binary = std::env::current_exe().expect("a test has a binary");
    let mut command = match launcher {
        [] => Command::new(binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
    };
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, format!("{name}/{part}"))
        .stdin(Stdio::null());
    command
}

/// Plays a part to its end, which must be a good one. Gives what it printed.
pub fn play(name: &str, part: &str, launcher: &[String]) -> String {
    let Output { status, stdout, stderr } =
        command(name, part, launcher).output().expect("the test's own binary can be run");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("-- {part}\n{stdout}{stderr}");
    assert!(status.success(), "{name}, {part}: {status}");
    assert!(stdout.contains("1 passed"), "{name} is not the path of a test");
    stdout + &stderr
}

/// A launcher that runs the part under strace with these injections, such as
/// `io_uring_enter:error=EINTR:when=3+3`. `None`, and a word about it, where strace does not work.
pub fn strace(injections: &[&str]) -> Option<Vec<String>> {
    let calls: Vec<_> = injections.iter().filter_map(|text| text.split(':').next()).collect();
    let mut launcher = vec!["strace".to_owned(), "-f".into(), "-qq".into()];
    launcher.extend(["-o".into(), "/dev/null".into()]);
    launcher.extend(["-e".into(), format!("trace={}", calls.join(","))]);
    for injection in injections {
        launcher.extend(["-e".into(), format!("inject={injection}")]);
    }
    let works = Command::new("strace").args(&launcher[1..]).arg("true").output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(launcher);
    }
    println!("skipped: no strace");
    None
}

/// The numbers of the descriptors that a program started by this process finds open.
pub fn inherited() -> Vec<String> {
    let output = Command::new("sh")
        .args(["-c", "for fd in /proc/$$/fd/*; do test -e \"$fd\" && echo ${fd##*/}; done"])
        .output()
        .expect("there is a shell");
    let text = String::from_utf8(output.stdout).expect("numbers");
    text.lines().map(str::to_owned).collect()
}
