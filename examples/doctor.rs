//! Whether io_uring can be used here, and if not: why, what is used instead, and what to change.
//!
//!     cargo run --example doctor
//!
//! Start it where a service is going to run, in its container or unit; or have the service itself
//! print `tamam::doctor()` when it is asked to. It ends with 0 if io_uring can be used, with 1 if only
//! epoll can, and with 2 if no runtime starts.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let report = tamam::doctor();
    // Whoever reads no further has seen enough.
    let _ = write!(io::stdout(), "{report}");
    match (report.backend(), report.ring_is_usable()) {
        (None, _) => ExitCode::from(2),
        (Some(_), true) => ExitCode::SUCCESS,
        (Some(_), false) => ExitCode::from(1),
    }
}
