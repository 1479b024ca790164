//! A guard that removes the file of a Unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::io::CallError;

/// Removes the file of a listener when it is dropped: dropping a
/// [`UnixListener`](crate::net::UnixListener) leaves it, as std does.
///
/// It removes the file only if it is the one that was there when the guard was made. So a service
/// that was restarted meanwhile keeps its own.
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
    /// Device and inode.
    file: (u64, u64),
}

impl UnlinkOnDrop {
    /// A guard for the file at `path`. Make it right after `bind`.
    ///
    /// # Errors
    /// Those of lstat(2), such as `NotFound`; the text has the path.
    pub fn new(path: impl AsRef<Path>) -> io::Result<UnlinkOnDrop> {
        let path = path.as_ref().to_path_buf();
        match identity(&path) {
            Ok(file) => Ok(UnlinkOnDrop { path, file }),
            Err(error) => Err(CallError::wrap("stat", path.display(), error)),
        }
    }

    /// Ends the guard, and leaves the file.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

/// Which file is at `path`, if it is replaced later.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path); // somebody else may have removed it
        }
    }
}
