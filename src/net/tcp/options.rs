//! Options of a connected socket, and what they have in common with those of `TcpSocket`. Read next:
//! `socket.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::split::{OwnedReadHalf, OwnedWriteHalf};
use super::stream::TcpStream;
use crate::io::CallError;
use crate::net::option::{FamilyOption, is_v6, set_option};
use crate::stream::Connection;
use crate::sys::{self, IntOption};

/// When and how often an idle connection is probed; tcp(7). A field that is `None` keeps the
/// system's value.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::net::TcpKeepalive;
///
/// let keepalive = TcpKeepalive { idle: Some(Duration::from_secs(60)), ..TcpKeepalive::default() };
/// assert_eq!(keepalive.probes, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle time before the first probe (TCP_KEEPIDLE), in whole seconds, rounded up.
    pub idle: Option<Duration>,
    /// Time between probes (TCP_KEEPINTVL), in whole seconds, rounded up.
    pub interval: Option<Duration>,
    /// How many probes go unanswered before the connection is dropped (TCP_KEEPCNT).
    pub probes: Option<u32>,
}

/// An option whose values are not negative.
fn number(fd: BorrowedFd<'_>, option: IntOption) -> io::Result<u32> {
    sys::get(fd, option).map(|value| u32::try_from(value).unwrap_or(0))
}

/// An option that is on or off.
fn is_on(fd: BorrowedFd<'_>, option: IntOption) -> io::Result<bool> {
    sys::get(fd, option).map(|value| value != 0)
}

impl TcpKeepalive {
    /// What is set now, with all times; `None` if SO_KEEPALIVE is off.
    fn of(fd: BorrowedFd<'_>) -> io::Result<Option<TcpKeepalive>> {
        if !is_on(fd, IntOption::KeepAlive)? {
            return Ok(None);
        }
        let seconds = |option| number(fd, option).map(|it| Some(Duration::from_secs(it.into())));
        Ok(Some(TcpKeepalive {
            idle: seconds(IntOption::KeepIdle)?,
            interval: seconds(IntOption::KeepInterval)?,
            probes: Some(number(fd, IntOption::KeepCount)?),
        }))
    }

    /// Sets SO_KEEPALIVE, and the times that are given. After an error, the options before it are
    /// set.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let seconds = |time: Duration| {
            let part = u64::from(time.subsec_nanos() > 0);
            i32::try_from(time.as_secs().saturating_add(part)).unwrap_or(i32::MAX)
        };
        set_option(fd, IntOption::KeepAlive, 1)?;
        if let Some(idle) = self.idle {
            set_option(fd, IntOption::KeepIdle, seconds(idle))?;
        }
        if let Some(interval) = self.interval {
            set_option(fd, IntOption::KeepInterval, seconds(interval))?;
        }
        if let Some(probes) = self.probes {
            set_option(fd, IntOption::KeepCount, i32::try_from(probes).unwrap_or(i32::MAX))?;
        }
        Ok(())
    }
}

/// What the options of a [`TcpSocket`](super::TcpSocket) are now: those that were set, and what the
/// system has where none was.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::net::TcpSocket;
///
/// # tamam::run(async {
/// let socket = TcpSocket::new_v4()?.reuse_addr(true).ttl(5).linger(Some(Duration::ZERO));
/// let options = socket.options()?;
/// assert!(options.reuse_addr && !options.nodelay);
/// assert_eq!((options.ttl, options.linger), (5, Some(Duration::ZERO)));
/// assert_eq!(options.only_v6, None); // it is for IPv4
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpOptions {
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// IPV6_V6ONLY. `None` on a socket for IPv4.
    pub only_v6: Option<bool>,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE and its times; `None` if it is off.
    pub keepalive: Option<TcpKeepalive>,
    /// SO_LINGER: zero, or `None` if it is off.
    pub linger: Option<Duration>,
    /// SO_RCVBUF in bytes: twice what was set (socket(7)).
    pub recv_buffer_size: u32,
    /// SO_SNDBUF in bytes: twice what was set (socket(7)).
    pub send_buffer_size: u32,
    /// IP_TTL, or IPV6_UNICAST_HOPS.
    pub ttl: u32,
    /// IP_TOS, or IPV6_TCLASS.
    pub tos: u8,
    /// How many connections wait to be accepted, once it listens.
    pub backlog: u32,
}

