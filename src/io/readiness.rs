//! Readiness of any descriptor: for libraries that do their own I/O, and for descriptors that this
//! crate has no type for. What is in flight is not here, but in `watched.rs`: read that next.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::error::CallError;
use super::watched::{WaitReady, WatchHandle, WatchedFd, poll_ready};
use crate::context;
use crate::driver::Interest;
use crate::queue::WaiterId;
use crate::sys;

/// Tells when a descriptor can be read or written, of whatever kind and owner.
///
/// For libraries that read and write by themselves and only want to be told when, and for
/// descriptors that this crate has no type for: inotify, timerfd, netlink, a tun device, the socket
/// of a database's client. The bytes are the caller's affair. Streams of this crate need none of
/// this, and are faster.
///
/// Wait with [`readable`](Self::readable) or [`writable`](Self::writable), then call what may fail
/// with EAGAIN in [`ReadyGuard::try_io`], until it does. The descriptor must be non-blocking, or
/// that call blocks the thread.
///
/// # What ready means
/// A direction is ready from an event on, until a call in `try_io` gives `WouldBlock`, or
/// [`clear_ready`](ReadyGuard::clear_ready). It may be out of date, when others read from the same
/// file: `try_io` tells, and the loop waits again.
///
/// In the kernel the watch is edge-triggered on both engines: it tells each change once, and not
/// again what it told before; the ring tells it as it was at the change (Linux 6.18), so perhaps
/// when it is over. No wait depends on that. If a direction was cleared, or an event comes, the
/// descriptor is asked how it is now (poll(2)). So what was left in it is told at once, and what is
/// over is not told.
///
/// A hang-up and an error make both directions ready; the end of the peer's sending, and urgent
/// data, the reading one.
///
/// # The duplicate
/// A duplicate of the descriptor is watched, and closed with this value. So the number may be
/// closed elsewhere, and used again for another file, and the watch goes on with the first. But the
/// file stays open until this value is dropped: a peer sees no end before.
///
/// # As `add_reader` of asyncio
/// A callback at each event is a task:
/// ```
/// use std::os::fd::AsFd;
/// use tamam::io::{Readiness, ReadyFor};
/// use tamam::{JoinHandle, spawn};
///
/// /// Calls `callback` as often as there is something to read, until it says `false`.
/// fn add_reader<T: AsFd + 'static>(
///     descriptor: T,
///     mut callback: impl FnMut(&T) -> bool + 'static,
/// ) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
///     let readiness = Readiness::with_interest(descriptor, ReadyFor::Read)?;
///     Ok(spawn(async move {
///         loop {
///             let mut guard = readiness.readable().await?;
///             if !callback(readiness.get_ref()) {
///                 return Ok(());
///             }
///             guard.clear_ready(); // what was not read is told again
///         }
///     }))
/// }
///
/// # use std::io::{Read, Write};
/// # tamam::run(async {
/// let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
/// ours.set_nonblocking(true)?;
/// let reader = add_reader(ours, |mut socket| socket.read(&mut [0; 16]).is_err())?;
/// theirs.write_all(b"ping")?;
/// reader.abort(); // remove_reader
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Examples
/// Files that appear in a directory (inotify(7)):
/// ```
/// use std::fs::File;
/// use std::io::{self, Read};
/// use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
/// use tamam::io::Readiness;
///
/// fn inotify() -> io::Result<File> {
///     // SAFETY: takes no pointers, and the descriptor is new, so nothing else owns it.
///     let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
///     match fd {
///         -1 => Err(io::Error::last_os_error()),
///         // SAFETY: as above.
///         fd => Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) })),
///     }
/// }
///
/// tamam::run(async {
///     let folder = std::env::temp_dir().join(format!("tamam-doc-{}", std::process::id()));
///     std::fs::create_dir_all(&folder)?;
///     let events = Readiness::new(inotify()?)?;
///     let path = std::ffi::CString::new(folder.to_str().expect("text"))?;
///     // SAFETY: the path ends with a zero.
///     let watch = unsafe {
///         libc::inotify_add_watch(events.get_ref().as_raw_fd(), path.as_ptr(), libc::IN_CREATE)
///     };
///     assert!(watch >= 0);
///
///     std::fs::write(folder.join("new"), "")?;
///     let mut buf = [0; 4096];
///     let len = loop {
///         let mut guard = events.readable().await?;
///         if let Ok(read) = guard.try_io(|mut inotify| inotify.read(&mut buf)) {
///             break read?;
///         }
///     };
///     assert!(buf[..len].windows(3).any(|name| name == b"new"));
///     std::fs::remove_dir_all(folder)
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Readiness<T: AsFd> {
    /// Before `inner`, so that its polls are cancelled before `inner` is dropped.
    watch: WatchHandle,
    asked: ReadyFor,
    inner: T,
}

