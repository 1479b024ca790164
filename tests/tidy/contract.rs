//! The contract, `src/docs/semantics.md`: each of its rows has a test, and comments name rows there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader::{Report, numbered, read, rust_files, trait_impl_lines, words};

/// Rows of the contract without a test in `tests/`, and why.
const ROWS_WITHOUT_TEST: &[(&str, &str)] = &[
    ("AC9", "the kernel does not give these errors on demand: for a simulated one"),
    ("CL13", "a compile_fail doc test at `TcpStream::into_std`"),
];

/// Sections of `src/docs/semantics.md` whose rows have a test each.
const TESTED_SECTIONS: &[&str] = &[
    "TCP",
    "Unix",
    "Pipes",
    "TLS",
    "UDP",
    "Streams",
    "Runtimes",
    "Tasks",
    "Time",
    "The process",
    "Any descriptor",
    "Host names",
    "Blocking",
    "Signals",
    "Errors",
];

#[test]
fn every_row_of_the_contract_has_a_test() {
    let rows = rows();
    assert!(rows.len() > 80, "src/docs/semantics.md: only {} rows found", rows.len());
    let tests = test_names();
    let mut wrong = Vec::new();
    for (line, row) in &rows {
        let excuse = ROWS_WITHOUT_TEST.iter().find(|(name, _)| name == row);
        match (tests.get(&row.to_lowercase()), excuse) {
            (Some(at), Some(_)) => {
                wrong.push(format!("{at}: a test of {row}: strike it off ROWS_WITHOUT_TEST"));
            }
            (None, None) => wrong.push(format!("src/docs/semantics.md:{line}: {row} has no test")),
            _ => {}
        }
    }
    for (row, _) in ROWS_WITHOUT_TEST {
        if !rows.iter().any(|(_, name)| name == row) {
            wrong.push(format!(
                "tests/tidy/contract.rs: {row} in ROWS_WITHOUT_TEST is no row: strike it off"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows; a test of a row is a function in tests/ whose name starts with the row's, such \
         as `fn rx3_…` (`fn rx3_rx4_…` is a test of both):\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n"),
    );
}

#[test]
fn comments_name_rows_that_exist() {
    let text = read("src/docs/semantics.md");
    let mut known: BTreeSet<String> =
        text.lines().filter_map(row_name).map(str::to_owned).collect();
    // Rules are a list: `- **G1** …`.
    known.extend(text.lines().filter_map(|line| {
        line.strip_prefix("- **")?.split_once("**").map(|(name, _)| name.to_owned())
    }));
    let series: BTreeSet<String> = known
        .iter()
        .map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned())
        .collect();
    let mut report = Report::default();
    for file in rust_files(&["src", "tests", "benches", "examples"]) {
        for (line, text) in numbered(&file.text) {
            let Some((_, comment)) = text.split_once("//") else { continue };
            for word in words(comment) {
                let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
                if letters.len() < word.len() && series.contains(letters) && !known.contains(word) {
                    let text =
                        format!("{word} is in src/docs/semantics.md neither a row nor a rule");
                    report.add(&file, line, text);
                }
            }
        }
    }
    report.finish();
}

/// The name in the first cell of a table's line, if it is a row's: letters, then a number.
fn row_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("| ")?.split(" |").next()?;
    let digits = name.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let is_row = (1..=2).contains(&(name.len() - digits.len()))
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_row.then_some(name)
}

/// The rows that have a test each, with their lines.
fn rows() -> Vec<(usize, String)> {
    let text = read("src/docs/semantics.md");
    let mut tested = false;
    let mut rows = Vec::new();
    for (line, text) in numbered(&text) {
        if let Some(title) = text.strip_prefix("# ") {
            tested = TESTED_SECTIONS.iter().any(|section| title.starts_with(section));
        }
        if tested {
            rows.extend(row_name(text).map(|name| (line, name.to_owned())));
        }
    }
    rows
}

/// The rows that tests are named after, and where: `rx3_rx4_…` is a test of both.
fn test_names() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in rust_files(&["tests"]) {
        let code = file.code();
        let mut is_test = false;
        for (line, text) in numbered(&code) {
            let text = text.trim();
            if text.starts_with("#[test]") {
                is_test = true;
            }
            let Some((_, signature)) = text.split_once("fn ").filter(|_| is_test) else { continue };
            is_test = false;
            let name = words(signature).next().unwrap_or_default();
            for part in name.split('_') {
                let letters = part.trim_end_matches(|c: char| c.is_ascii_digit());
                if letters.len() == part.len() || letters.is_empty() || letters.len() > 2 {
                    break;
                }
                found.entry(part.to_owned()).or_insert_with(|| format!("{}:{line}", file.name));
            }
        }
    }
    found
}

#[test]
fn the_reader_finds_rows_and_trait_impls() {
    assert_eq!(row_name("| CX10 | teardown | …"), Some("CX10"));
    assert_eq!(row_name("| row | situation |"), None);
    assert_eq!(row_name("| 5.19 | accept |"), None);
    let lines = trait_impl_lines(
        "struct A;\nunsafe impl B for A {\n    unsafe fn f() {}\n}\nimpl A {\n    unsafe fn g() {}\n}\n",
    );
    assert!(lines.contains(&3) && !lines.contains(&6), "{lines:?}");
}
