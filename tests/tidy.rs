//! What the compiler does not check: layers, unsafe code, the docs of ops, a test for each row of the
//! contract, and what has no place in this repository.
//!
//! Each failure names a file and a line and says what to do. The tables below are meant to be edited,
//! in the change that makes them wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

// ---- what is allowed ----------------------------------------------------------------------------

/// The module map of `src/docs/architecture.md`: a module uses its own folder, and modules of lower
/// numbers. The longest path that fits decides.
const LAYERS: &[(&str, u8)] = &[
    ("lib", 7),
    ("doctor", 7),
    ("compat", 7),
    ("runtime", 6),
    ("tls", 6),
    ("net", 5),
    ("ops", 4),
    ("time", 4),
    ("metrics", 4),
    ("signal", 4),
    ("context", 3),
    ("blocking", 3),
    ("driver", 2),
    ("executor", 2),
    ("net::resolver", 2),
    ("time::wheel", 2),
    ("time::timers", 2),
    ("time::Timers", 2),
    ("buf", 1),
    ("panics", 0),
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

/// Files of `src` that may contain unsafe code: with `#![allow(unsafe_code)]` at their head, or, in a
/// parent of files that are not to inherit it, `#[allow(unsafe_code)]` on the items.
const UNSAFE: &[(&str, Allow)] = &[
    ("src/buf/batch.rs", Allow::File),
    ("src/buf/erased.rs", Allow::File),
    ("src/buf/fill.rs", Allow::File),
    ("src/buf/impls.rs", Allow::File),
    ("src/buf/mod.rs", Allow::Items),
    ("src/buf/outgoing.rs", Allow::File),
    ("src/compat/futures_io.rs", Allow::File),
    ("src/compat/hyper.rs", Allow::File),
    ("src/compat/tokio_io.rs", Allow::File),
    ("src/driver/buffer_ring.rs", Allow::File),
    ("src/driver/epoll.rs", Allow::File),
    ("src/driver/op.rs", Allow::Items),
    ("src/driver/ring.rs", Allow::File),
    ("src/executor/cell.rs", Allow::File),
    ("src/executor/counts.rs", Allow::File),
    ("src/executor/queue.rs", Allow::File),
    ("src/executor/task.rs", Allow::File),
    ("src/executor/waker.rs", Allow::File),
    ("src/net/connection/poll.rs", Allow::File),
    ("src/ops/accept.rs", Allow::File),
    ("src/ops/connect.rs", Allow::File),
    ("src/ops/recv.rs", Allow::File),
    ("src/ops/send.rs", Allow::File),
    ("src/sys/addr.rs", Allow::File),
    ("src/sys/descriptor.rs", Allow::File),
    ("src/sys/epoll.rs", Allow::File),
    ("src/sys/eventfd.rs", Allow::File),
    ("src/sys/fork.rs", Allow::File),
    ("src/sys/memory.rs", Allow::File),
    ("src/sys/option.rs", Allow::File),
    ("src/sys/poll.rs", Allow::File),
    ("src/sys/process.rs", Allow::File),
    ("src/sys/resolve.rs", Allow::File),
    ("src/sys/signal.rs", Allow::File),
    ("src/sys/socket.rs", Allow::File),
    ("src/sys/time.rs", Allow::File),
    ("src/time/timeout.rs", Allow::File),
    ("src/tls/poll.rs", Allow::File),
];

#[derive(PartialEq)]
enum Allow {
    File,
    Items,
}

/// Rows of the contract without a test in `tests/`, and why.
const ROWS_WITHOUT_TEST: &[(&str, &str)] = &[
    ("AC9", "the kernel does not give these errors on demand: for a simulated one"),
    ("CL13", "a compile_fail doc test at `TcpStream::into_std`"),
];

/// Sections of `src/docs/semantics.md` whose rows have a test each.
const TESTED_SECTIONS: &[&str] = &[
    "TCP",
    "TLS",
    "Runtimes",
    "Tasks",
    "Time",
    "The process",
    "Host names",
    "Blocking",
    "Signals",
];

/// The top level of the repository.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "benches",
    "tests",
    "examples",
    "ci",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rustfmt.toml",
    ".gitignore",
    ".ci",
    ".git",
    "target",
];

/// Texts that no file contains, in two halves so that this one does not either; and what to do.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("tod", "o!", "finish it, or leave it out"),
    ("unimplem", "ented!", "finish it, or leave it out"),
    ("db", "g!(", "remove it"),
    ("#[ign", "ore", "run the test, or remove it; a test that cannot run here says `skipped: …`"),
    ("/wor", "k/", "no path of one machine"),
    ("/roo", "t/", "no path of one machine"),
];