/// Which directions a [`Readiness`] is for.
///
/// # Examples
/// ```
/// use tamam::io::{Readiness, ReadyFor};
///
/// # tamam::run(async {
/// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
/// let readiness = Readiness::with_interest(ours, ReadyFor::Read)?;
/// assert!(readiness.writable().await.is_err());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyFor {
    /// [`readable`](Readiness::readable) only.
    Read,
    /// [`writable`](Readiness::writable) only.
    Write,
    /// Both.
    #[default]
    Both,
}

impl<T: AsFd> Readiness<T> {
    /// Watches the descriptor of `inner`, in both directions. Nothing is asked of the kernel before
    /// the first wait.
    ///
    /// # Errors
    /// `Unsupported` if the file is always ready, as regular files and directories are, on both
    /// engines: [`spawn_blocking`](crate::spawn_blocking) is for these. `Other` outside a runtime;
    /// those of dup(2) and epoll_create1(2), such as EMFILE. `inner` is dropped then.
    /// # Examples
    /// ```
    /// use std::io::ErrorKind;
    /// use tamam::io::{Readiness, errno};
    ///
    /// # tamam::run(async {
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let socket = Readiness::new(ours)?;
    /// drop(socket.writable().await?); // there is room
    ///
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// let error = Readiness::new(file).unwrap_err();
    /// assert_eq!((error.kind(), errno(&error)), (ErrorKind::Unsupported, Some(1))); // EPERM
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(inner: T) -> io::Result<Readiness<T>> {
        Readiness::with_interest(inner, ReadyFor::Both)
    }

