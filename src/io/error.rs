//! Errors that say which call failed, and what it was asked for.
//!
//! Calls that transfer data (recv, send, accept) are not here: their errors are those of the system
//! as they are, since the caller knows what was asked.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use crate::sys;

/// Which call failed, on what, and why. It is inside the [`io::Error`] of each call that is given an
/// address, a path or a name: `connect 127.0.0.1:80: Connection refused (os error 111)`.
///
/// The kind of the error is that of its cause, so `error.kind()` works as ever. But
/// [`raw_os_error`](io::Error::raw_os_error) is `None` for every error that carries a text: use
/// [`errno`].
///
/// The text contains that of the cause. So [`source`](Error::source) does not give the cause again,
/// and a chain of errors says each thing once; [`cause`](Self::cause) gives it.
///
/// # Examples
/// ```
/// use tamam::io::{CallError, errno};
/// use tamam::net::TcpListener;
///
/// # tamam::run(async {
/// let first = TcpListener::bind("127.0.0.1:0")?;
/// let error = TcpListener::bind(first.local_addr()?).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
/// assert_eq!(errno(&error), Some(98));
///
/// let failed = CallError::of(&error).expect("bind says what it was asked");
/// assert_eq!((failed.call(), failed.subject()), ("bind", &*first.local_addr()?.to_string()));
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct CallError {
    call: &'static str,
    subject: String,
    cause: io::Error,
    errno: Option<i32>,
}

impl CallError {
    /// An error of the cause's kind with a `CallError` inside.
    pub(crate) fn wrap(
        call: &'static str,
        subject: impl fmt::Display,
        cause: io::Error,
    ) -> io::Error {
        let errno = errno(&cause);
        Self::wrap_with_errno(call, subject, cause, errno)
    }

    /// As [`wrap`](Self::wrap), for a cause that stands for a system call and is none itself.
    pub(crate) fn wrap_with_errno(
        call: &'static str,
        subject: impl fmt::Display,
        cause: io::Error,
        errno: Option<i32>,
    ) -> io::Error {
        let kind = cause.kind();
        io::Error::new(kind, CallError { call, subject: subject.to_string(), cause, errno })
    }

    /// The `CallError` inside an error; `None` if there is none.
    pub fn of(error: &io::Error) -> Option<&CallError> {
        error.get_ref()?.downcast_ref()
    }

    /// What was called, such as `connect`.
    pub fn call(&self) -> &str {
        self.call
    }

    /// What the call was about: an address, a path, a host name, an option.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Why the call failed: usually an error of the system.
    ///
    /// # Examples
    /// ```
    /// use tamam::io::CallError;
    ///
    /// let error = tamam::run(tamam::net::TcpStream::connect("0.0.0.0:0")).unwrap_err();
    /// let cause = CallError::of(&error).expect("connect says what it was asked").cause();
    /// assert_eq!(error.to_string(), format!("connect 0.0.0.0:0: {cause}"));
    /// ```
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        if !self.subject.is_empty() {
            f.write_char(' ')?;
            // A path or a name may contain anything, and the text is for a terminal or a log.
            for letter in self.subject.chars() {
                match letter.is_control() {
                    true => write!(f, "{}", letter.escape_default())?,
                    false => f.write_char(letter)?,
                }
            }
        }
        write!(f, ": {}", self.cause)?;
        match (self.errno, sys::limits(sys::Limited::Descriptors)) {
            (Some(libc::EMFILE), Some((limit, _))) => {
                write!(f, "; this process may have {limit} descriptors (RLIMIT_NOFILE)")
            }
            _ => Ok(()),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// The errno of an error, also of one that says which call failed ([`CallError`]). `None` if the
/// error did not come from the system.
///
/// # Examples
/// ```
/// use tamam::io::errno;
///
/// let error = tamam::run(tamam::net::TcpStream::connect("127.0.0.1:1")).unwrap_err();
/// assert_eq!(error.raw_os_error(), None);
/// assert_eq!(errno(&error), Some(111)); // ECONNREFUSED
/// ```
pub fn errno(error: &io::Error) -> Option<i32> {
    let inside = || CallError::of(error)?.errno;
    let truncated = || super::Truncated::of(error).map(|_| libc::EMSGSIZE);
    error.raw_os_error().or_else(inside).or_else(truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_error_names_call_subject_and_cause_once() {
        let cause = io::Error::from_raw_os_error(libc::EACCES);
        let text = cause.to_string();
        let error = CallError::wrap("open", "a\nb\u{1b}", cause);
        assert_eq!(error.to_string(), format!("open a\\nb\\u{{1b}}: {text}"));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(errno(&error), Some(libc::EACCES));
        assert!(error.source().is_none(), "a chain of errors says each thing once");
        let outer = CallError::wrap("connect", "name:80", error);
        assert_eq!(errno(&outer), Some(libc::EACCES), "through both");
        assert_eq!(errno(&io::Error::other("no call")), None);
    }

    #[test]
    fn a_lack_of_descriptors_names_the_limit() {
        let error = CallError::wrap("socket", "", io::Error::from_raw_os_error(libc::EMFILE));
        let text = error.to_string();
        assert!(text.starts_with("socket: ") && text.ends_with("(RLIMIT_NOFILE)"), "{text}");
    }
}
