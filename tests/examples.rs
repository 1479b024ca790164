//! Every example does what its first comment says: how it is run, and what it prints.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use common::example::{self, Echo};

/// How a run of an example ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn run(name: &str, args: &[&str]) -> Ended {
    let start = Instant::now();
    let output = example::command(name).args(args).output().expect("the example can be run");
    let took = start.elapsed();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it prints text"));
    println!("-- {name} {args:?}\n{stdout}{stderr}");
    Ended { code: output.status.code(), stdout, stderr, took }
}

/// The indented blocks of the comment that an example starts with.
fn blocks(source: &str) -> Vec<Vec<&str>> {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
    let mut blocks = vec![Vec::new()];
    for line in comment {
        match line.strip_prefix("     ") {
            Some(code) => blocks.last_mut().expect("there is one").push(code),
            None => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// Seconds with a decimal, as the examples print them.
fn seconds(word: &str) -> Option<f64> {
    word.contains('.').then(|| word.parse().ok())?
}

/// Lines with their times left out, which differ from run to run.
fn timeless<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let word = |word: &'a str| if seconds(word).is_some() { "_" } else { word };
    lines.into_iter().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// Every example is here, says how it is run, and is run by a test of this file.
#[test]
fn every_example_is_known() {
    const KNOWN: [&str; 3] = ["echo", "staggered", "tasks"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(&folder).expect("the examples are there");
    let names: BTreeSet<String> = files
        .map(|file| file.expect("it can be read").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().eq(KNOWN), "a test for each of {names:?}, please");
    for name in names {
        let source =
            std::fs::read_to_string(folder.join(format!("{name}.rs"))).expect("it is text");
        let blocks = blocks(&source);
        let usage = &blocks.first().expect("it says how it is run")[0];
        let runs = usage.split(' ').collect::<Vec<_>>();
        assert_eq!(runs[..2], ["cargo", "run"], "{name}");
        assert!(usage.contains(&format!("--example {name}")), "{name}: {usage}");
    }
}

/// Two naps of a second take one second: both start before either is over.
#[test]
fn tasks_run_together() {
    let ended = run("tasks", &[]);
    assert_eq!(ended.code, Some(0));
    let promised = &blocks(include_str!("../examples/tasks.rs"))[1];
    assert_eq!(timeless(ended.stdout.lines()), timeless(promised.iter().copied()));
    assert!(ended.stderr.contains("three has no good morning"), "the panic's own message");
    assert!(ended.took >= Duration::from_secs(1), "{:?}", ended.took);
    // One second on a machine with nothing else to do.
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
}

/// Each visit has waited for its time, and none for another's end.
#[test]
fn staggered_connects_in_turn() {
    let ended = run("staggered", &[]);
    assert_eq!(ended.code, Some(0));
    let promised = &blocks(include_str!("../examples/staggered.rs"))[1];
    assert_eq!(timeless(ended.stdout.lines()), timeless(promised.iter().copied()));
    for (i, line) in ended.stdout.lines().enumerate() {
        let at = line.split(' ').next().and_then(seconds).expect("a time comes first");
        assert!(at > 0.4 * i as f64 - 0.06, "{line}: too early"); // rounded to a tenth
    }
    assert!(ended.took >= Duration::from_millis(1600), "{:?}", ended.took);
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_eq!(ended.stderr, "");
}

/// The self-test serves for two seconds, verifies, and prints what it has measured.
#[test]
fn echo_tests_itself() {
    let ended = run("echo", &["--self-test"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.took >= Duration::from_secs(2), "{:?}", ended.took);
    let mut lines = ended.stdout.lines();
    let head = lines.next().expect("a line about the load");
    assert!(head.starts_with("50 connections, 64 B each way, "), "{head}");
    for figure in ["requests/s", "system calls/request", "completions/enter", "bytes verified"] {
        let line = lines.next().unwrap_or_default();
        let number = line.strip_prefix(figure).map(str::trim).map(str::parse::<f64>);
        assert!(matches!(number, Some(Ok(number)) if number > 0.0), "{figure}: {line:?}");
    }
    let features = lines.next().and_then(|line| line.strip_prefix("ring features"));
    assert!(features.is_some_and(|features| !features.trim().is_empty()));
    assert_eq!(lines.next(), None);
}

/// What makes no sense is refused with the usage and code 2; what the system refuses, with its
/// reason and code 1. Nothing is printed where a script would look for `READY`.
#[test]
fn echo_refuses() {
    let nonsense: [&[&str]; 9] = [
        &["--port"],
        &["--port", "x"],
        &["--port", "65536"],
        &["--port", "-1"],
        &["--size", "4k"],
        &["--size", "99999999999999999999"],
        &["--mode", "loud"],
        &["--what"],
        &["extra"],
    ];
    for args in nonsense {
        let ended = run("echo", args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        let (reason, usage) = ended.stderr.split_once('\n').expect("two lines");
        let wrong = args.last().expect("there is one");
        assert!(reason.contains(wrong), "{args:?}: {reason}");
        assert!(usage.starts_with("usage: echo "), "{args:?}: {usage}");
    }
    let taken = Echo::start(&[]);
    let taken = taken.addr.port().to_string();
    for (args, reason) in [(["--size", "0"], "buffer"), (["--port", taken.as_str()], "in use")] {
        let ended = run("echo", &args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(ended.stderr.starts_with("echo: ") && ended.stderr.contains(reason), "{args:?}");
    }
}
