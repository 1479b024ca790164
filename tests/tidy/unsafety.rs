//! Unsafe code: where it may be, and that it says why it is sound.

use crate::reader::{
    Report, Unsafe, numbered, root, rust_files, sources, trait_impl_lines, unsafe_uses,
};

/// Files of `src` that may contain unsafe code: with `#![allow(unsafe_code)]` at their head, or, in a
/// parent of files that are not to inherit it, `#[allow(unsafe_code)]` on the items.
const UNSAFE: &[(&str, Allow)] = &[
    ("src/buf/batch.rs", Allow::File),
    ("src/buf/erased.rs", Allow::File),
    ("src/buf/fill.rs", Allow::File),
    ("src/buf/impls.rs", Allow::File),
    ("src/buf/message.rs", Allow::File),
    ("src/buf/mod.rs", Allow::Items),
    ("src/buf/outgoing.rs", Allow::File),
    ("src/buf/parcel.rs", Allow::File),
    ("src/buf/returning.rs", Allow::File),
    ("src/compat/at_home.rs", Allow::File),
    ("src/compat/futures_io.rs", Allow::File),
    ("src/compat/tokio_io.rs", Allow::File),
    ("src/driver/buffer_ring.rs", Allow::File),
    ("src/driver/descriptors.rs", Allow::Items),
    ("src/driver/epoll.rs", Allow::File),
    ("src/driver/incoming.rs", Allow::File),
    ("src/driver/op.rs", Allow::Items),
    ("src/driver/ring.rs", Allow::File),
    ("src/executor/cell.rs", Allow::File),
    ("src/executor/counts.rs", Allow::File),
    ("src/executor/queue.rs", Allow::File),
    ("src/executor/task.rs", Allow::File),
    ("src/executor/waker.rs", Allow::File),
    ("src/ops/accept.rs", Allow::File),
    ("src/ops/connect.rs", Allow::File),
    ("src/ops/poll.rs", Allow::File),
    ("src/ops/recv.rs", Allow::File),
    ("src/ops/recvmsg.rs", Allow::File),
    ("src/ops/send.rs", Allow::File),
    ("src/ops/sendmsg.rs", Allow::File),
    ("src/stream/poll.rs", Allow::File),
    ("src/sys/addr.rs", Allow::File),
    ("src/sys/datagram.rs", Allow::File),
    ("src/sys/descriptor.rs", Allow::File),
    ("src/sys/epoll.rs", Allow::File),
    ("src/sys/eventfd.rs", Allow::File),
    ("src/sys/fork.rs", Allow::File),
    ("src/sys/memory.rs", Allow::File),
    ("src/sys/option.rs", Allow::File),
    ("src/sys/pipe.rs", Allow::File),
    ("src/sys/poll.rs", Allow::File),
    ("src/sys/process.rs", Allow::File),
    ("src/sys/resolve.rs", Allow::File),
    ("src/sys/signal.rs", Allow::File),
    ("src/sys/socket.rs", Allow::File),
    ("src/sys/standard.rs", Allow::File),
    ("src/sys/time.rs", Allow::File),
    ("src/time/timeout.rs", Allow::File),
];

#[derive(PartialEq)]
enum Allow {
    File,
    Items,
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
                "unsafe code outside the list in tests/tidy/unsafety.rs: do without, or add the file there"
                    .into(),
            ),
            (Some(_), None) => {
                report.add(&file, 1, "no unsafe code any more: strike it off tests/tidy/unsafety.rs".into());
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
            "tests/tidy/unsafety.rs: {name} is gone: strike it off the list"
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
