//! `Transmit`: what can be sent to. Read next: `copy.rs`.

use std::future::Future;
use std::io;
use std::rc::Rc;

use crate::buf::{BufError, IoBuf};

/// A stream of bytes to send to: for code that works on each of them.
///
/// All streams of this crate have it, their sending halves, references and `Rc`s of them. Types of
/// your own need [`send_all`](Self::send_all) and [`shutdown`](Self::shutdown); the rest follows.
///
/// # Examples
/// A stream that puts a length before each message:
/// ```
/// use std::io::Result;
/// use tamam::buf::{BufError, IoBuf};
/// use tamam::io::Transmit;
/// use tamam::net::UnixStream;
///
/// struct Framed<S>(S);
///
/// impl<S: Transmit> Transmit for Framed<S> {
///     async fn send_all<B: IoBuf>(&self, buf: B) -> std::result::Result<B, BufError<B>> {
///         let header = (buf.len() as u32).to_be_bytes().to_vec();
///         match self.0.send_all(header).await {
///             Ok(_) => self.0.send_all(buf).await,
///             Err(error) => Err(BufError::new(error.into(), buf)),
///         }
///     }
///
///     async fn shutdown(&self) -> Result<()> {
///         self.0.shutdown().await
///     }
/// }
///
/// # tamam::run(async {
/// let (sender, receiver) = UnixStream::pair()?;
/// Framed(sender).send_all("hello").await?;
/// assert_eq!(receiver.read_exact(Vec::with_capacity(9), 9).await?, b"\0\0\0\x05hello");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Transmit {
    /// Sends all of `buf` and gives it back; on failure inside the error.
    fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>>;

    /// Ends sending: the peer sees the end after every byte of sends that were polled before.
    fn shutdown(&self) -> impl Future<Output = io::Result<()>>;

    /// Sends `buf`, and returns how many of its bytes went out: all of them, unless the stream
    /// failed on the way; then the next call gives the error.
    fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        async move {
            let buf = self.send_all(buf).await?;
            Ok((buf.len(), buf))
        }
    }

    /// Sends all of `bufs` in order, and returns how many bytes went out. The streams of this crate
    /// let nothing come in between.
    fn sendv<B: IoBuf>(
        &self,
        mut bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        async move {
            let mut sent = Vec::with_capacity(bufs.len());
            let mut len = 0;
            bufs.reverse();
            while let Some(buf) = bufs.pop() {
                match self.send_all(buf).await {
                    Ok(buf) => {
                        len += buf.len();
                        sent.push(buf);
                    }
                    Err(error) => {
                        let (error, buf) = error.into_parts();
                        sent.push(buf);
                        sent.extend(bufs.into_iter().rev());
                        return Err(BufError::new(error, sent));
                    }
                }
            }
            Ok((len, sent))
        }
    }

    /// Makes the peer see a failure when the stream is dropped, not an end, if the medium can tell
    /// one from the other: a TCP connection is reset ([`TcpStream::set_zero_linger`]), TLS has no
    /// `close_notify`. It does nothing unless an implementation says so.
    ///
    /// [`TcpStream::set_zero_linger`]: crate::net::TcpStream::set_zero_linger
    fn abort_on_drop(&self) {}
}

/// References and the like are what they lead to.
macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<S: Transmit + ?Sized> Transmit for $pointer {
            fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
                (**self).send_all(buf)
            }

            fn shutdown(&self) -> impl Future<Output = io::Result<()>> {
                (**self).shutdown()
            }

            fn send<B: IoBuf>(
                &self,
                buf: B,
            ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
                (**self).send(buf)
            }

            fn sendv<B: IoBuf>(
                &self,
                bufs: Vec<B>,
            ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
                (**self).sendv(bufs)
            }

            fn abort_on_drop(&self) {
                (**self).abort_on_drop();
            }
        }
    )*};
}

pointers!(&S, Rc<S>, Box<S>);

/// The trait on types that have its methods. What stands behind `where` is
/// their parameter, what stands in braces is `abort_on_drop`.
macro_rules! transmits {
    ($($stream:ty $(where $param:ident: $bound:path)? $({ $abort:expr })?),* $(,)?) => {$(
        impl$(<$param: $bound>)? $crate::io::Transmit for $stream {
            fn send_all<B: $crate::buf::IoBuf>(
                &self,
                buf: B,
            ) -> impl Future<Output = Result<B, $crate::buf::BufError<B>>> {
                <$stream>::send_all(self, buf)
            }

            fn shutdown(&self) -> impl Future<Output = std::io::Result<()>> {
                <$stream>::shutdown(self)
            }

            fn send<B: $crate::buf::IoBuf>(
                &self,
                buf: B,
            ) -> impl Future<Output = Result<(usize, B), $crate::buf::BufError<B>>> {
                <$stream>::send(self, buf)
            }

            fn sendv<B: $crate::buf::IoBuf>(
                &self,
                bufs: Vec<B>,
            ) -> impl Future<Output = Result<(usize, Vec<B>), $crate::buf::BufError<Vec<B>>>> {
                <$stream>::sendv(self, bufs)
            }

            $(fn abort_on_drop(&self) {
                let abort: fn(&Self) = $abort;
                abort(self);
            })?
        }
    )*};
}

pub(crate) use transmits;
