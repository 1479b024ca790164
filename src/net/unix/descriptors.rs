//! Descriptors that are sent along with bytes; unix(7), SCM_RIGHTS.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::split::{UnixReadHalf, UnixWriteHalf};
use super::stream::UnixStream;
use crate::buf::{BufError, Chunk, IoBuf};
use crate::context;
use crate::stream::{Connection, put_back};

/// The most descriptors that one message carries (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;

impl UnixStream {
    /// Sends all of `buf`, and with its first byte the descriptors: the peer gets duplicates of
    /// them. `buf` comes back.
    ///
    /// The caller keeps its descriptors. Duplicates are made in the first poll, and closed when the
    /// buffer is out.
    ///
    /// # Errors
    /// As [`send_all`](Self::send_all); `InvalidInput` if `buf` is empty, since descriptors go with a
    /// byte, or if there are more than 253; EMFILE if there is no descriptor left for the
    /// duplicates.
    /// # Cancel safety
    /// As [`send_all`](Self::send_all).
    /// # Kernel
    /// 5.3, `IORING_OP_SENDMSG`. See sendmsg(2), unix(7).
    /// # Examples
    /// See [`recv_fds`](Self::recv_fds).
    pub async fn send_fds<B: IoBuf>(
        &self,
        buf: B,
        fds: &[BorrowedFd<'_>],
    ) -> Result<B, BufError<B>> {
        send(&self.connection, buf, fds).await
    }

    /// From now on the stream keeps descriptors that the peer sends, at most `max` of them, for
    /// [`recv_fds`](Self::recv_fds). Without this they are closed, as the kernel does it.
    ///
    /// To be called before the first receive: descriptors that came with earlier bytes are gone. Receives
    /// are recvmsg(2)s then, into memory on the heap.
    ///
    /// # Errors
    /// `InvalidInput` if bytes are unread or a receive is under way, or if `max` is zero or above 253.
    /// # Examples
    /// See [`recv_fds`](Self::recv_fds).
    pub fn accept_fds(&self, max: usize) -> io::Result<()> {
        accept(&self.connection, max)
    }

    /// Receives the next bytes, as [`recv`](Self::recv), and the descriptors that were sent with
    /// them or before. `None`: the peer has finished.
    ///
    /// Bytes and descriptors of one message are given together, unless other calls take the bytes:
    /// then the descriptors wait for the next `recv_fds`, which at the end of the stream, or
    /// before its error, gives them with an empty chunk. They are close-on-exec.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). `InvalidInput` without [`accept_fds`](Self::accept_fds) before.
    /// `Other`, once, if descriptors had to be closed: the stream kept as many as it may, or the
    /// process had none left. The next call gives the bytes, and the descriptors that were kept.
    /// # Cancel safety
    /// Cancel safe, as [`recv`](Self::recv): descriptors stay with the stream.
    /// # Kernel
    /// 5.3, `IORING_OP_RECVMSG`. See recvmsg(2), unix(7).
    /// # Examples
    /// ```
    /// use std::io::Read;
    /// use std::os::fd::AsFd;
    /// use tamam::net::UnixStream;
    ///
    /// # tamam::run(async {
    /// let (here, there) = UnixStream::pair()?;
    /// there.accept_fds(1)?;
    /// let file = std::fs::File::open("/proc/self/comm")?;
    /// here.send_fds("a file", &[file.as_fd()]).await?;
    ///
    /// let (message, mut fds) = there.recv_fds().await?.expect("a message");
    /// assert_eq!(&message[..], b"a file");
    /// let mut text = String::new();
    /// std::fs::File::from(fds.remove(0)).read_to_string(&mut text)?;
    /// assert!(!text.is_empty());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn recv_fds(&self) -> io::Result<Option<(Chunk, Vec<OwnedFd>)>> {
        recv(&self.connection).await
    }
}

impl UnixReadHalf {
    /// As [`UnixStream::accept_fds`].
    ///
    /// # Errors
    /// As there.
    pub fn accept_fds(&self, max: usize) -> io::Result<()> {
        accept(self.connection(), max)
    }

    /// As [`UnixStream::recv_fds`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_fds(&self) -> io::Result<Option<(Chunk, Vec<OwnedFd>)>> {
        recv(self.connection()).await
    }
}

impl UnixWriteHalf {
    /// As [`UnixStream::send_fds`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_fds<B: IoBuf>(
        &self,
        buf: B,
        fds: &[BorrowedFd<'_>],
    ) -> Result<B, BufError<B>> {
        send(self.connection(), buf, fds).await
    }
}

async fn send<B: IoBuf>(
    connection: &Rc<Connection>,
    buf: B,
    fds: &[BorrowedFd<'_>],
) -> Result<B, BufError<B>> {
    let refusal = match fds.len() {
        _ if buf.is_empty() => Some("descriptors go with a byte, and the buffer has none"),
        0..=DESCRIPTORS_MAX => None,
        _ => Some("one message carries at most 253 descriptors"),
    };
    let duplicates = match refusal {
        Some(text) => Err(io::Error::new(io::ErrorKind::InvalidInput, text)),
        None => fds.iter().map(BorrowedFd::try_clone_to_owned).collect(),
    };
    match duplicates {
        Ok(duplicates) => connection.send_described(buf, duplicates).await,
        Err(error) => {
            context::ready_at_once().await;
            Err(BufError::new(error, buf))
        }
    }
}

fn accept(connection: &Connection, max: usize) -> io::Result<()> {
    if !(1..=DESCRIPTORS_MAX).contains(&max) {
        let text = format!("a stream keeps 1 to {DESCRIPTORS_MAX} descriptors, not {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    connection.accept_descriptors(max)
}

async fn recv(connection: &Rc<Connection>) -> io::Result<Option<(Chunk, Vec<OwnedFd>)>> {
    if !connection.accepts_descriptors() {
        context::ready_at_once().await;
        let text = "the stream keeps no descriptors: call accept_fds before the first receive";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if let Err(lost) = connection.check_descriptors() {
        context::ready_at_once().await;
        return Err(lost);
    }
    let received = connection.recv().await;
    if let Err(lost) = connection.check_descriptors() {
        received.ok().flatten().into_iter().for_each(|it| put_back(connection, it));
        return Err(lost);
    }
    let descriptors = connection.take_descriptors();
    match received {
        // What was received comes before the end, or the error that stays.
        Ok(None) | Err(_) if !descriptors.is_empty() => {
            Ok(Some((Chunk::from(Vec::new()), descriptors)))
        }
        Ok(chunk) => Ok(chunk.map(|chunk| (chunk, descriptors))),
        Err(error) => Err(error),
    }
}
