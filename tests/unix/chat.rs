//! The example `unix_chat` with real peers: `nc`, and programs of its own.

use std::process::Command;

use crate::common::example;
use crate::common::peer::{Peer, has, on_each_engine};

/// 1 a client of its own and `nc` join; 2 what one says the other sees, with the sender's process; 3 a
/// file that is passed arrives opened; 4 a client that floods without reading is dropped, the others stay;
/// 5 SIGTERM ends the server, and its file is gone.
#[test]
fn unix_chat_hands_lines_and_files_on() {
    on_each_engine("chat", |engine, folder| {
        let path = folder.file("chat");
        let run = |args: &[&str]| {
            let mut command = example::command("unix_chat");
            command.args(args).env("TAMAM_BACKEND", engine);
            command
        };
        let server = Peer::start(&mut run(&["--serve", &path]));
        server.wait_for("READY");
        let listener = Peer::start(&mut run(&["--join", &path]));
        listener.wait_for("READY");

        let said = run(&["--join", &path, "--say", "hello \u{1b}[31m"]).status();
        assert!(said.expect("it can be run").success());
        let line = listener.wait_for("hello");
        assert!(line.contains("\\u{1b}") && !line.contains('\u{1b}'), "{line}");

        let file = folder.write("file", [7; 1234]);
        let said = run(&["--join", &path, "--say", "see this", "--file", &file]).status();
        assert!(said.expect("it can be run").success());
        listener.wait_for("see this");
        listener.wait_for("with a file of 1234 bytes");

        let missing = run(&["--join", &path, "--say", "x", "--file", "/nonsense"]).output();
        let text = String::from_utf8_lossy(&missing.expect("it can be run").stderr).into_owned();
        assert!(text.contains("/nonsense: No such file"), "{text}");

        if has(&["nc"]) {
            let mut nc = Peer::start(Command::new("nc").args(["-U", &path]));
            nc.write("from nc\n");
            listener.wait_for("from nc");
            let said = run(&["--join", &path, "--say", "to nc", "--file", &file]).status();
            assert!(said.expect("it can be run").success());
            nc.wait_for("to nc");
            nc.close_stdin();
            listener.signal(libc::SIGSTOP); // it reads no more
            for number in 0..40 {
                let text = format!("{number} {}", "x".repeat(4000));
                let said = run(&["--join", &path, "--say", &text]).status();
                assert!(said.expect("it can be run").success());
            }
            listener.signal(libc::SIGCONT);
        }
        let second = run(&["--serve", &path]).output().expect("it can be run");
        let text = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success() && text.contains("Address already in use"), "{text}");
        assert!(text.contains(&path), "{text}");

        server.signal(libc::SIGTERM);
        let (status, text) = server.end();
        assert!(status.success() && !text.contains("panicked"), "{status}: {text}");
        assert!(!std::path::Path::new(&path).exists(), "its file is gone");
        let late = run(&["--join", &path]).output().expect("it can be run");
        assert!(String::from_utf8_lossy(&late.stderr).contains("No such file"));
        let (status, _) = listener.end();
        assert!(status.success(), "the server has gone");
    });
}