// ---- the checks ---------------------------------------------------------------------------------

#[test]
fn modules_use_what_lies_below_them() {
    let mut report = Report::default();
    let mut excused: BTreeSet<&(&str, &str, &str)> = BTreeSet::new();
    for file in sources() {
        let module = file.module();
        let Some(own) = layer(&module) else {
            let text = "put it into LAYERS in tests/tidy.rs, and into src/docs/architecture.md";
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
        assert!(!stale, "tests/tidy.rs: {exception:?} is an exception of nothing: remove it");
    }
    report.finish();
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    let mut report = Report::default();
    for file in sources() {
        let code = file.code();
        let uses: Vec<usize> = numbered(&code)
            .filter(|(_, text)| unsafe_uses(text).next().is_some())
            .map(|(line, _)| line)
            .collect();
        let allow = UNSAFE.iter().find(|(name, _)| *name == file.name).map(|(_, allow)| allow);
        let first_item = numbered(&code)
            .find(|(_, text)| !text.trim().is_empty() && !text.trim().starts_with("#!["))
            .map_or(usize::MAX, |(line, _)| line);
        let at_head = numbered(&code)
            .any(|(line, text)| line < first_item && text.contains("#![allow(unsafe_code)]"));
        match (allow, uses.first()) {
            (None, Some(line)) => report.add(
                &file,
                *line,
                "unsafe code outside the list in tests/tidy.rs: do without, or add the file there"
                    .into(),
            ),
            (Some(_), None) => {
                report.add(&file, 1, "no unsafe code any more: strike it off tests/tidy.rs".into());
            }
            (Some(Allow::File), Some(_)) if !at_head => {
                let text = "put `#![allow(unsafe_code)]` at the head, below the `//!` lines";
                report.add(&file, 1, text.into());
            }
            (Some(Allow::Items), Some(_)) if at_head => {
                let text = "its children inherit this: put `#[allow(unsafe_code)]` on the items";
                report.add(&file, 1, text.into());
            }
            _ => {}
        }
    }
    for (name, _) in UNSAFE {
        assert!(
            root().join(name).exists(),
            "tests/tidy.rs: {name} is gone: strike it off the list"
        );
    }
    report.finish();
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    /// A comment that belongs to a line begins at most so many lines above it.
    const CLOSE: usize = 8;
    let mut report = Report::default();
    for file in rust_files(&["src", "tests", "benches", "examples"]) {
        let code = file.code();
        let raw: Vec<&str> = file.text.lines().collect();
        let of_traits = trait_impl_lines(&code);
        for (line, text) in numbered(&code) {
            for kind in unsafe_uses(text) {
                let above = &raw[line.saturating_sub(1 + CLOSE)..line];
                let has = |mark: &str| {
                    above
                        .iter()
                        .any(|text| text.find("//").is_some_and(|at| text[at..].contains(mark)))
                };
                match kind {
                    Unsafe::Block | Unsafe::Impl if !has("SAFETY:") => report.add(
                        &file,
                        line,
                        "say above it, in `// SAFETY: …`, which guarantee it leans on".into(),
                    ),
                    // The contract of a trait's function stands in the trait.
                    Unsafe::Contract if !has("# Safety") && !of_traits.contains(&line) => {
                        // Long docs: everything down from the last line that is no comment.
                        let docs = raw[..line - 1].iter().rev().take_while(|text| {
                            let text = text.trim_start();
                            text.starts_with("//") || text.starts_with("#[")
                        });
                        if !docs.into_iter().any(|text| text.contains("# Safety")) {
                            let text = "say in `/// # Safety` what the caller has to see to";
                            report.add(&file, line, text.into());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    report.finish();
}

#[test]
fn ops_name_their_opcode_kernel_and_man_page() {
    let mut report = Report::default();
    for file in sources().into_iter().filter(|file| file.name.starts_with("src/ops/")) {
        if file.name.ends_with("/mod.rs") {
            continue;
        }
        let head: String = file.text.lines().take_while(|text| text.starts_with("//!")).collect();
        let names_page = ["(2)", "(7)"].iter().any(|section| head.contains(section));
        if !names_page {
            report.add(&file, 1, "name the man page in the head, such as `send(2)`".into());
        }
        let raw: Vec<&str> = file.text.lines().collect();
        let (mut constructors, mut head) = (0, 1);
        for (line, text) in numbered(&file.library_code()) {
            if text.contains("fn ") {
                head = line;
            }
            let Some((_, result)) = text.split_once("->") else { continue };
            if !words(result).any(|word| word == "Op") {
                continue;
            }
            constructors += 1;
            let docs: Vec<&str> = raw[..head - 1]
                .iter()
                .rev()
                .skip_while(|text| text.trim_start().starts_with("#["))
                .take_while(|text| text.trim_start().starts_with("///"))
                .copied()
                .collect();
            let docs = docs.join("\n");
            if !docs.contains("IORING_OP_") {
                report.add(&file, line, "name its `IORING_OP_…` in its doc".into());
            }
            let names_kernel = docs.split_once("Kernel ").is_some_and(|(_, rest)| {
                rest.split_once('.').is_some_and(|(major, minor)| {
                    major.parse::<u32>().is_ok() && minor.starts_with(|c: char| c.is_ascii_digit())
                })
            });
            if !names_kernel {
                report.add(&file, line, "say since when it is there: `Kernel 5.6`".into());
            }
        }
        if constructors == 0 {
            report.add(&file, 1, "no function here gives an `Op`".into());
        }
    }
    report.finish();
}

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
                "tests/tidy.rs: {row} in ROWS_WITHOUT_TEST is no row: strike it off"
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

#[test]
fn nothing_is_left_lying_about() {
    let mut report = Report::default();
    for file in text_files(&root()) {
        for (line, text) in numbered(&file.text) {
            for (first, second, advice) in FORBIDDEN {
                let whole = format!("{first}{second}");
                let found = text.match_indices(&whole).any(|(at, _)| {
                    // `xdbg!` and `a/work/` are something else.
                    !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
                });
                if found {
                    report.add(&file, line, format!("`{whole}`: {advice}"));
                }
            }
        }
    }
    report.finish();
}

#[test]
fn files_of_src_open_with_what_they_are() {
    let mut report = Report::default();
    for file in sources() {
        // The crate's own doc is the README.
        let opens = match file.name.as_str() {
            "src/lib.rs" => file.text.starts_with("#![doc = include_str!(\"../README.md\")]"),
            _ => file.text.starts_with("//! "),
        };
        if !opens {
            report.add(&file, 1, "open it with a `//!` line: what it is, what it is not".into());
        }
    }
    report.finish();
}

#[test]
fn the_top_level_is_as_agreed() {
    if !root().join(".git").exists() {
        println!("skipped: needs a checkout; a package has files of its own");
        return;
    }
    for entry in fs::read_dir(root()).expect("the repository can be listed") {
        let name = entry.expect("an entry").file_name().into_string().expect("a UTF-8 name");
        assert!(
            TOP_LEVEL.contains(&name.as_str()),
            "{name}: has no place at the top level; put it into a folder, or into TOP_LEVEL in \
             tests/tidy.rs"
        );
    }
}

// ---- reading ------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A text file, by its path from the root.
struct File {
    name: String,
    text: String,
}

/// What is wrong, one line each.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn add(&mut self, file: &File, line: usize, text: String) {
        self.0.push(format!("{}:{line}: {text}", file.name));
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

/// Every text file below `folder`, without what git and cargo keep there.
fn text_files(folder: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name =
            path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped =
                [".git", "target"].iter().any(|skip| path.file_name() == Some(skip.as_ref()));
            if !skipped {
                files.extend(text_files(&path));
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            files.push(File { name, text });
        }
    }
    files
}

fn rust_files(folders: &[&str]) -> Vec<File> {
    let folders = folders.iter().map(|folder| root().join(folder)).filter(|path| path.exists());
    let mut files: Vec<File> = folders.flat_map(|folder| text_files(&folder)).collect();
    files.retain(|file| file.name.ends_with(".rs"));
    files
}

/// The library's files.
fn sources() -> Vec<File> {
    let files = rust_files(&["src"]);
    assert!(files.len() > 20, "the sources are found");
    files
}

impl File {
    /// `src/net/tcp/mod.rs` is `net::tcp`.
    fn module(&self) -> String {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").replace('/', "::")
    }

    /// The text with comments, strings and characters blanked out, line by line as it was.
    fn code(&self) -> String {
        blank(&self.text)
    }

    /// The code without what is compiled for tests only.
    fn library_code(&self) -> String {
        match self.name.ends_with("/tests.rs") || self.name.contains("/tests/") {
            true => String::new(),
            false => without_tests(&self.code()),
        }
    }
}

/// Lines with their numbers, from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Blanks out comments, strings and character literals. Knows raw strings and nested comments.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // Copies line breaks, blanks the rest.
    let skip = |out: &mut String, from: usize, to: usize| {
        out.extend(
            chars[from..to.min(chars.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
    };
    let starts = |at: usize, text: &str| {
        text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while at < chars.len() {
        let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let end = if starts(at, "//") {
            (at..chars.len()).find(|&end| chars[end] == '\n').unwrap_or(chars.len())
        } else if starts(at, "/*") {
            let (mut depth, mut end) = (0, at);
            loop {
                match () {
                    () if end >= chars.len() => break end,
                    () if starts(end, "/*") => (depth, end) = (depth + 1, end + 2),
                    () if starts(end, "*/") => (depth, end) = (depth - 1, end + 2),
                    () => end += 1,
                }
                if depth == 0 {
                    break end;
                }
            }
        } else if !in_word && raw_string_hashes(&chars[at..]).is_some() {
            let (open, hashes) = raw_string_hashes(&chars[at..]).expect("just seen");
            let close: String =
                std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let begin = at + open;
            let end = (begin..chars.len()).find(|&end| starts(end, &close)).unwrap_or(chars.len());
            end + 1 + hashes
        } else if chars[at] == '"' {
            let mut end = at + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if starts(at, "'\\") {
            (at + 3..chars.len()).find(|&end| chars[end] == '\'').map_or(chars.len(), |end| end + 1)
        } else if chars[at] == '\'' && chars.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            out.push(chars[at]);
            at += 1;
            continue;
        };
        skip(&mut out, at, end);
        at = end;
    }
    out
}

/// Of a text that starts with a raw string: the length of its opening, and its hashes.
fn raw_string_hashes(chars: &[char]) -> Option<(usize, usize)> {
    let prefix = chars.iter().take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    if prefix == 0 || prefix > 2 || chars[prefix - 1] != 'r' {
        return None;
    }
    let hashes = chars[prefix..].iter().take_while(|c| **c == '#').count();
    (chars.get(prefix + hashes) == Some(&'"')).then_some((prefix + hashes + 1, hashes))
}

/// Blanks out each item behind `#[cfg(test)]`, up to its semicolon or closing brace.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(&out, start);
        let blanked: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blanked);
        from = start + blanked.len();
    }
    out
}

/// Where the item that starts at `start` ends.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return start + at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Lines inside `impl Trait for Type` blocks.
fn trait_impl_lines(code: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    for (start, _) in code.match_indices("impl") {
        let begins_item = code[..start].rsplit('\n').next().is_some_and(|before| {
            words(before).all(|word| word == "unsafe") && !before.contains(['(', ':', '&'])
        });
        let Some(open) = code[start..].find('{').map(|at| start + at) else { continue };
        if begins_item && words(&code[start..open]).any(|word| word == "for") {
            lines.extend(line_of(open)..=line_of(item_end(code, start)));
        }
    }
    lines
}

// ---- what the checks look for -------------------------------------------------------------------

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
fn expand<'a>(text: &'a str, prefix: &str, found: &mut dyn FnMut(String)) -> &'a str {
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

#[derive(Clone, Copy, PartialEq)]
enum Unsafe {
    Block,
    Impl,
    /// A function or a trait that asks something of its caller.
    Contract,
}

/// The unsafe things that begin on a line of code.
fn unsafe_uses(text: &str) -> impl Iterator<Item = Unsafe> {
    text.match_indices("unsafe").filter_map(move |(at, word)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let rest = text[at + word.len()..].trim_start();
        let named = |keyword: &str| {
            rest.strip_prefix(keyword).is_some_and(|rest| {
                rest.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_')
            })
        };
        match rest {
            _ if rest.starts_with('{') => Some(Unsafe::Block),
            _ if rest.starts_with("impl") => Some(Unsafe::Impl),
            // Not `unsafe fn(…)`, the type of a pointer.
            _ if named("fn ") || named("trait ") => Some(Unsafe::Contract),
            _ if named("extern ") => Some(Unsafe::Block),
            _ => None,
        }
    })
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

// ---- the reader's own tests ---------------------------------------------------------------------

#[test]
fn the_reader_tells_code_from_text() {
    let text = r##"let a = "unsafe { /* }"; // unsafe {
let b = 'x'; let c: &'static str = r#"crate::net"#; /* a /* b */ crate::ops */ let d = '\'';
unsafe { f() }"##;
    let code = blank(text);
    assert_eq!(code.lines().count(), 3);
    assert!(!code.contains("crate::") && code.contains("let d"), "{code}");
    let lines: Vec<usize> = numbered(&code)
        .filter(|(_, text)| unsafe_uses(text).next().is_some())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(lines, [3]);
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
