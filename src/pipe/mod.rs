//! Pipes: bytes in one direction, between tasks, threads and processes of this machine; pipe(7).
//!
//! The ends are streams as sockets are: any number of tasks may use one, a dropped or forgotten
//! future loses nothing, each buffer goes out whole. What a sender has queued when it is dropped goes
//! out as far as the pipe has room; [`shutdown`](Sender::shutdown) waits for all of it.
//!
//! # Examples
//! What a child writes:
//! ```
//! use std::process::Command;
//! use tamam::io::Lines;
//! use tamam::pipe;
//!
//! # tamam::run(async {
//! let (sender, receiver) = pipe::pipe()?;
//! let mut child = Command::new("echo").arg("hello").stdout(sender.into_blocking_fd()?).spawn()?;
//! assert_eq!(Lines::new(&receiver).next_line().await?.as_deref(), Some("hello"));
//! assert!(receiver.recv().await?.is_none());
//! child.wait()?;
//! # std::io::Result::Ok(())
//! # })?;
//! # Ok::<(), std::io::Error>(())
//! ```

// Read next: `ends.rs`.

mod ends;
mod open;

pub use ends::{Receiver, Sender};
pub use open::OpenOptions;

use std::io;

use crate::context;
use crate::io::CallError;
use crate::sys;

/// A new pipe: the end to send to, and the one to receive from. Both are close-on-exec.
///
/// # Errors
/// Those of pipe2(2), such as EMFILE; `Other` outside a runtime.
/// # Examples
/// ```
/// # tamam::run(async {
/// let (sender, receiver) = tamam::pipe::pipe()?;
/// sender.send_all("hello").await?;
/// sender.shutdown().await?;
/// assert_eq!(&receiver.recv().await?.expect("a message")[..], b"hello");
/// assert!(receiver.recv().await?.is_none());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn pipe() -> io::Result<(Sender, Receiver)> {
    let home = context::try_current()?.driver.clone();
    let ends = sys::pipe::pipe().inspect_err(|error| home.note_failure(error));
    let (read, write) = ends.map_err(|error| CallError::wrap("pipe", "", error))?;
    Ok((Sender::new(write, home.clone()), Receiver::new(read, home)))
}
