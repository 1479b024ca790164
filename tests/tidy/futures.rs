//! Tables of tests that are to be whole: G9, every public future has a line in a test that loops it
//! while it is ready at once; every public type has a row with its auto traits.

use std::collections::BTreeSet;

use crate::documentation::public_items;
use crate::reader::{Report, read, sources, words};

/// The tables of those tests.
const TABLES: [&str; 2] = ["tests/tasks/ready_at_once.rs", "tests/tls/ready_at_once.rs"];

/// Types of futures that public functions return.
const FUTURES: [&str; 8] = [
    "impl Future",
    "Sleep",
    "Timeout<",
    "YieldNow",
    "Next",
    "ShutdownSignal",
    "JoinHandle<",
    "BlockingHandle<",
];

#[test]
fn every_public_future_is_looped_while_it_is_ready() {
    let tables: String = TABLES.iter().map(|table| read(table)).collect();
    let mut report = Report::default();
    let mut count = 0;
    let files = sources();
    for item in public_items() {
        let file = files.iter().find(|file| file.name == item.file).expect("it is a file's");
        let lines = file.text.lines().skip(item.line - 1);
        let mut signature = String::new();
        for line in lines {
            signature += line;
            if line.ends_with(['{', ';', '}']) {
                break;
            }
        }
        let returned = signature.split("->").nth(1).unwrap_or_default().trim_start();
        let is_future = signature.contains("async fn")
            || FUTURES.iter().any(|future| returned.starts_with(future));
        if !is_future {
            continue;
        }
        count += 1;
        if !tables.contains(&format!("\"{}\"", item.name)) {
            let text = format!("`{}` is a future: put a line for it into {TABLES:?}", item.name);
            report.add(file, item.line, text);
        }
    }
    assert!(count > 30, "the futures are found: {count}");
    report.finish();
}

#[test]
fn every_public_type_has_a_row_of_auto_traits() {
    let text = read("tests/auto_traits.rs");
    let rows =
        text.split("rows!(").skip(1).filter_map(|row| row.split_once(");")).map(|(row, _)| row);
    let known: BTreeSet<&str> = rows.flat_map(words).collect();
    let mut report = Report::default();
    let files = sources();
    let is_type = |name: &str| !name.contains("::") && name.starts_with(char::is_uppercase);
    for item in public_items().into_iter().filter(|item| is_type(&item.name)) {
        let file = files.iter().find(|file| file.name == item.file).expect("it is a file's");
        let declared = file.text.lines().nth(item.line - 1).unwrap_or_default();
        if !known.contains(&*item.name) && !declared.contains(" trait ") {
            let text = format!("`{}` has no row in tests/auto_traits.rs", item.name);
            report.add(file, item.line, text);
        }
    }
    report.finish();
}
