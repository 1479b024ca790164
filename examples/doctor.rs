//! Whether io_uring can be used here, and if not: why, what is used instead, and what to change.
//!
//!     cargo run --example doctor
//!
//! Start it where a service is going to run, in its container or unit. It ends with 0 if io_uring can
//! be used, with 1 if only epoll can, and with 2 if neither can.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let report = tamam::doctor();
    // Whoever reads no further has seen enough.
    let _ = write!(io::stdout(), "{report}");
    match (report.ring_is_usable(), report.epoll_is_usable()) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::from(2),
    }
}
