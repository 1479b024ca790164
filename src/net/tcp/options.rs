//! Options of a connected TCP socket. Those that are set before are in `socket.rs`.

use std::io;
use std::os::fd::AsFd;

use super::socket::{TcpKeepalive, set_option};
use super::stream::TcpStream;
use crate::sys::{self, IntOption};

impl TcpStream {
    /// Whether small sends go out at once (TCP_NODELAY).
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        sys::get(self.as_fd(), IntOption::NoDelay).map(|on| on != 0)
    }

    /// Sets TCP_NODELAY: small sends do not wait for one another.
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
    /// assert!(client.nodelay()?);
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        set_option(self.as_fd(), IntOption::NoDelay, on.into())
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
    /// client.set_keepalive(TcpKeepalive {
    ///     idle: Some(Duration::from_secs(60)),
    ///     interval: Some(Duration::from_secs(10)),
    ///     probes: Some(3),
    /// })?;
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_keepalive(&self, keepalive: TcpKeepalive) -> io::Result<()> {
        keepalive.apply(self.as_fd())
    }

    /// Makes the drop of this stream reset the connection: the peer sees `ConnectionReset`, and
    /// bytes not delivered yet are lost. SO_LINGER of zero; longer ones are not offered, since
    /// close(2) would block the thread.
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
    /// drop(server);
    /// let error = client.recv().await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.connection().set_zero_linger()
    }
}
