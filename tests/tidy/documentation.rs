//! What files and ops say of themselves, and how much of the public surface has an example.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::layers::expand;
use crate::reader::{
    File, Report, closing_angle, item_end, numbered, sources, type_declarations, words,
};

/// How many of a hundred public functions and types have an example in their doc at least.
const EXAMPLES_PERCENT: usize = 60;

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
fn files_of_src_open_with_what_they_are() {
    let mut report = Report::default();
    for file in sources() {
        // The crate's own doc is the README.
        let opens = match file.name.as_str() {
            "src/lib.rs" => file.text.contains("doc = include_str!(\"../README.md\")"),
            _ => file.text.starts_with("//! "),
        };
        if !opens {
            report.add(&file, 1, "open it with a `//!` line: what it is, what it is not".into());
        }
    }
    report.finish();
}

#[test]
fn the_public_surface_has_examples() {
    let items = public_items();
    assert!(items.len() > 80, "the public items are found: {}", items.len());
    let without: Vec<String> = items
        .iter()
        .filter(|item| !item.has_example)
        .map(|item| format!("{}:{}: {}", item.file, item.line, item.name))
        .collect();
    let percent = (items.len() - without.len()) * 100 / items.len();
    println!("{percent} % of {} public functions and types have an example", items.len());
    assert!(
        percent >= EXAMPLES_PERCENT,
        "{percent} % of {} public functions and types have an example, and {EXAMPLES_PERCENT} % are the \
         least; write one, as a program that ends in an assertion, in the doc of one of these:\n{}",
        items.len(),
        without.join("\n"),
    );
}

/// What rustdoc shows: a type, or a function that is no setter.
pub(crate) struct Item {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// `TcpStream::connect`.
    pub(crate) name: String,
    has_example: bool,
}

/// Public types and functions that can be named from outside; methods of such types. Not those of
/// traits, and no setters of builders: functions that take a `self` and give it back.
pub(crate) fn public_items() -> Vec<Item> {
    let files = sources();
    let (modules, exported) = surface(&files);
    let mut items = Vec::new();
    for file in &files {
        let code = file.library_code();
        let is_open = modules.contains(&file.module());
        let is_shown = |name: &str| is_open || exported.contains(name);
        let types = type_declarations(&code);
        let mut add = |line: usize, name: String| {
            let docs = docs_above(&file.text, line);
            if !docs.contains("#[doc(hidden)]") {
                items.push(Item {
                    file: file.name.clone(),
                    line,
                    name,
                    has_example: docs.contains("```"),
                });
            }
        };
        for found in types.iter().filter(|found| found.is_public && is_shown(&found.name)) {
            add(found.line, found.name.clone());
        }
        for function in public_functions(&code) {
            let is_public = match &function.of_type {
                None => is_shown(&function.name),
                // A private type of this file may have the name of a public one elsewhere.
                Some(of) => match types.iter().find(|found| found.name == *of) {
                    Some(found) => found.is_public && is_shown(of),
                    None => exported.contains(of),
                },
            };
            if is_public && !function.is_setter {
                let of = function.of_type.map(|of| of + "::").unwrap_or_default();
                add(function.line, of + &function.name);
            }
        }
    }
    items
}

/// The modules that can be named from outside, and the names that these export from others.
fn surface(files: &[File]) -> (BTreeSet<String>, BTreeSet<String>) {
    let known: BTreeSet<String> = files.iter().map(File::module).collect();
    let (mut modules, mut exported) = (BTreeSet::new(), BTreeSet::new());
    let mut next = vec!["lib".to_owned()];
    while let Some(module) = next.pop() {
        let file = files.iter().find(|file| file.module() == module).expect("it is a file's");
        modules.insert(module.clone());
        let parent = if module == "lib" { String::new() } else { format!("{module}::") };
        let code = file.library_code();
        for (start, keyword) in code.match_indices("pub use ") {
            expand(&code[start + keyword.len()..], "", &mut |path| {
                let path = path.trim_start_matches("self::").trim_start_matches("crate::");
                next.extend([path.to_owned(), format!("{parent}{path}")]);
                exported.extend(path.rsplit("::").next().map(str::to_owned));
            });
        }
        for (start, keyword) in code.match_indices("pub mod ") {
            next.extend(
                words(&code[start + keyword.len()..]).next().map(|it| format!("{parent}{it}")),
            );
        }
        next.retain(|path| known.contains(path) && !modules.contains(path));
    }
    (modules, exported)
}

/// A function with `pub` before it, and nothing in parentheses behind that.
struct Function {
    pub(crate) line: usize,
    pub(crate) name: String,
    of_type: Option<String>,
    is_setter: bool,
}

fn public_functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let blocks = inherent_impls(code);
    let mut begin = 0;
    for (line, text) in numbered(code) {
        let at = begin;
        begin += text.len() + 1;
        let item = text.trim_start();
        let Some(rest) = item.strip_prefix("pub ") else { continue };
        let Some((before, rest)) = rest.split_once("fn ") else { continue };
        let is_function = words(before).all(|word| ["async", "const", "unsafe"].contains(&word));
        let Some(name) = words(rest).next().filter(|_| is_function) else { continue };
        let block = blocks.iter().find(|(range, _)| range.contains(&at));
        let of_type = block.map(|(_, of)| of.clone());
        // In a macro, or in a module that is written out.
        if of_type.is_none() && item.len() < text.len() {
            continue;
        }
        let signature = &code[at..at + code[at..].find(['{', ';']).unwrap_or(code.len() - at)];
        let (takes, gives) = signature.rsplit_once("->").unwrap_or((signature, ""));
        let gives = words(gives).find(|word| *word != "mut").unwrap_or_default();
        let is_setter = words(takes).any(|word| word == "self")
            && (gives == "Self" || of_type.as_deref() == Some(gives));
        found.push(Function { line, name: name.to_owned(), of_type, is_setter });
    }
    found
}

/// Where the blocks of `impl Type` are, and of which type.
fn inherent_impls(code: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    for (start, keyword) in code.match_indices("\nimpl") {
        let start = start + 1;
        let open = start + code[start..].find('{').unwrap_or(0);
        let head = &code[start + keyword.len() - 1..open];
        let head = if head.starts_with('<') { &head[closing_angle(head)..] } else { head };
        if let Some(name) = words(head).next().filter(|_| !words(head).any(|word| word == "for")) {
            found.push((start..item_end(code, start), name.to_owned()));
        }
    }
    found
}

/// The lines of doc and attributes right above a line.
fn docs_above(text: &str, line: usize) -> String {
    let above: Vec<&str> = text.lines().take(line - 1).collect();
    let is_of_item = |text: &&&str| {
        let text = text.trim_start();
        text.starts_with("///") || text.starts_with("#[")
    };
    above.iter().rev().take_while(is_of_item).copied().collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reader_finds_public_functions() {
    let code = "pub fn a() {}\nimpl<T: Fn() -> u8> B<T> {\n    pub async fn c(self: &Rc<Self>) {}\n    \
                pub fn d(mut self, to: u8) -> Self {}\n    pub(crate) fn e() {}\n    pub fn f() -> B<T> {}\n}\n\
                impl D for B {\n    pub fn g() {}\n}\n";
    let found: Vec<_> = public_functions(code)
        .into_iter()
        .map(|it| (it.line, it.of_type.unwrap_or_default() + "::" + &it.name, it.is_setter))
        .collect();
    let expected = [(1, "::a", false), (3, "B::c", false), (4, "B::d", true), (6, "B::f", false)];
    assert_eq!(found, expected.map(|(line, name, is_setter)| (line, name.to_owned(), is_setter)));
}
