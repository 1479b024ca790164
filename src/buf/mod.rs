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
mod message;
mod outgoing;
mod parcel;
mod returning;

use std::fmt;
use std::io;

pub use crate::driver::Chunk;
pub(crate) use batch::Batch;
pub(crate) use erased::Erased;
pub(crate) use fill::{Fill, append};
pub(crate) use message::OutgoingMessage;
pub(crate) use outgoing::{Described, Handed, Many, One, Outgoing};
pub(crate) use parcel::Parcel;
pub(crate) use returning::{Return, Returning};

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
/// # Examples
/// A part of a buffer that is shared:
/// ```
/// use std::ops::Range;
/// use std::sync::Arc;
/// use tamam::buf::IoBuf;
///
/// struct Part {
///     whole: Arc<[u8]>,
///     range: Range<usize>,
/// }
///
/// // SAFETY: the bytes are on the heap, initialised, and never changed. `whole` keeps them there
/// // until the value is dropped, also when the value moves.
/// unsafe impl IoBuf for Part {
///     fn ptr(&self) -> *const u8 {
///         self.whole[self.range.clone()].as_ptr()
///     }
///
///     fn len(&self) -> usize {
///         self.range.len()
///     }
/// }
///
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// client.send_all(Part { whole: Arc::from(&b"hello world"[..]), range: 6..11 }).await?;
/// assert_eq!(server.read_exact(Vec::with_capacity(5), 5).await?, b"world");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
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
/// # Examples
/// A packet of at most 1500 bytes:
/// ```
/// use tamam::buf::{IoBuf, IoBufMut};
///
/// struct Packet {
///     bytes: Box<[u8; 1500]>,
///     len: usize,
/// }
///
/// // SAFETY: the bytes are on the heap and initialised, so they stay where they are when the value
/// // moves. `len` is at most 1500, see `set_len`.
/// unsafe impl IoBuf for Packet {
///     fn ptr(&self) -> *const u8 {
///         self.bytes.as_ptr()
///     }
///
///     fn len(&self) -> usize {
///         self.len
///     }
/// }
///
/// // SAFETY: the same address, which belongs to this value alone; the capacity never changes.
/// unsafe impl IoBufMut for Packet {
///     fn ptr_mut(&mut self) -> *mut u8 {
///         self.bytes.as_mut_ptr()
///     }
///
///     fn capacity(&self) -> usize {
///         self.bytes.len()
///     }
///
///     unsafe fn set_len(&mut self, len: usize) {
///         self.len = len;
///     }
/// }
///
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// client.send_all("hello").await?;
/// let (len, packet) = server.read(Packet { bytes: Box::new([0; 1500]), len: 0 }).await?;
/// assert_eq!(&packet.bytes[..len], b"hello");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
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
    ///
    /// # Examples
    /// What could not be sent goes out on another connection:
    /// ```
    /// use tamam::net::TcpStream;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.shutdown().await?;
    /// let (error, buf) = client.send_all(b"hello".to_vec()).await.unwrap_err().into_parts();
    /// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    ///
    /// let second = TcpStream::connect(listener.local_addr()?).await?;
    /// second.send_all(buf).await?;
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("hel").await?;
    /// client.shutdown().await?;
    /// let error = server.read_exact(Vec::with_capacity(5), 5).await.unwrap_err();
    /// assert_eq!(error.buf(), b"hel");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
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
        self.error.source()
    }
}