impl TcpOptions {
    /// The options of a socket with this backlog, which the kernel does not tell.
    pub(super) fn of(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<TcpOptions> {
        Ok(TcpOptions {
            reuse_addr: is_on(fd, IntOption::ReuseAddr)?,
            reuse_port: is_on(fd, IntOption::ReusePort)?,
            only_v6: is_v6(fd)?.then(|| is_on(fd, IntOption::OnlyV6)).transpose()?,
            nodelay: is_on(fd, IntOption::NoDelay)?,
            keepalive: TcpKeepalive::of(fd)?,
            linger: sys::linger(fd)?,
            recv_buffer_size: number(fd, IntOption::ReceiveBuffer)?,
            send_buffer_size: number(fd, IntOption::SendBuffer)?,
            ttl: ttl(fd)?,
            tos: tos(fd)?,
            backlog,
        })
    }
}

// ---- lingering ----------------------------------------------------------------------------------

/// What close(2) does with a connection, as far as it does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lingering {
    /// close(2) does not wait, and what was sent is delivered.
    Off,
    /// close(2) resets the connection.
    Reset,
}

impl Lingering {
    /// `InvalidInput` for a time above zero. close(2) would wait so long, although the socket is
    /// non-blocking, and all tasks of the thread with it. The peer gets the same bytes without it.
    pub(super) fn of(time: Option<Duration>) -> io::Result<Lingering> {
        let Some(time) = time else { return Ok(Lingering::Off) };
        if time.is_zero() {
            return Ok(Lingering::Reset);
        }
        let text = "close(2) would block the thread for so long: `TcpStream::close` in a timeout \
                    waits without";
        let refused = io::Error::new(io::ErrorKind::InvalidInput, text);
        Err(CallError::wrap("setsockopt", format_args!("SO_LINGER {time:?}"), refused))
    }

    pub(super) fn apply(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Lingering::Off => sys::set_no_linger(fd),
            Lingering::Reset => sys::set_zero_linger(fd),
        }
    }

    /// What a socket is set to that somebody else has made. A time above zero is switched off. What
    /// is no socket does not linger; its calls will say what it is.
    pub(super) fn of_foreign(fd: BorrowedFd<'_>) -> io::Result<Lingering> {
        let Ok(time) = sys::linger(fd) else { return Ok(Lingering::Off) };
        Lingering::of(time).or_else(|_| sys::set_no_linger(fd).map(|()| Lingering::Off))
    }

    /// As [`apply`](Self::apply), of a connection, whose drop depends on it.
    pub(super) fn apply_to(self, connection: &Connection) -> io::Result<()> {
        match self {
            Lingering::Off => connection.set_no_linger(),
            Lingering::Reset => connection.set_zero_linger(),
        }
    }
}

// ---- options of IPv4 and IPv6 -------------------------------------------------------------------

pub(super) fn set_ttl(fd: BorrowedFd<'_>, hops: u32) -> io::Result<()> {
    FamilyOption::TTL.set(fd, i32::try_from(hops).unwrap_or(i32::MAX))
}

pub(super) fn ttl(fd: BorrowedFd<'_>) -> io::Result<u32> {
    FamilyOption::TTL.get(fd).map(|hops| u32::try_from(hops).unwrap_or(0))
}

pub(super) fn set_tos(fd: BorrowedFd<'_>, tos: u8) -> io::Result<()> {
    FamilyOption::TOS.set(fd, tos.into())
}

pub(super) fn tos(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let tos = FamilyOption::TOS.get(fd)?;
    Ok(u8::try_from(tos).expect("the field of the packet has eight bits"))
}

// ---- of streams and halves ----------------------------------------------------------------------

