//! What files and ops say of themselves.

use crate::reader::{Report, numbered, sources, words};

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
            "src/lib.rs" => file.text.starts_with("#![doc = include_str!(\"../README.md\")]"),
            _ => file.text.starts_with("//! "),
        };
        if !opens {
            report.add(&file, 1, "open it with a `//!` line: what it is, what it is not".into());
        }
    }
    report.finish();
}
