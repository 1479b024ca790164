//! The calls that receive into a buffer of the caller's, as a macro: so each handle over a datagram
//! socket has them with docs and examples of its own, and the code is one. Read next: `read.rs`.

/// `read_from`, `read`, `peek_from` and `poll_recv`, of a handle whose `inner` gives the `Rc` of the
/// socket. It takes the type of the addresses, and the hidden lines that begin an example: they make a
/// `receiver`, and a `sender` that is connected to it.
macro_rules! datagram_calls {
    ($addr:ty, $ends:expr) => {
        /// Receives the next datagram into the spare room of `buf`: gives its length, its sender,
        /// and the buffer. [`recv`](Self::recv) needs no buffer and does not copy.
        ///
        /// # Errors
        /// EMSGSIZE, with a [`Truncated`](crate::io::Truncated) inside, if the datagram is larger
        /// than the room: what fits is in the buffer, the rest is gone. `InvalidInput` (no spare
        /// room). Others as for [`recv`](Self::recv). The error carries `buf`.
        /// # Cancel safety
        /// Cancel safe, as [`recv`](Self::recv). `buf` itself is gone.
        /// # Kernel
        /// As [`recv`](Self::recv).
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send("hello").await?;
        /// let (len, _from, buf) = receiver.read_from(Vec::with_capacity(1500)).await?;
        /// assert_eq!((len, &buf[..]), (5, &b"hello"[..]));
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[doc(alias = "recv_from")]
        pub fn read_from<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
        ) -> impl Future<Output = $crate::datagram::DatagramReport<$addr, B>> {
            self.inner().read(buf, $crate::datagram::Reading::Take)
        }

        /// As [`read_from`](Self::read_from), without the sender.
        ///
        /// # Errors
        /// As [`read_from`](Self::read_from).
        /// # Cancel safety
        /// As [`read_from`](Self::read_from).
        /// # Kernel
        /// As [`recv`](Self::recv).
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send("hello").await?;
        /// let (len, buf) = receiver.read(Vec::with_capacity(1500)).await?;
        /// assert_eq!((len, &buf[..]), (5, &b"hello"[..]));
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub async fn read<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
        ) -> Result<(usize, B), $crate::buf::BufError<B>> {
            let (len, _, buf) = self.read_from(buf).await?;
            Ok((len, buf))
        }

        /// As [`read_from`](Self::read_from), but the datagram stays: it is the next one for every
        /// call.
        ///
        /// # Errors
        /// As [`read_from`](Self::read_from). A datagram that is larger than the room stays whole.
        /// # Cancel safety
        /// As [`read_from`](Self::read_from).
        /// # Kernel
        /// As [`recv`](Self::recv).
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send("hello").await?;
        /// let (len, _, _) = receiver.peek_from(Vec::with_capacity(1500)).await?;
        /// assert_eq!(len, receiver.recv().await?.chunk.len());
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn peek_from<B: $crate::buf::IoBufMut>(
            &self,
            buf: B,
        ) -> impl Future<Output = $crate::datagram::DatagramReport<$addr, B>> {
            self.inner().read(buf, $crate::datagram::Reading::Peek)
        }

        /// As [`recv`](Self::recv), without a future: for implementations of other traits. The waker
        /// of the last caller is kept, beside the futures that wait.
        ///
        /// # Errors
        /// As [`recv`](Self::recv).
        /// # Examples
        /// ```
        /// # tamam::run(async {
        #[doc = $ends]
        /// sender.send("hello").await?;
        /// let datagram = std::future::poll_fn(|cx| receiver.poll_recv(cx)).await?;
        /// assert_eq!(&datagram.chunk[..], b"hello");
        /// # std::io::Result::Ok(())
        /// # })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn poll_recv(
            &self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<$crate::datagram::Datagram<$addr>>> {
            self.inner().poll_recv(cx)
        }
    };
}

pub(crate) use datagram_calls;
