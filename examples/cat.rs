//! Copies standard input to standard output, whatever they are: terminals, pipes, files.
//!
//!     cargo run --release --example cat < Cargo.toml
//!     seq 3 | cargo run --release --example cat -- -n | tail -1
//!
//! With `-n` each line gets its number. Ctrl-C or SIGTERM ends it; what was read by then is written
//! first, unless a second one comes. A reader that has gone is no failure, as with `seq 100000 | cat |
//! head -1`.

use std::io;
use std::pin::pin;
use std::process::ExitCode;

use futures_util::future::{Either, select};
use tamam::io::{Lines, Stdin, Stdout, copy, stderr, stdin, stdout};

const USAGE: &str = "usage: cat [-n]";

fn main() -> ExitCode {
    let numbered = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("-n") => true,
        Some("--help") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("unknown argument: {other}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    tamam::run(async {
        match cat(numbered).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                // If stderr takes no text either, the code says it alone.
                if let Ok(stderr) = stderr() {
                    let _ = stderr.send_all(format!("cat: {error}\n")).await;
                }
                ExitCode::FAILURE
            }
        }
    })
}

async fn cat(numbered: bool) -> io::Result<()> {
    let (stdin, stdout) = (stdin()?, stdout()?);
    let interrupted = tamam::signal::shutdown();
    let copied = Box::pin(async {
        match numbered {
            true => number(&stdin, &stdout).await,
            false => copy(&stdin, &stdout).await.map(drop),
        }
    });
    match select(copied, interrupted).await {
        Either::Left((copied, _)) => copied,
        // The rest of a piece that was begun is written, unless a second signal comes.
        Either::Right((_signal, copied)) => {
            drop(copied);
            match select(pin!(stdout.shutdown()), tamam::signal::shutdown()).await {
                Either::Left((flushed, _)) => flushed,
                Either::Right(_) => Ok(()),
            }
        }
    }
}

async fn number(stdin: &Stdin, stdout: &Stdout) -> io::Result<()> {
    let mut lines = Lines::new(stdin);
    let mut number = 0;
    while let Some(line) = lines.next_line().await? {
        number += 1;
        stdout.send_all(format!("{number:6}\t{line}\n")).await?;
    }
    Ok(())
}
