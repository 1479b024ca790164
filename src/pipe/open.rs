//! FIFOs, which are pipes with a path; fifo(7).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use super::ends::{Receiver, Sender};
use crate::context;
use crate::driver::Driver;
use crate::io::CallError;
use crate::sys;

/// How a FIFO is opened. Opening never waits for the other end.
///
/// # Examples
/// ```
/// use tamam::pipe::OpenOptions;
///
/// # tamam::run(async {
/// let path = std::env::temp_dir().join(format!("tamam-doc-fifo-{}", std::process::id()));
/// # let _ = std::fs::remove_file(&path);
/// assert!(std::process::Command::new("mkfifo").arg(&path).status()?.success());
/// let receiver = OpenOptions::new().open_receiver(&path)?;
/// let sender = OpenOptions::new().open_sender(&path)?;
/// sender.send_all("hello").await?;
/// assert_eq!(&receiver.recv().await?.expect("a message")[..], b"hello");
/// # std::fs::remove_file(path)?;
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read_write: bool,
}

impl OpenOptions {
    /// The usual way: for one direction.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Opens the FIFO for both directions, though one is used: then it has another end at once. A
    /// receiver sees no end when the last sender goes, and a sender can be opened before a receiver.
    pub fn read_write(mut self, on: bool) -> OpenOptions {
        self.read_write = on;
        self
    }

    /// Opens the FIFO at `path` to receive from it. If nobody has it open for sending, the first receive
    /// sees the end, and it stays: open the FIFO again, or both ways
    /// ([`read_write`](Self::read_write)), to wait for a sender.
    ///
    /// # Errors
    /// Those of open(2), such as `NotFound`; `InvalidInput` if it is no FIFO; `Other` outside a
    /// runtime. The text has the path.
    pub fn open_receiver(&self, path: impl AsRef<Path>) -> io::Result<Receiver> {
        let (fd, home) = self.open(path.as_ref(), libc::O_RDONLY)?;
        Ok(Receiver::new(fd, home))
    }

    /// Opens the FIFO at `path` to send to it.
    ///
    /// # Errors
    /// As [`open_receiver`](Self::open_receiver); ENXIO if nobody has it open for receiving.
    pub fn open_sender(&self, path: impl AsRef<Path>) -> io::Result<Sender> {
        let (fd, home) = self.open(path.as_ref(), libc::O_WRONLY)?;
        Ok(Sender::new(fd, home))
    }

    fn open(&self, path: &Path, access: libc::c_int) -> io::Result<(OwnedFd, Rc<Driver>)> {
        let home = context::try_current()?.driver.clone();
        let access = if self.read_write { libc::O_RDWR } else { access };
        let failed = |error| CallError::wrap("open", path.display(), error);
        let fd = sys::pipe::open_fifo(path, access).inspect_err(|error| home.note_failure(error));
        let fd = fd.map_err(failed)?;
        if !sys::pipe::is_pipe(fd.as_fd()).map_err(failed)? {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no FIFO");
            return Err(failed(error));
        }
        Ok((fd, home))
    }
}
