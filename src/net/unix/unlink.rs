//! A guard that removes the file of a Unix socket.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::io::CallError;

/// Removes the file of a listener when it is dropped: dropping a
/// [`UnixListener`](crate::net::UnixListener) leaves it, as std does.
///
/// It removes the file only if it is the one that was there when the guard was made. So a service
/// that was restarted meanwhile keeps its own. For that it keeps a descriptor.
///
/// # Examples
/// ```
/// use tamam::net::{UnixListener, UnlinkOnDrop};
///
/// # tamam::run(async {
/// let path = std::env::temp_dir().join(format!("tamam-doc-unlink-{}", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let guard = UnlinkOnDrop::new(&path)?;
/// drop(listener);
/// assert!(path.exists());
/// drop(guard);
/// assert!(!path.exists());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct UnlinkOnDrop {
    path: PathBuf,
    /// Opened by its name alone (O_PATH): as long as it is, no other file has its numbers.
    file: File,
}

impl UnlinkOnDrop {
    /// A guard for the file at `path`. Make it right after `bind`.
    ///
    /// # Errors
    /// Those of open(2), such as `NotFound`; the text has the path.
    pub fn new(path: impl AsRef<Path>) -> io::Result<UnlinkOnDrop> {
        let path = path.as_ref().to_path_buf();
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => Ok(UnlinkOnDrop { path, file }),
            Err(error) => Err(CallError::wrap("open", path.display(), error)),
        }
    }

    /// Ends the guard, and leaves the file.
    pub fn keep(mut self) {
        self.path = PathBuf::new(); // no file has it
    }
}

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        let identity = |file: io::Result<Metadata>| file.map(|it| (it.dev(), it.ino())).ok();
        let there = identity(fs::symlink_metadata(&self.path));
        if there.is_some() && there == identity(self.file.metadata()) {
            let _ = fs::remove_file(&self.path); // somebody else may have removed it
        }
    }
}