    /// As [`new`](Self::new), for these directions: a wait for the other one is an error.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_interest(inner: T, asked: ReadyFor) -> io::Result<Readiness<T>> {
        let home = context::try_current()?.driver.clone();
        let number = inner.as_fd().as_raw_fd();
        let failed =
            |call, error| CallError::wrap(call, format_args!("descriptor {number}"), error);
        let fd = inner.as_fd().try_clone_to_owned().map_err(|error| failed("dup", error))?;
        if sys::is_always_ready(fd.as_fd()).map_err(|error| failed("epoll_ctl", error))? {
            let text = "this file is always ready, as regular files are: a wait would tell nothing";
            let cause = io::Error::new(io::ErrorKind::Unsupported, text);
            let subject = format_args!("descriptor {number}");
            return Err(CallError::wrap_with_errno("poll", subject, cause, Some(libc::EPERM)));
        }
        Ok(Readiness { watch: WatchHandle::new(fd, home), asked, inner })
    }

    /// Waits until there is something to read, or the end of it, a hang-up or an error. Any number
    /// of tasks may wait; an event wakes all of them.
    ///
    /// # Errors
    /// `InvalidInput` if it is not for reading; those of epoll_ctl(2) where the engine is epoll,
    /// such as ENOSPC, to one caller. `Other` outside the runtime where it was made.
    /// # Cancel safety
    /// Cancel safe: what a dropped or forgotten wait would have been told, the next one is.
    /// # Kernel
    /// 5.13, `IORING_OP_POLL_ADD` with `IORING_POLL_ADD_MULTI`; under epoll, poll(2), and an
    /// edge-triggered registration.
    /// # Examples
    /// A socket of std's:
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use tamam::io::Readiness;
    ///
    /// # tamam::run(async {
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let ours = Readiness::new(ours)?;
    /// theirs.write_all(b"hello")?;
    ///
    /// let mut buf = [0; 16];
    /// let len = loop {
    ///     let mut guard = ours.readable().await?;
    ///     match guard.try_io(|mut socket| socket.read(&mut buf)) {
    ///         Ok(read) => break read?,
    ///         Err(_would_block) => {} // wait again
    ///     }
    /// };
    /// assert_eq!(&buf[..len], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn readable(&self) -> io::Result<ReadyGuard<'_, T>> {
        self.ready(Interest::Read).await
    }

    /// Waits until there is room to write, a hang-up or an error. Otherwise as
    /// [`readable`](Self::readable).
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    /// # Cancel safety
    /// As [`readable`](Self::readable).
    /// # Kernel
    /// As [`readable`](Self::readable).
    /// # Examples
    /// A connect of one's own:
    /// ```
    /// use std::net::TcpStream;
    /// use std::os::fd::OwnedFd;
    /// use tamam::io::Readiness;
    ///
    /// async fn until_connected(connecting: OwnedFd) -> std::io::Result<TcpStream> {
    ///     let connecting = Readiness::new(TcpStream::from(connecting))?;
    ///     drop(connecting.writable().await?);
    ///     match connecting.get_ref().take_error()? {
    ///         None => Ok(connecting.into_inner()),
    ///         Some(error) => Err(error),
    ///     }
    /// }
    /// # let _ = until_connected;
    /// ```
    pub async fn writable(&self) -> io::Result<ReadyGuard<'_, T>> {
        self.ready(Interest::Write).await
    }

    async fn ready(&self, interest: Interest) -> io::Result<ReadyGuard<'_, T>> {
        match self.watched(interest) {
            Ok(watched) => WaitReady::new(watched, interest).await?,
            Err(error) => {
                context::ready_at_once().await;
                return Err(error);
            }
        }
        Ok(ReadyGuard { readiness: self, interest })
    }

    /// [`readable`](Self::readable) as a poll, for your own futures. It wakes the task of the latest
    /// call, beside those that wait by `readable`.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    /// # Examples
    /// ```
    /// use std::future::poll_fn;
    /// use tamam::io::Readiness;
    ///
    /// # tamam::run(async {
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let ours = Readiness::new(ours)?;
    /// drop(theirs);
    /// poll_fn(|cx| ours.poll_readable(cx).map_ok(drop)).await?; // the end
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        self.poll_ready(Interest::Read, cx)
    }

    /// [`writable`](Self::writable) as a poll, for your own futures. It wakes the task of the latest
    /// call, beside those that wait by `writable`.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        self.poll_ready(Interest::Write, cx)
    }

    fn poll_ready(
        &self,
        interest: Interest,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        match self.watched(interest) {
            Ok(watched) => ready!(poll_ready(watched, interest, &mut Some(WaiterId::Poller), cx))?,
            Err(error) => {
                ready!(context::consume_budget(cx));
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(ReadyGuard { readiness: self, interest }))
    }

    /// What is watched; `InvalidInput` if this direction was not asked for.
    fn watched(&self, interest: Interest) -> io::Result<&Rc<WatchedFd>> {
        let text = match (interest, self.asked) {
            (Interest::Read, ReadyFor::Write) => "it is watched for writing only",
            (Interest::Write, ReadyFor::Read) => "it is watched for reading only",
            _ => return Ok(self.watch.watched()),
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// What it was made of.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Ends the watch, and gives back what it was made of. The duplicate is closed before the
    /// thread sleeps.
    ///
    /// # Examples
    /// ```
    /// use tamam::io::Readiness;
    ///
    /// # tamam::run(async {
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let readiness = Readiness::new(ours)?;
    /// drop(readiness.writable().await?);
    /// let ours: std::os::unix::net::UnixStream = readiness.into_inner();
    /// # drop(ours);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsFd> AsFd for Readiness<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Readiness<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("inner", &self.inner)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// A direction that is ready, from [`Readiness::readable`] and its like.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use tamam::io::Readiness;
///
/// # tamam::run(async {
/// let (_ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// theirs.set_nonblocking(true)?;
/// let theirs = Readiness::new(theirs)?;
/// let mut sent = 0;
/// let mut guard = theirs.writable().await?;
/// while let Ok(len) = guard.try_io(|mut socket| socket.write(&[0; 4096])) {
///     sent += len?; // until the socket is full
/// }
/// assert!(sent > 0);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "what it tells stays true until `try_io` or `clear_ready` shows that it is not"]
pub struct ReadyGuard<'a, T: AsFd> {
    readiness: &'a Readiness<T>,
    interest: Interest,
}

impl<'a, T: AsFd> ReadyGuard<'a, T> {
    /// Makes a call that does not wait. `Ok`: what it gave, also an error of its own. `Err`: it gave
    /// `WouldBlock`, so the direction is not ready any more, and the next wait waits.
    ///
    /// # Errors
    /// [`TryIoError`] if the call gave `WouldBlock`.
    /// # Examples
    /// ```
    /// use std::io::Read;
    /// use tamam::io::Readiness;
    ///
    /// # tamam::run(async {
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let ours = Readiness::new(ours)?;
    /// drop(theirs);
    /// let mut guard = ours.readable().await?;
    /// let len = guard.try_io(|mut socket| socket.read(&mut [0; 8]))??;
    /// assert_eq!(len, 0); // the end
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_io<R>(
        &mut self,
        call: impl FnOnce(&T) -> io::Result<R>,
    ) -> Result<io::Result<R>, TryIoError> {
        match call(&self.readiness.inner) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear_ready();
                Err(TryIoError(()))
            }
            result => Ok(result),
        }
    }

    /// The direction counts as not ready: the next wait asks the descriptor itself. For calls that
    /// [`try_io`](Self::try_io) does not see.
    pub fn clear_ready(&mut self) {
        self.readiness.watch.watched().clear(self.interest);
    }

    /// What the [`Readiness`] was made of.
    pub fn get_ref(&self) -> &'a T {
        &self.readiness.inner
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for ReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyGuard")
            .field("inner", &self.readiness.inner)
            .field("ready_for", &self.interest)
            .finish()
    }
}

/// The call in [`ReadyGuard::try_io`] gave `WouldBlock`: wait again.
#[derive(Debug)]
pub struct TryIoError(());

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call would block")
    }
}

impl std::error::Error for TryIoError {}

impl From<TryIoError> for io::Error {
    fn from(error: TryIoError) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, error)
    }
}
