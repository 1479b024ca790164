//! `Receive`: what can be received from. Read next: `transmit.rs`.

use std::future::Future;
use std::io;
use std::rc::Rc;

use super::held::Held;
use crate::buf::{BufError, Chunk, IoBufMut, append};
use crate::context;

/// A stream of bytes to receive from: for code that works on each of them.
///
/// All streams of this crate have it, their receiving halves, references and `Rc`s of them. Types of
/// your own need [`recv`](Self::recv) and [`unread`](Self::unread); the rest follows. Futures of this
/// crate's streams only wait: the bytes are the stream's until a call is answered, so a dropped or
/// forgotten future loses none. The provided methods give what they hold back when they are dropped;
/// forgotten, they keep it.
///
/// # Examples
/// A stream that counts what passes:
/// ```
/// use std::cell::Cell;
/// use std::io::Result;
/// use tamam::Chunk;
/// use tamam::io::{Receive, read_to_end};
/// use tamam::net::UnixStream;
///
/// struct Counted<S> {
///     inner: S,
///     bytes: Cell<usize>,
/// }
///
/// impl<S: Receive> Receive for Counted<S> {
///     async fn recv(&self) -> Result<Option<Chunk>> {
///         let chunk = self.inner.recv().await?;
///         self.bytes.set(self.bytes.get() + chunk.as_ref().map_or(0, |chunk| chunk.len()));
///         Ok(chunk)
///     }
///
///     fn unread(&self, chunk: Chunk) {
///         self.bytes.set(self.bytes.get() - chunk.len());
///         self.inner.unread(chunk);
///     }
/// }
///
/// # tamam::run(async {
/// let (sender, receiver) = UnixStream::pair()?;
/// sender.send_all("hello world").await?;
/// drop(sender);
/// let counted = Counted { inner: receiver, bytes: Cell::new(0) };
/// assert_eq!(counted.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
/// assert_eq!(counted.bytes.get(), 5);
/// assert_eq!(read_to_end(&counted, 100).await?, b" world");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Receive {
    /// Receives the next bytes, however many came together, at least one. `None`: the peer has
    /// finished.
    fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>>;

    /// Gives bytes back: the next call receives them first. An empty chunk does nothing.
    fn unread(&self, chunk: Chunk);

    /// Receives bytes into the spare room of `buf`: appends at most `buf.capacity() - buf.len()`
    /// bytes and returns how many; 0: the peer has finished. `buf` comes back in every case, on
    /// failure inside the error.
    fn read<B: IoBufMut>(
        &self,
        mut buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        async move {
            if buf.capacity() == buf.len() {
                context::ready_at_once().await;
                return Err(BufError::new(no_room(0, 1), buf));
            }
            match self.recv().await {
                Ok(Some(mut chunk)) => {
                    let len = append(&mut buf, &chunk);
                    self.unread(chunk.split_off(len));
                    Ok((len, buf))
                }
                Ok(None) => Ok((0, buf)),
                Err(error) => Err(BufError::new(error, buf)),
            }
        }
    }

    /// Receives exactly `len` bytes into the spare room of `buf`. `UnexpectedEof` if the peer
    /// finishes before; the error carries `buf` with the bytes that came.
    fn read_exact<B: IoBufMut>(
        &self,
        mut buf: B,
        len: usize,
    ) -> impl Future<Output = Result<B, BufError<B>>> {
        async move {
            let spare = buf.capacity() - buf.len();
            if len == 0 || spare < len {
                context::ready_at_once().await;
            }
            if spare < len {
                return Err(BufError::new(no_room(spare, len), buf));
            }
            let mut held = Held::new(self);
            let ended = held.until(len).await;
            let came = held.len().min(len);
            for chunk in held.take(came) {
                append(&mut buf, &chunk);
            }
            match ended {
                Ok(_) if came == len => Ok(buf),
                Ok(_) => {
                    let text = format!("the peer finished after {came} of {len} bytes");
                    Err(BufError::new(io::Error::new(io::ErrorKind::UnexpectedEof, text), buf))
                }
                Err(error) => Err(BufError::new(error, buf)),
            }
        }
    }
}

/// The error of a buffer that is too small for what is wanted.
pub(crate) fn no_room(spare: usize, wanted: usize) -> io::Error {
    let text = format!(
        "the buffer has room for {spare} bytes behind what it holds, {wanted} are wanted \
         (Vec::with_capacity(n), not vec![0; n])"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// References and the like are what they lead to.
macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<S: Receive + ?Sized> Receive for $pointer {
            fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
                (**self).recv()
            }

            fn unread(&self, chunk: Chunk) {
                (**self).unread(chunk);
            }

            fn read<B: IoBufMut>(
                &self,
                buf: B,
            ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
                (**self).read(buf)
            }

            fn read_exact<B: IoBufMut>(
                &self,
                buf: B,
                len: usize,
            ) -> impl Future<Output = Result<B, BufError<B>>> {
                (**self).read_exact(buf, len)
            }
        }
    )*};
}

pointers!(&S, Rc<S>, Box<S>);

/// The trait on types that have its methods. What stands behind `where` is their parameter.
macro_rules! receives {
    ($($stream:ty $(where $param:ident: $bound:path)?),* $(,)?) => {$(
        impl$(<$param: $bound>)? $crate::io::Receive for $stream {
            fn recv(
                &self,
            ) -> impl Future<Output = std::io::Result<Option<$crate::buf::Chunk>>> {
                <$stream>::recv(self)
            }

            fn unread(&self, chunk: $crate::buf::Chunk) {
                <$stream>::unread(self, chunk);
            }

            fn read<B: $crate::buf::IoBufMut>(
                &self,
                buf: B,
            ) -> impl Future<Output = Result<(usize, B), $crate::buf::BufError<B>>> {
                <$stream>::read(self, buf)
            }

            fn read_exact<B: $crate::buf::IoBufMut>(
                &self,
                buf: B,
                len: usize,
            ) -> impl Future<Output = Result<B, $crate::buf::BufError<B>>> {
                <$stream>::read_exact(self, buf, len)
            }
        }
    )*};
}

pub(crate) use receives;
