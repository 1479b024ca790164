//! Reads the repository: files, lines, code without its comments and strings, items.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A text file, by its path from the root.
pub struct File {
    pub name: String,
    pub text: String,
}

/// What is wrong, one line each.
#[derive(Default)]
pub struct Report(Vec<String>);

impl Report {
    pub fn add(&mut self, file: &File, line: usize, text: String) {
        self.0.push(format!("{}:{line}: {text}", file.name));
    }

    pub fn finish(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

/// Every text file below `folder`, without what git and cargo keep there.
pub fn text_files(folder: &Path) -> Vec<File> {
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

pub fn rust_files(folders: &[&str]) -> Vec<File> {
    let folders = folders.iter().map(|folder| root().join(folder)).filter(|path| path.exists());
    let mut files: Vec<File> = folders.flat_map(|folder| text_files(&folder)).collect();
    files.retain(|file| file.name.ends_with(".rs"));
    files
}

/// The library's files.
pub fn sources() -> Vec<File> {
    let files = rust_files(&["src"]);
    assert!(files.len() > 20, "the sources are found");
    files
}

impl File {
    /// `src/net/tcp/mod.rs` is `net::tcp`.
    pub fn module(&self) -> String {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").replace('/', "::")
    }

    /// The text with comments, strings and characters blanked out, line by line as it was.
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// The code without what is compiled for tests only.
    pub fn library_code(&self) -> String {
        match self.name.ends_with("/tests.rs") || self.name.contains("/tests/") {
            true => String::new(),
            false => without_tests(&self.code()),
        }
    }
}

/// Lines with their numbers, from 1.
pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Blanks out comments, strings and character literals. Knows raw strings and nested comments.
pub fn blank(text: &str) -> String {
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
pub fn without_tests(code: &str) -> String {
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
pub fn item_end(code: &str, start: usize) -> usize {
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
pub fn trait_impl_lines(code: &str) -> BTreeSet<usize> {
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

/// A struct, enum, union or trait.
pub struct Declaration {
    pub line: usize,
    pub kind: &'static str,
    pub name: String,
    /// `pub`, and nothing in parentheses behind it.
    pub is_public: bool,
    /// Of a struct.
    pub fields: usize,
}

/// The types that this code declares, wherever: in a function, too. Macros' are not seen.
pub fn type_declarations(code: &str) -> Vec<Declaration> {
    let mut found = Vec::new();
    let mut begin = 0;
    for (line, text) in numbered(code) {
        let at = begin;
        begin += text.len() + 1;
        let item = text.trim_start();
        let (visibility, item) = match item.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => {
                ("pub(…)", rest.split_once(") ").map_or("", |it| it.1))
            }
            Some(rest) if rest.starts_with(' ') => ("pub", &rest[1..]),
            _ => ("", item),
        };
        let item = item.strip_prefix("unsafe ").unwrap_or(item);
        for kind in ["struct", "enum", "union", "trait"] {
            let Some(rest) = item.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')) else {
                continue;
            };
            let Some(name) = words(rest).next().filter(|name| rest.starts_with(name)) else {
                continue;
            };
            let behind = at + text.len() - rest.len() + name.len();
            let fields = if kind == "struct" { count_fields(&code[behind..]) } else { 0 };
            let (name, is_public) = (name.to_owned(), visibility == "pub");
            found.push(Declaration { line, kind, name, is_public, fields });
        }
    }
    found
}

/// How many fields a struct has, from what is behind its name.
fn count_fields(code: &str) -> usize {
    let generics = match code.starts_with('<') {
        true => closing_angle(code),
        false => 0,
    };
    let rest = &code[generics..];
    match rest.find(['{', '(', ';']) {
        // The bounds of a `where` may have parentheses; braces come behind them.
        Some(at) if rest.trim_start().starts_with("where") => {
            rest.find('{').map_or(0, |open| pieces(&rest[open.max(at)..]).0)
        }
        Some(at) if rest[at..].starts_with(';') => 0,
        Some(at) => pieces(&rest[at..]).0,
        None => 0,
    }
}

/// Where the bracket closes that a text opens with.
pub fn closing_angle(code: &str) -> usize {
    pieces(code).1
}

/// Of a text that opens with a bracket: how many pieces the commas in it make, and where it closes.
fn pieces(code: &str) -> (usize, usize) {
    let (mut depth, mut count, mut is_empty, mut before) = (0usize, 0, true, ' ');
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' | '<' => {
                is_empty &= depth == 0;
                depth += 1;
            }
            // Not the arrow of a function's type.
            '}' | ')' | ']' | '>' if before != '-' => {
                depth -= 1;
                if depth == 0 {
                    return (count + usize::from(!is_empty), at + 1);
                }
            }
            ',' if depth == 1 => {
                count += usize::from(!is_empty);
                is_empty = true;
            }
            c => is_empty &= c.is_whitespace(),
        }
        before = c;
    }
    (count, code.len())
}

#[derive(Clone, Copy, PartialEq)]
pub enum Unsafe {
    Block,
    Impl,
    /// A function or a trait that asks something of its caller.
    Contract,
}

/// The unsafe things that begin on a line of code.
pub fn unsafe_uses(text: &str) -> impl Iterator<Item = Unsafe> {
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
fn the_reader_finds_types_and_counts_fields() {
    let code = "pub struct A;\nstruct B<F: Fn(u8) -> u8>(F, pub u8);\npub(crate) struct C<T>\nwhere\n    T: Fn(u8),\n\
                {\n    #[cfg(x, y)]\n    a: Map<u8, T>,\n    b: fn(u8, u8) -> u8,\n}\nfn f() {\n    enum D {}\n}\n\
                struct E {}\npub unsafe trait F {}\nlet structure = 1;\n";
    let found: Vec<_> = type_declarations(code)
        .into_iter()
        .map(|it| (it.line, it.kind, it.name, it.is_public, it.fields))
        .collect();
    let expected = [
        (1, "struct", "A", true, 0),
        (2, "struct", "B", false, 2),
        (3, "struct", "C", false, 2),
        (12, "enum", "D", false, 0),
        (14, "struct", "E", false, 0),
        (15, "trait", "F", true, 0),
    ];
    assert_eq!(
        found,
        expected.map(|(line, kind, name, public, n)| (line, kind, name.to_owned(), public, n))
    );
}
