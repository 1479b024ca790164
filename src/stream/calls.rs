//! The calls of every handle over a connection, as macros: so each type has them with docs and
//! examples of its own, and the code is one.
//!
//! Each macro takes the name of the method that gives the `Rc` of what is called, and the hidden
//! lines that begin an example: they make a `receiver` and a `sender`, which are the two ends of one
//! connection. Read next: `read.rs` and `send.rs`.

/// `recv`, `read` and `read_exact`.
macro_rules! receiving_calls {
    ($source:ident, $ends:expr) => {
        /// Receives the next bytes, however many came together. `None`: the peer has finished.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::recv`](crate::net::TcpStream::recv).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send_all("hello").await?;
        /// assert_eq!(&receiver.recv().await?.expect("a message")[..], b"hello");
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn recv(&self) -> impl Future<Output = std::io::Result<Option<$crate::buf::Chunk>>> {
            $crate::stream::RecvChunk::new(self.$source())
        }

        /// Receives bytes into the spare room of `buf`, and returns how many; 0: the peer has
        /// finished.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::read`](crate::net::TcpStream::read).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send_all("hello").await?;
        /// let (len, buf) = receiver.read(Vec::with_capacity(1024)).await?;
        /// assert_eq!((len, &buf[..]), (5, &b"hello"[..]));
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn read<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
        ) -> impl Future<Output = Result<(usize, B), $crate::buf::BufError<B>>> {
            $crate::stream::Read::some(self.$source(), buf)
        }

        /// Copies the bytes that come next into the spare room of `buf`, and leaves them unread: the
        /// next receive of any kind gives them again.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::peek`](crate::net::TcpStream::peek).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send_all("hello").await?;
        /// let (len, buf) = receiver.peek(Vec::with_capacity(1)).await?;
        /// assert_eq!((len, &buf[..]), (1, &b"h"[..]));
        /// assert_eq!(receiver.read_exact(Vec::with_capacity(5), 5).await?, b"hello"); // all of it
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn peek<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
        ) -> impl Future<Output = Result<(usize, B), $crate::buf::BufError<B>>> {
            $crate::stream::Peek::new(self.$source(), buf)
        }

        /// Receives exactly `len` bytes into the spare room of `buf`.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::read_exact`](crate::net::TcpStream::read_exact).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send_all("hello world").await?;
        /// assert_eq!(receiver.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub async fn read_exact<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
            len: usize,
        ) -> Result<B, $crate::buf::BufError<B>> {
            $crate::stream::Read::exact(self.$source(), buf, len).await.map(|(_, buf)| buf)
        }

        /// Gives bytes back: the next call receives them first.
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send_all("hello world").await?;
        /// let mut first = receiver.read_exact(Vec::with_capacity(11), 11).await?;
        /// receiver.unread(first.split_off(5).into()); // not wanted yet
        /// assert_eq!(&receiver.recv().await?.expect("the rest")[..], b" world");
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn unread(&self, chunk: $crate::buf::Chunk) {
            $crate::stream::put_back(self.$source(), chunk);
        }
    };
}

/// `send`, `send_all` and `sendv`.
macro_rules! queueing_calls {
    ($connection:ident, $ends:expr) => {
        /// Sends `buf`, and returns how many of its bytes went out: all of them, unless the
        /// connection failed on the way; then the next call gives the error.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::send`](crate::net::TcpStream::send).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// let (sent, _buf) = sender.send("hello").await?;
        /// assert_eq!(sent, 5);
        /// # drop(receiver);
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[doc(alias = "write")]
        pub fn send<B: $crate::buf::IoBuf>(
            &self,
            buf: B,
        ) -> impl Future<Output = Result<(usize, B), $crate::buf::BufError<B>>> {
            self.$connection().send_some(buf)
        }

        /// Sends all of `buf` and gives it back.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::send_all`](crate::net::TcpStream::send_all).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// let mut buf = sender.send_all(String::from("hello")).await?;
        /// buf.clear(); // to be filled again
        /// # drop(receiver);
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[doc(alias = "write_all")]
        pub fn send_all<B: $crate::buf::IoBuf>(
            &self,
            buf: B,
        ) -> impl Future<Output = Result<B, $crate::buf::BufError<B>>> {
            self.$connection().send_all(buf)
        }

        /// Sends all of `bufs`, in order and with nothing in between, and returns how many bytes
        /// went out.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::sendv`](crate::net::TcpStream::sendv).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// let (sent, _bufs) = sender.sendv(vec!["hello ", "world"]).await?;
        /// assert_eq!(sent, 11);
        /// # drop(receiver);
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[doc(alias = "write_vectored")]
        pub fn sendv<B: $crate::buf::IoBuf>(
            &self,
            bufs: Vec<B>,
        ) -> impl Future<Output = Result<(usize, Vec<B>), $crate::buf::BufError<Vec<B>>>> {
            self.$connection().sendv(bufs)
        }
    };
}

