//! Who may use whom: the module map of `src/docs/architecture.md`.

use std::collections::BTreeSet;

use crate::reader::{Report, numbered, sources, without_tests, words};

/// The module map of `src/docs/architecture.md`: a module uses its own folder, and modules of lower
/// numbers. The longest path that fits decides.
const LAYERS: &[(&str, u8)] = &[
    ("lib", 10),
    ("doctor", 10),
    ("unwind", 10),
    ("compat", 10),
    ("runtime", 9),
    ("tls", 9),
    ("net", 8),
    ("pipe", 9),
    ("stream", 7),
    ("datagram", 7),
    ("ops", 6),
    ("io", 6),
    ("io::readiness", 8),
    ("io::watched", 8),
    ("io::any", 10),
    ("io::duplex", 8),
    ("io::memory", 8),
    ("io::standard", 8),
    ("time", 6),
    ("metrics", 6),
    ("signal", 6),
    ("context", 5),
    ("blocking", 5),
    ("task", 5),
    ("driver", 4),
    ("executor", 4),
    ("net::resolver", 4),
    ("time::wheel", 4),
    ("time::timers", 4),
    ("time::Timers", 4),
    ("queue", 3),
    ("deferred", 2),
    ("buf", 1),
    ("io::error", 1),
    ("io::CallError", 1),
    ("io::errno", 1),
    ("io::truncated", 1),
    ("io::Truncated", 1),
    ("panics", 0),
    ("random", 0),
    ("sys", 0),
    ("sync", 0),
];

/// (file, path it names, why that is right)
const LAYER_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("src/buf/mod.rs", "driver::Chunk", "a re-export: a chunk is a buffer, made by the pool")];

/// Modules of one folder that are not to know each other: (file, word it does not say).
const STRANGERS: &[(&str, &str)] = &[
    ("src/driver/table.rs", "ring"),
    ("src/driver/ring.rs", "table"),
    ("src/time/wheel.rs", "Instant"),
];

/// Where types of the `io-uring` crate may be named.
const RING_TYPES: &[&str] = &["src/driver/", "src/ops/"];

#[test]
fn modules_use_what_lies_below_them() {
    let mut report = Report::default();
    let mut excused: BTreeSet<&(&str, &str, &str)> = BTreeSet::new();
    for file in sources() {
        let module = file.module();
        let Some(own) = layer(&module) else {
            let text =
                "put it into LAYERS in tests/tidy/layers.rs, and into src/docs/architecture.md";
            report.add(&file, 1, text.into());
            continue;
        };
        for (line, path) in crate_paths(&file.library_code()) {
            let Some(used) = layer(&path) else {
                // A re-export at the crate's root, such as `crate::Chunk`, hides where it comes from.
                report.add(&file, line, format!("`crate::{path}`: name the module it is from"));
                continue;
            };
            let exception =
                LAYER_EXCEPTIONS.iter().find(|(name, used, _)| *name == file.name && path == *used);
            excused.extend(exception);
            let same_folder = module.split("::").next() == path.split("::").next();
            if used < own || same_folder || exception.is_some() {
                continue;
            }
            report.add(
                &file,
                line,
                format!(
                    "`{module}` (layer {own}) uses `{path}` (layer {used}): move the code, or what it \
                     needs, or pass it in; see the module map in src/docs/architecture.md"
                ),
            );
        }
        for (name, word) in STRANGERS.iter().filter(|(name, _)| *name == file.name) {
            for (line, text) in numbered(&file.library_code()) {
                if words(text).any(|other| other == *word) {
                    report.add(&file, line, format!("{name} is not to know `{word}`"));
                }
            }
        }
        for (line, text) in numbered(&file.library_code()) {
            let may = RING_TYPES.iter().any(|folder| file.name.starts_with(folder));
            if !may && text.contains("io_uring::") {
                let text =
                    "only src/driver and src/ops name types of the io-uring crate".to_owned();
                report.add(&file, line, text);
            }
        }
    }
    for exception in LAYER_EXCEPTIONS {
        let stale = !excused.contains(exception);
        assert!(
            !stale,
            "tests/tidy/layers.rs: {exception:?} is an exception of nothing: remove it"
        );
    }
    report.finish();
}

fn layer(path: &str) -> Option<u8> {
    LAYERS
        .iter()
        .filter(|(prefix, _)| {
            path == *prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
        })
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, layer)| *layer)
}

/// Every path that starts with `crate::`, imported or written out, one for each name in braces.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (start, prefix) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..start].matches('\n').count() + 1;
        expand(&code[start + prefix.len()..], "", &mut |path| paths.push((line, path)));
    }
    paths
}

/// Reads one use tree (or path), calls `found` for each of its leaves, and returns what follows it.
pub fn expand<'a>(text: &'a str, prefix: &str, found: &mut dyn FnMut(String)) -> &'a str {
    let end =
        text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    let mut rest = &text[end..];
    let goes_on = path.ends_with("::") || path.is_empty() && rest.starts_with('{');
    if !goes_on {
        let whole = path.trim_end_matches("::self").to_owned();
        found(if whole == "self" { prefix.trim_end_matches("::").to_owned() } else { whole });
        return rest;
    }
    if !rest.starts_with('{') {
        found(path.trim_end_matches("::").to_owned());
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        match rest.chars().next() {
            None => return rest,
            Some('}') => return &rest[1..],
            Some(_) => {}
        }
        let before = rest.len();
        rest = expand(rest, &path, found);
        // `name as other`
        let stop = rest.find([',', '}']).unwrap_or(rest.len());
        rest = &rest[stop..];
        assert!(rest.len() < before, "a use tree gets shorter");
    }
}

#[test]
fn the_reader_finds_paths() {
    let code = "use crate::sys::{self, IntOption, addr::{SockAddr as S, X}};\nfn f(x: crate::ops::send::Batch) {}\n\
                use $crate::no; #[cfg(test)]\nmod tests { use crate::run; }\nuse crate::{context, time::Timers};";
    let paths: Vec<String> =
        crate_paths(&without_tests(code)).into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        paths,
        [
            "sys",
            "sys::IntOption",
            "sys::addr::SockAddr",
            "sys::addr::X",
            "ops::send::Batch",
            "context",
            "time::Timers"
        ]
    );
}
