//! `duplex`: a stream in memory. What waits where is not here, but in `stream/memory.rs`.

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use super::{receives, transmits};
use crate::stream::{Carried, Carrier, MemoryEnd, receiving_calls, sending_calls};

/// Two ends of a stream in memory: what is sent to one is received from the other. In each direction
/// `capacity` bytes, and at least one, wait for the receiver; sends of more wait until it takes some.
///
/// No kernel takes part in it, and no runtime: it works under every executor, on one thread. TLS over
/// it needs a runtime.
///
/// # Examples
/// A test of code for every stream, without a socket:
/// ```
/// use tamam::io::{Lines, Receive, Transmit, duplex};
///
/// async fn greet(stream: impl Receive + Transmit) -> std::io::Result<()> {
///     let name = Lines::new(&stream).next_line().await?.unwrap_or_default();
///     stream.send_all(format!("hello {name}")).await?;
///     stream.shutdown().await
/// }
///
/// # tamam::run(async {
/// let (client, server) = duplex(1024);
/// tamam::spawn(greet(server));
/// client.send_all("world\n").await?;
/// assert_eq!(tamam::io::read_to_end(&client, 100).await?, b"hello world");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn duplex(capacity: usize) -> (DuplexStream, DuplexStream) {
    let (one, other) = MemoryEnd::pair(capacity);
    (DuplexStream { end: one }, DuplexStream { end: other })
}

/// One end of a stream in memory: see [`duplex`]. All methods take `&self`: receive and send at once,
/// from any number of tasks.
///
/// Dropping it ends both directions: the other end receives what was sent, then the end, and its sends
/// are `BrokenPipe`; what it had sent and was not received is gone.
///
/// # Examples
/// See [`duplex`].
pub struct DuplexStream {
    end: Rc<MemoryEnd>,
}

impl DuplexStream {
    receiving_calls!(carrier, "# let (sender, receiver) = tamam::io::duplex(1024);");
    sending_calls!(carrier, "# let (sender, receiver) = tamam::io::duplex(1024);");
}

impl Carried for DuplexStream {
    type Carrier = MemoryEnd;

    fn carrier(&self) -> &Rc<MemoryEnd> {
        &self.end
    }
}

impl fmt::Debug for DuplexStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuplexStream").finish_non_exhaustive()
    }
}

receives!(DuplexStream);
transmits!(DuplexStream { |stream| stream.end.abort_on_drop() });