/// The options of a connected socket: a stream has them, and so has each of its halves.
macro_rules! options {
    ($($connected:ident),*) => {$(
        impl $connected {
            /// Whether small sends go out at once (TCP_NODELAY).
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn nodelay(&self) -> io::Result<bool> {
                is_on(self.as_fd(), IntOption::NoDelay)
            }

            /// Sets TCP_NODELAY: small sends do not wait for one another. It is an option of the
            /// socket, which the halves of a stream share; so are all others.
            ///
            /// # Errors
            /// Those of setsockopt(2).
            /// # Examples
            /// ```
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// assert!(!client.nodelay()?); // off unless set
            /// client.set_nodelay(true)?;
            ///
            /// let (read, write) = client.into_split();
            /// assert!(read.nodelay()? && write.nodelay()?);
            /// # drop(server);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
                set_option(self.as_fd(), IntOption::NoDelay, on.into())
            }

            /// SO_KEEPALIVE with all of its times; `None` if it is off.
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn keepalive(&self) -> io::Result<Option<TcpKeepalive>> {
                TcpKeepalive::of(self.as_fd())
            }

            /// Sets SO_KEEPALIVE and its times.
            ///
            /// # Errors
            /// Those of setsockopt(2).
            /// # Examples
            /// A peer that is gone without a word is noticed after 60 s + 3 · 10 s:
            /// ```
            /// use std::time::Duration;
            /// use tamam::net::TcpKeepalive;
            ///
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// let keepalive = TcpKeepalive {
            ///     idle: Some(Duration::from_secs(60)),
            ///     interval: Some(Duration::from_secs(10)),
            ///     probes: Some(3),
            /// };
            /// assert_eq!(client.keepalive()?, None); // off unless set
            /// client.set_keepalive(keepalive)?;
            /// assert_eq!(client.keepalive()?, Some(keepalive));
            /// # drop(server);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_keepalive(&self, keepalive: TcpKeepalive) -> io::Result<()> {
                keepalive.apply(self.as_fd())
            }

            /// What the drop does (SO_LINGER): `None`, and what was sent is delivered; zero, and
            /// the connection is reset.
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn linger(&self) -> io::Result<Option<Duration>> {
                sys::linger(self.as_fd())
            }

            /// Sets what the drop does (SO_LINGER): with `None` what was sent is delivered, with
            /// zero the connection is reset ([`set_zero_linger`](Self::set_zero_linger)).
            ///
            /// A time above zero is refused. It would make close(2) wait for the peer, for so long
            /// at most, and with it the thread and all its tasks: also on a non-blocking socket
            /// (on Linux 6.18, 1.006 s with a time of 1 s). The bytes go out without it, and after
            /// it. [`TcpStream::close`] waits for the peer, without blocking.
            ///
            /// # Errors
            /// `InvalidInput` for a time above zero; those of setsockopt(2).
            /// # Examples
            /// ```
            /// use std::io::ErrorKind;
            /// use std::time::Duration;
            ///
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// client.set_linger(Some(Duration::ZERO))?;
            /// assert_eq!(client.linger()?, Some(Duration::ZERO));
            /// client.set_linger(None)?;
            /// assert_eq!(client.linger()?, None);
            ///
            /// let error = client.set_linger(Some(Duration::from_secs(1))).unwrap_err();
            /// assert_eq!(error.kind(), ErrorKind::InvalidInput);
            /// # drop(server);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
                Lingering::of(time)?.apply_to(self.connection())
            }

            /// Makes the drop reset the connection: the peer sees `ConnectionReset`, and bytes not
            /// delivered yet are lost. SO_LINGER of zero.
            ///
            /// # Errors
            /// Those of setsockopt(2).
            /// # Examples
            /// ```
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// server.set_zero_linger()?;
            /// drop(server); // or both of its halves
            /// let error = client.recv().await.unwrap_err();
            /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_zero_linger(&self) -> io::Result<()> {
                self.connection().set_zero_linger()
            }

            /// How many hops a packet may make (IP_TTL; IPV6_UNICAST_HOPS).
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn ttl(&self) -> io::Result<u32> {
                ttl(self.as_fd())
            }

            /// Sets how many hops a packet may make: 1 to 255.
            ///
            /// # Errors
            /// `InvalidInput` for other numbers; those of setsockopt(2).
            /// # Examples
            /// For peers of the same network only:
            /// ```
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// client.set_ttl(1)?;
            /// assert_eq!(client.ttl()?, 1);
            /// assert!(client.set_ttl(256).is_err());
            /// # drop(server);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
                set_ttl(self.as_fd(), hops)
            }

            /// The class of service of the packets (IP_TOS; IPV6_TCLASS).
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn tos(&self) -> io::Result<u8> {
                tos(self.as_fd())
            }

            /// Sets the class of service of the packets; ip(7). Of the eight bits, the upper six
            /// are the DSCP; the lower two belong to TCP, which leaves them as they are.
            ///
            /// # Errors
            /// Those of setsockopt(2).
            /// # Examples
            /// Small packets that are in a hurry: expedited forwarding, DSCP 46.
            /// ```
            /// # tamam::run(async {
            /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
            /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
            /// # let (server, _) = listener.accept().await?;
            /// client.set_tos(46 << 2)?;
            /// assert_eq!(client.tos()?, 46 << 2);
            /// # drop(server);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                set_tos(self.as_fd(), tos)
            }
        }
    )*};
}

options!(TcpStream, OwnedReadHalf, OwnedWriteHalf);
