//! Owned buffers: memory that an operation keeps until the kernel is done with it.
//!
//! A completion runtime cannot borrow a caller's slice: the caller may drop or forget the future
//! while the kernel still writes to the slice. So a call takes the buffer and returns it with the
//! answer: in `Ok` beside the count, or inside the [`BufError`].
//!
//! There is no I/O here, and no runtime.

// Read next: `fill.rs`.

mod batch;
mod erased;
mod fill;
mod impls;
mod outgoing;

use std::fmt;
use std::io;

pub use crate::driver::Chunk;
pub(crate) use batch::Batch;
pub(crate) use erased::Erased;
pub(crate) use fill::Fill;
pub(crate) use outgoing::{Handed, Many, One, Outgoing};

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no buffer that can be sent",
    note = "the kernel uses the buffer until the operation ends, so a call takes it by value and \
            returns it: `Vec<u8>`, `Box<[u8]>`, `String`, `&'static [u8]`, `Rc<[u8]>`, \
            `Arc<[u8]>`, `Chunk`; of a borrowed slice, `.to_vec()`"
)]
/// An owned buffer with bytes to send.
///
/// Implemented for `Vec<u8>`, `Box<[u8]>`, `String`, `&'static` slices, arrays and `str`, `Rc` and
/// `Arc` of `[u8]`, `str` and `Vec<u8>`, [`Chunk`] and, with the feature `bytes`, `bytes::Bytes`.
///
/// # Safety
/// - `ptr` points to `len` initialised bytes, which stay readable until the value is dropped.
/// - Moving the value changes neither `ptr` nor `len`. (So `[u8; N]` itself cannot be an `IoBuf`.)
/// - As long as the value is not changed, both return the same each time.
#[allow(unsafe_code)]
pub unsafe trait IoBuf: 'static {
    /// Where the bytes start.
    fn ptr(&self) -> *const u8;

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no buffer that can be received into",
    note = "the kernel uses the buffer until the operation ends, so a call takes it by value and \
            returns it: `Vec::with_capacity(n)`"
)]
/// An owned buffer with spare room to receive into. Implemented for `Vec<u8>`.
///
/// Receiving appends: it fills the room between `len` and `capacity` and moves `len`.
///
/// # Safety
/// - `ptr_mut` is the address that [`IoBuf::ptr`] gives, writable for `capacity` bytes and not
///   shared with anything else, until the value is dropped.
/// - `capacity` is at least `len`, and does not change when the value is moved or `set_len` is
///   called.
#[allow(unsafe_code)]
pub unsafe trait IoBufMut: IoBuf {
    /// Where the bytes start, for writing.
    fn ptr_mut(&mut self) -> *mut u8;

    /// How many bytes fit in, with those that are there.
    fn capacity(&self) -> usize;

    /// Makes the first `len` bytes the content of the buffer.
    ///
    /// # Safety
    /// `len` is at most `capacity`, and the first `len` bytes are initialised.
    unsafe fn set_len(&mut self, len: usize);
}

/// An I/O error, with the buffer of the call that failed.
///
/// It converts into [`io::Error`], so `?` works if you do not need the buffer.
///
/// # Other error types
/// If your own error type implements `From<io::Error>`, it needs one more `impl`, for all buffers
/// at once; see below. A boxed error that must be `Send` cannot carry a buffer that is not `Send`,
/// such as a [`Chunk`]: drop the buffer first, with `.map_err(std::io::Error::from)?`.
///
/// ```
/// use tamam::buf::BufError;
///
/// struct MyError(std::io::Error);
///
/// impl<B> From<BufError<B>> for MyError {
///     fn from(error: BufError<B>) -> MyError {
///         MyError(error.into())
///     }
/// }
/// ```
///
/// # Examples
/// ```
/// use tamam::buf::BufError;
///
/// let error = BufError::new(std::io::ErrorKind::BrokenPipe.into(), vec![1, 2, 3]);
/// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
/// let (error, buf) = error.into_parts();
/// assert_eq!(buf, [1, 2, 3]);
/// # let _ = error;
/// ```
pub struct BufError<B> {
    error: io::Error,
    buf: B,
}

impl<B> BufError<B> {
    /// Joins an error and the buffer it concerns.
    pub fn new(error: io::Error, buf: B) -> Self {
        BufError { error, buf }
    }

    /// The error and the buffer.
    pub fn into_parts(self) -> (io::Error, B) {
        (self.error, self.buf)
    }

    /// The error.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The kind of the error.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The buffer, with the bytes that were received into it.
    pub fn buf(&self) -> &B {
        &self.buf
    }
}

impl<B> From<BufError<B>> for io::Error {
    fn from(error: BufError<B>) -> io::Error {
        error.error
    }
}

impl<B> fmt::Debug for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<B> std::error::Error for BufError<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
