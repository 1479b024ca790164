//! The error of a datagram that did not fit into a buffer.

use std::error::Error;
use std::fmt;
use std::io;

/// A datagram did not fit into the caller's buffer: the rest of it is gone. It is inside an
/// [`io::Error`] whose [`errno`](crate::io::errno) is EMSGSIZE.
///
/// # Examples
/// ```
/// use tamam::io::{Truncated, errno};
/// use tamam::net::UdpSocket;
///
/// # tamam::run(async {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.send_to("hello", socket.local_addr()?).await?;
/// let (error, buf) =
///     socket.read_from(Vec::with_capacity(4)).await.map(drop).unwrap_err().into_parts();
/// assert_eq!(errno(&error), Some(90));
/// assert_eq!(Truncated::of(&error), Some(&Truncated { received: 4, len: 5 }));
/// assert_eq!(buf, b"hell");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// How many of its bytes are in the buffer.
    pub received: usize,
    /// How many bytes it had.
    pub len: usize,
}

impl Truncated {
    /// An error with a `Truncated` inside.
    pub(crate) fn error(received: usize, len: usize) -> io::Error {
        let kind = io::Error::from_raw_os_error(libc::EMSGSIZE).kind();
        io::Error::new(kind, Truncated { received, len })
    }

    /// The `Truncated` inside an error; `None` if there is none.
    pub fn of(error: &io::Error) -> Option<&Truncated> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Truncated { received, len } = self;
        write!(f, "a datagram of {len} bytes, and {received} fit into the buffer")
    }
}

impl Error for Truncated {}