/// `send`, `send_all`, `sendv` and `shutdown`.
macro_rules! sending_calls {
    ($connection:ident, $ends:expr) => {
        $crate::stream::queueing_calls!($connection, $ends);

        /// Ends sending: the peer sees the end after every byte of sends that were polled before.
        ///
        /// The errors and the cancel safety are those of
        /// [`TcpStream::shutdown`](crate::net::TcpStream::shutdown).
        ///
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.shutdown().await?;
        /// assert!(receiver.recv().await?.is_none());
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub async fn shutdown(&self) -> std::io::Result<()> {
            self.$connection().shutdown().await
        }
    };
}

/// A stream and its two halves: the calls of the halves, how they are made whole again, and what
/// dropping each means. `$local` and `$peer`: what gives the addresses of a descriptor. `$pair`:
/// hidden lines that make a `client` and a `server`, connected streams.
macro_rules! halves {
    ($stream:ident, $read:ident, $write:ident, $addr:ty, $local:path, $peer:path, $pair:literal) => {
        impl $stream {
            pub(super) fn from_connection(connection: Rc<$crate::stream::Connection>) -> $stream {
                $stream { connection }
            }

            /// The connection, for layers above.
            pub(crate) fn connection(&self) -> &Rc<$crate::stream::Connection> {
                &self.connection
            }

            /// Takes the connection out. The stream's handle is the caller's from here on.
            pub(super) fn into_connection(self) -> Rc<$crate::stream::Connection> {
                let connection = self.connection.clone();
                // The clone takes the handle's place, so its drop must not end the connection.
                connection.split_handle();
                drop(self);
                connection
            }

            /// Splits into a half that receives and one that sends, for different tasks. Dropping
            /// the latter shuts down sending.
            ///
            /// # Examples
            /// ```
            /// # tamam::run(async {
            #[doc = $pair]
            /// let (read, write) = client.into_split();
            /// let answer = tamam::spawn(async move {
            ///     read.read_exact(Vec::with_capacity(4), 4).await
            /// });
            /// write.send_all("ping").await?;
            ///
            /// let chunk = server.recv().await?.expect("a message");
            /// server.send_all(chunk).await?;
            /// assert_eq!(answer.await??, b"ping");
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            #[doc(alias = "split")]
            pub fn into_split(self) -> ($read, $write) {
                let connection = self.into_connection();
                connection.split_handle();
                ($read::new(connection.clone()), $write::new(connection))
            }
        }

        impl $crate::stream::Carried for $stream {
            type Carrier = $crate::stream::Connection;

            #[inline]
            fn carrier(&self) -> &Rc<$crate::stream::Connection> {
                &self.connection
            }
        }

        impl Drop for $stream {
            fn drop(&mut self) {
                self.connection.drop_handle();
            }
        }

        /// For options and names. Reading or writing by hand takes bytes that the runtime may have
        /// received already, or puts bytes between those of a send.
        impl AsFd for $stream {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.connection.as_fd()
            }
        }

        impl $read {
            /// Takes over one handle of the connection.
            pub(super) fn new(connection: Rc<$crate::stream::Connection>) -> $read {
                $read { connection: Some(connection) }
            }

            pub(crate) fn connection(&self) -> &Rc<$crate::stream::Connection> {
                self.connection.as_ref().expect("a half has its connection until it is consumed")
            }

            $crate::stream::receiving_calls!(
                connection,
                concat!(
                    $pair,
                    "\nlet (receiver, _write) = client.into_split();\n# let sender = server;"
                )
            );

            /// Makes the stream whole again, with everything that was received and everything
            /// queued.
            ///
            /// # Errors
            /// [`ReuniteError`](crate::net::ReuniteError) with both halves, if they are not of the
            /// same stream.
            /// # Examples
            /// ```
            /// # tamam::run(async {
            #[doc = $pair]
            /// let (read, write) = client.into_split();
            /// write.send_all("before").await?;
            /// let client = read.reunite(write).expect("halves of one stream");
            /// client.send_all("after").await?;
            /// assert_eq!(server.read_exact(Vec::with_capacity(11), 11).await?, b"beforeafter");
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn reunite(
                mut self,
                mut other: $write,
            ) -> Result<$stream, $crate::net::ReuniteError<$read, $write>> {
                if !Rc::ptr_eq(self.connection(), other.connection()) {
                    return Err($crate::net::ReuniteError(self, other));
                }
                let connection = self.connection.take().expect("just compared");
                other.connection = None;
                // Two handles become one, and no direction ends.
                connection.drop_handle();
                Ok($stream::from_connection(connection))
            }
        }

        impl $write {
            /// Takes over one handle of the connection.
            pub(super) fn new(connection: Rc<$crate::stream::Connection>) -> $write {
                $write { connection: Some(connection) }
            }

            pub(crate) fn connection(&self) -> &Rc<$crate::stream::Connection> {
                self.connection.as_ref().expect("a half has its connection until it is consumed")
            }

            $crate::stream::sending_calls!(
                connection,
                concat!(
                    $pair,
                    "\nlet (_read, sender) = client.into_split();\n# let receiver = server;"
                )
            );

            /// Drops the half without shutting down sending: the peer sees the end only when the
            /// other half is dropped too.
            ///
            /// # Examples
            /// ```
            /// use std::time::Duration;
            /// use tamam::time::timeout;
            ///
            /// # tamam::run(async {
            #[doc = $pair]
            /// let (read, write) = client.into_split();
            /// write.forget();
            /// assert!(timeout(Duration::from_millis(1), server.recv()).await.is_err()); // no end yet
            /// drop(read);
            /// assert!(server.recv().await?.is_none());
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn forget(mut self) {
                if let Some(connection) = self.connection.take() {
                    connection.drop_handle();
                }
            }
        }

        $crate::stream::half_names!($stream, $read, $addr, $local, $peer);
        $crate::stream::half_names!($stream, $write, $addr, $local, $peer);

        impl Drop for $read {
            fn drop(&mut self) {
                if let Some(connection) = self.connection.take() {
                    connection.end_receive();
                    connection.drop_handle();
                }
            }
        }

        impl Drop for $write {
            fn drop(&mut self) {
                if let Some(connection) = self.connection.take() {
                    connection.drop_sending_half();
                }
            }
        }
    };
}

/// The names of a half, its descriptor and its `Debug`.
macro_rules! half_names {
    ($stream:ident, $half:ident, $addr:ty, $local:path, $peer:path) => {
        impl $half {
            #[doc = concat!("The address of this end: [`", stringify!($stream), "::local_addr`].")]
            ///
            /// # Errors
            /// Those of getsockname(2).
            pub fn local_addr(&self) -> std::io::Result<$addr> {
                $local(self.as_fd())
            }

            #[doc = concat!(
                                        "The address of the peer, also when it is gone already: [`",
                                        stringify!($stream),
                                        "::peer_addr`]."
                                    )]
            ///
            /// # Errors
            /// Those of getpeername(2).
            pub fn peer_addr(&self) -> std::io::Result<$addr> {
                $peer(self.as_fd())
            }
        }

        impl AsFd for $half {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.connection().fd()
            }
        }

        impl std::fmt::Debug for $half {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($half))
                    .field("local_addr", &self.local_addr().ok())
                    .field("peer_addr", &self.peer_addr().ok())
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use {half_names, halves, queueing_calls, receiving_calls, sending_calls};
