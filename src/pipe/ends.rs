//! The two ends of a pipe, handles over a connection each. What is in flight is not here, but in
//! `stream/`. Read next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use crate::context;
use crate::driver::{Driver, Medium};
use crate::io::{receives, transmits};
use crate::net::IntoStdError;
use crate::stream::{Connection, receiving_calls, sending_calls};
use crate::sys;

/// The end of a pipe to receive from.
///
/// Dropping it closes it: what is unread is gone, and later sends to the pipe are `BrokenPipe`.
///
/// # Examples
/// See [`pipe`](crate::pipe::pipe).
pub struct Receiver {
    connection: Rc<Connection>,
}

/// The end of a pipe to send to.
///
/// A pipe without a receiver is `BrokenPipe`, and never SIGPIPE. Kernels before 6.18 have no flag for
/// that: there, if the signal has its default action when the first sender is made, it is blocked on
/// the thread of the runtime for good. (Programs in Rust ignore it anyway, unless they say otherwise.)
///
/// # Examples
/// See [`pipe`](crate::pipe::pipe).
pub struct Sender {
    connection: Rc<Connection>,
}

impl Receiver {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> Receiver {
        Receiver { connection: Connection::new(fd, home, Medium::Pipe) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Takes over an end of a pipe or FIFO that can be read. It becomes non-blocking, and so do
    /// duplicates of it.
    ///
    /// # Errors
    /// `InvalidInput` if it is no pipe, or cannot be read; `Other` outside a runtime.
    /// # Examples
    /// What a child of std's writes:
    /// ```
    /// use std::process::{Command, Stdio};
    /// use tamam::pipe::Receiver;
    ///
    /// # tamam::run(async {
    /// let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
    /// let stdout = Receiver::from_fd(child.stdout.take().expect("it is piped"))?;
    /// assert_eq!(&stdout.recv().await?.expect("a line")[..], b"hello\n");
    /// child.wait()?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Receiver> {
        let (fd, home) = checked(fd.into(), libc::O_RDONLY)?;
        Ok(Receiver::new(fd, home))
    }

    receiving_calls!(connection, "# let (sender, receiver) = tamam::pipe::pipe()?;");

    /// Gives the descriptor back, with the bytes that were received and not read: they come before
    /// those still in the pipe. It waits in its calls from now on (O_NONBLOCK is cleared), as other
    /// programs expect.
    ///
    /// # Errors
    /// [`IntoStdError`] with the receiver, if the runtime's ring has failed.
    /// # Examples
    /// ```
    /// use std::io::Read;
    ///
    /// # tamam::run(async {
    /// let (sender, receiver) = tamam::pipe::pipe()?;
    /// sender.send_all("hello world").await?;
    /// drop(sender);
    /// assert_eq!(receiver.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// let (fd, mut rest) = receiver.into_blocking_fd()?;
    /// std::fs::File::from(fd).read_to_end(&mut rest)?;
    /// assert_eq!(rest, b" world");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_blocking_fd(self) -> Result<(OwnedFd, Vec<u8>), IntoStdError<Receiver>> {
        self.into_parts()
    }
}

impl Sender {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> Sender {
        sys::pipe::silence_sigpipe();
        Sender { connection: Connection::new(fd, home, Medium::Pipe) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Takes over an end of a pipe or FIFO that can be written. It becomes non-blocking, and so do
    /// duplicates of it.
    ///
    /// # Errors
    /// `InvalidInput` if it is no pipe, or cannot be written; `Other` outside a runtime.
    /// # Examples
    /// What a child of std's reads:
    /// ```
    /// use std::process::{Command, Stdio};
    /// use tamam::pipe::Sender;
    ///
    /// # tamam::run(async {
    /// let mut child =
    ///     Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    /// let stdin = Sender::from_fd(child.stdin.take().expect("it is piped"))?;
    /// stdin.send_all("hello").await?;
    /// drop(stdin); // the end, for `cat`
    /// assert!(child.wait()?.success());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Sender> {
        let (fd, home) = checked(fd.into(), libc::O_WRONLY)?;
        Ok(Sender::new(fd, home))
    }

    sending_calls!(connection, "# let (sender, receiver) = tamam::pipe::pipe()?;");

    /// Gives the descriptor back. It waits in its calls from now on (O_NONBLOCK is cleared), as other
    /// programs expect.
    ///
    /// # Errors
    /// [`IntoStdError`] with the sender, if bytes of a dropped send are still on their way out.
    /// # Examples
    /// See [`tamam::pipe`](crate::pipe).
    pub fn into_blocking_fd(self) -> Result<OwnedFd, IntoStdError<Sender>> {
        self.into_parts().map(|(fd, _unread)| fd)
    }
}

/// A descriptor that is an end of a pipe with this access, made non-blocking, and the runtime here.
fn checked(fd: OwnedFd, wanted: libc::c_int) -> io::Result<(OwnedFd, Rc<Driver>)> {
    let home = context::try_current()?.driver.clone();
    let refused = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if !sys::pipe::is_pipe(fd.as_fd())? {
        return refused("the descriptor is neither a pipe nor a FIFO");
    }
    let access = sys::pipe::access_mode(fd.as_fd())?;
    if access != wanted && access != libc::O_RDWR {
        return refused(match wanted {
            libc::O_RDONLY => "this end of the pipe cannot be read",
            _ => "this end of the pipe cannot be written",
        });
    }
    sys::set_nonblocking(fd.as_fd())?;
    Ok((fd, home))
}

/// What both ends have.
macro_rules! end {
    ($end:ident) => {
        impl $end {
            /// Takes the end apart: the descriptor, which waits in its calls from now on, and the
            /// bytes that are unread.
            fn into_parts(self) -> Result<(OwnedFd, Vec<u8>), IntoStdError<$end>> {
                let connection = self.connection.clone();
                // The clone takes the handle's place, so its drop must not end the connection.
                connection.split_handle();
                drop(self);
                let (fd, unread) = connection
                    .into_parts()
                    .map_err(|(error, connection)| IntoStdError::new(error, $end { connection }))?;
                // Fails only if the descriptor is none any more, and its user will hear of that.
                let _ = sys::set_blocking(fd.as_fd());
                Ok((fd, unread))
            }
        }

        impl Drop for $end {
            fn drop(&mut self) {
                self.connection.drop_handle();
            }
        }

        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).finish_non_exhaustive()
            }
        }
    };
}

end!(Receiver);
end!(Sender);
receives!(Receiver);
transmits!(Sender);
