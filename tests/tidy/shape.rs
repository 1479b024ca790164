//! The shape of the code: how long a file is, how much a struct holds, that a name means one thing, and
//! that borrows end by themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader::{File, Report, numbered, read, root, rust_files, sources, type_declarations};

/// A file that is longer is about more than one thing.
const LINES_MAX: usize = 600;

/// Files that are longer for now, and what becomes of them.
const LONG_FILES: &[(&str, &str)] = &[];

/// A struct that has more is several things that can be told apart.
const FIELDS_MAX: usize = 8;

/// Structs of more fields that are plain data: (file, struct, why no part of it can be told apart).
const PLAIN_DATA: &[(&str, &str, &str)] = &[
    (
        "src/executor/task.rs",
        "Header",
        "the task's header: counts and links at the head of one allocation",
    ),
    ("src/metrics.rs", "Metrics", "counters"),
    ("src/net/tcp/options.rs", "TcpOptions", "settings"),
    ("src/runtime.rs", "Builder", "settings"),
];

/// Structs of more fields that are to become several: (file, struct).
const TO_BE_SPLIT: &[(&str, &str)] = &[];

/// Names that more than one type of `src` has for now: one of them is to be renamed.
const SAME_NAMES: &[&str] = &[];

/// Names of `src` that std's prelude or `std::marker` has too, for now: (file, type).
const SHADOWS: &[(&str, &str)] = &[];

/// What everybody takes for std's.
const KNOWN_TO_ALL: &[&str] = &[
    "AsMut",
    "AsRef",
    "Box",
    "Clone",
    "Copy",
    "Default",
    "DoubleEndedIterator",
    "Drop",
    "Eq",
    "Err",
    "ExactSizeIterator",
    "Extend",
    "Fn",
    "FnMut",
    "FnOnce",
    "From",
    "FromIterator",
    "Future",
    "Into",
    "IntoFuture",
    "IntoIterator",
    "Iterator",
    "None",
    "Ok",
    "Option",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "PhantomData",
    "PhantomPinned",
    "Result",
    "Send",
    "Sized",
    "Some",
    "String",
    "Sync",
    "ToOwned",
    "ToString",
    "TryFrom",
    "TryInto",
    "Unpin",
    "Vec",
];

/// Folders whose state is behind cells, where a `drop(…);` ends a borrow by hand.
const BORROWING: &[&str] = &["src/net/", "src/stream/", "src/tls/"];

/// How many of those there may be: a borrow is better a block, or ends in `receiving`, `sending` and
/// their like, which also do what the borrow kept from being done.
const DROPS_MAX: usize = 14;

#[test]
fn files_are_short() {
    let mut report = Report::default();
    for file in rust_files(&["src", "tests", "benches", "examples"]) {
        let len = file.text.lines().count();
        let is_excused = LONG_FILES.iter().any(|(name, _)| *name == file.name);
        if len > LINES_MAX && !is_excused {
            let text = format!(
                "{len} lines, and {LINES_MAX} are the limit: make a folder of it, a module for each topic"
            );
            report.add(&file, len, text);
        }
    }
    for (name, _) in LONG_FILES {
        let is_long = root().join(name).exists() && read(name).lines().count() > LINES_MAX;
        assert!(is_long, "{name} is long no more: strike it off LONG_FILES in tests/tidy/shape.rs");
    }
    report.finish();
}

#[test]
fn structs_have_few_fields() {
    let mut report = Report::default();
    let mut large = BTreeSet::new();
    for file in sources() {
        for found in type_declarations(&file.library_code()) {
            if found.kind != "struct" || found.fields <= FIELDS_MAX {
                continue;
            }
            let is = |(name, of): (&str, &str)| name == file.name && of == found.name;
            let is_data = PLAIN_DATA.iter().any(|(name, of, _)| is((name, of)));
            let is_excused = is_data || TO_BE_SPLIT.iter().any(|entry| is(*entry));
            if !is_excused {
                let text = format!(
                    "`{}` has {} fields, and {FIELDS_MAX} are the limit: put those that change together \
                     into a struct of their own",
                    found.name, found.fields
                );
                report.add(&file, found.line, text);
            }
            large.insert((file.name.clone(), found.name));
        }
    }
    let listed = PLAIN_DATA.iter().map(|(name, of, _)| (*name, *of));
    for (name, of) in listed.chain(TO_BE_SPLIT.iter().copied()) {
        let is_large = large.contains(&(name.to_owned(), of.to_owned()));
        assert!(is_large, "{name}: no `{of}` of so many fields: strike it off tests/tidy/shape.rs");
    }
    report.finish();
}

#[test]
fn a_name_is_one_type() {
    let mut report = Report::default();
    let files = sources();
    let mut places: BTreeMap<String, Vec<(&File, usize)>> = BTreeMap::new();
    for file in &files {
        for found in type_declarations(&file.library_code()) {
            places.entry(found.name).or_default().push((file, found.line));
        }
    }
    for (name, of_name) in &places {
        let [(first, line), others @ ..] = &of_name[..] else { continue };
        if others.is_empty() || SAME_NAMES.contains(&name.as_str()) {
            continue;
        }
        for (file, at) in others {
            let text =
                format!("`{name}` is a type of {}:{line} too: rename one of them", first.name);
            report.add(file, *at, text);
        }
    }
    for (name, of_name) in &places {
        for (file, line) in of_name.iter().filter(|_| KNOWN_TO_ALL.contains(&name.as_str())) {
            if !SHADOWS.contains(&(file.name.as_str(), name.as_str())) {
                let text = format!("`{name}` is std's for every reader: take another name");
                report.add(file, *line, text);
            }
        }
    }
    for name in SAME_NAMES {
        let is_shared = places.get(*name).is_some_and(|of_name| of_name.len() > 1);
        assert!(is_shared, "`{name}` is one type: strike it off SAME_NAMES in tests/tidy/shape.rs");
    }
    for (file, name) in SHADOWS {
        let is_there =
            places.get(*name).is_some_and(|of| of.iter().any(|(at, _)| at.name == *file));
        assert!(is_there, "{file}: no type `{name}`: strike it off SHADOWS in tests/tidy/shape.rs");
    }
    report.finish();
}

#[test]
fn borrows_end_by_themselves() {
    let mut places = Vec::new();
    for file in sources() {
        if !BORROWING.iter().any(|folder| file.name.starts_with(folder)) {
            continue;
        }
        let code = file.library_code();
        for (line, text) in numbered(&code) {
            let text = text.trim();
            if text.starts_with("drop(") && text.ends_with(");") {
                places.push(format!("{}:{line}: {text}", file.name));
            }
        }
    }
    assert!(
        places.len() <= DROPS_MAX,
        "{} `drop(…);`, and {DROPS_MAX} are the limit: let a block end the borrow, or make a method of what \
         is borrowed that gives back what is to be dropped or woken\n{}",
        places.len(),
        places.join("\n"),
    );
}
