//! What has no place in this repository.

use std::fs;

use crate::reader::{Report, numbered, root, text_files};

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
             tests/tidy/repository.rs"
        );
    }
}
