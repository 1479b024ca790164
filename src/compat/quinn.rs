//! What quinn needs of a runtime: [`Quic`], its `Runtime`, with timers and a socket.
//!
//! ```
//! use std::sync::Arc;
//!
//! async fn serve(own: quinn::EndpointConfig, config: quinn::ServerConfig) -> std::io::Result<()> {
//!     let socket = std::net::UdpSocket::bind("127.0.0.1:4433")?;
//!     let quic = Arc::new(tamam::quinn::Quic::new());
//!     let endpoint = quinn::Endpoint::new(own, Some(config), socket, quic)?;
//!     while let Some(incoming) = endpoint.accept().await {
//!         tamam::spawn(async move {
//!             let connection = incoming.await?;
//!             let (mut send, mut recv) = connection.accept_bi().await?;
//!             let request = recv.read_to_end(64 * 1024).await?;
//!             send.write_all(&request).await?;
//!             send.finish()?;
//!             Ok::<_, Box<dyn std::error::Error>>(())
//!         });
//!     }
//!     Ok(())
//! }
//! ```

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use ::quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use ::quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};

use super::at_home::AtHome;
use crate::net::{Datagram, Ecn, Envelope, UdpSocket};
use crate::queue::WaiterId;
use crate::runtime::spawn;
use crate::time::{Sleep, sleep_until};

/// How many datagrams one send or one receive may have.
const SEGMENTS_MAX: usize = 64;

/// quinn's `Runtime` on the runtime of this thread: for
/// [`quinn::Endpoint::new`](::quinn::Endpoint::new).
///
/// An endpoint and its connections stay on the thread that made the endpoint: quinn demands that its
/// parts may go to other threads, and they panic when they are used there. What is dropped there is
/// leaked.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Quic;

impl Quic {
    /// A `Runtime` that uses the runtime entered at the time of each call.
    pub fn new() -> Quic {
        Quic
    }
}

impl Runtime for Quic {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(QuicTimer(AtHome::new(sleep_until(deadline))))
    }

    #[track_caller]
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = UdpSocket::from_std(socket)?;
        socket.set_packet_info(true)?;
        let merges = socket.set_gro(true).is_ok();
        let may_fragment = socket.forbid_fragments().is_err();
        let divides = socket.divides_segments();
        let local_addr = socket.local_addr()?;
        let socket = AtHome::new(Rc::new(socket));
        Ok(Arc::new(QuicSocket { socket, local_addr, divides, merges, may_fragment }))
    }
}

struct QuicTimer(AtHome<Sleep>);

impl AsyncTimer for QuicTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.get_mut().reset(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(self.0.get_mut()).poll(cx)
    }
}

impl fmt::Debug for QuicTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTimer").field("home", &self.0.home()).finish_non_exhaustive()
    }
}

/// A socket for an endpoint.
struct QuicSocket {
    socket: AtHome<Rc<UdpSocket>>,
    /// Kept here, since an endpoint is asked for it on any thread.
    local_addr: SocketAddr,
    /// The kernel divides what is sent into datagrams.
    divides: bool,
    /// It may merge what is received.
    merges: bool,
    may_fragment: bool,
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let waiting = RoomWait { socket: self.socket.get().clone(), id: None };
        Box::pin(QuicPoller(AtHome::new(waiting)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let envelope = Envelope {
            to: Some(transmit.destination),
            from: transmit.src_ip,
            ecn: transmit.ecn.map(|ecn| match ecn {
                EcnCodepoint::Ect0 => Ecn::Ect0,
                EcnCodepoint::Ect1 => Ecn::Ect1,
                EcnCodepoint::Ce => Ecn::Ce,
            }),
            segment_size: transmit.segment_size,
        };
        match self.socket.get().try_send_msg(transmit.contents, &envelope) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // Any other error is that of one datagram: quinn sends it again, as if it were lost.
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket.get();
        let mut next = Some(ready!(socket.poll_recv(cx))?);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = next.take() else { break };
            *meta = meta_of(&datagram, buf);
            count += 1;
            if count < SEGMENTS_MAX {
                next = socket.take_unread();
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }

    fn max_transmit_segments(&self) -> usize {
        if self.divides { SEGMENTS_MAX } else { 1 }
    }

    fn max_receive_segments(&self) -> usize {
        if self.merges { SEGMENTS_MAX } else { 1 }
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Copies a datagram into a buffer of quinn's, and tells the rest.
fn meta_of(datagram: &Datagram, buf: &mut [u8]) -> RecvMeta {
    let len = datagram.chunk.len().min(buf.len());
    buf[..len].copy_from_slice(&datagram.chunk[..len]);
    let mut meta = RecvMeta::default();
    (meta.addr, meta.len, meta.stride) = (datagram.from, len, datagram.segment_size);
    meta.dst_ip = datagram.to;
    meta.ecn = match datagram.ecn {
        Some(Ecn::Ect0) => Some(EcnCodepoint::Ect0),
        Some(Ecn::Ect1) => Some(EcnCodepoint::Ect1),
        Some(Ecn::Ce) => Some(EcnCodepoint::Ce),
        Some(Ecn::NotEct) | None => None,
    };
    meta
}

impl fmt::Debug for QuicSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSocket").field("home", &self.socket.home()).finish_non_exhaustive()
    }
}

/// A connection that waits for room to send.
struct QuicPoller(AtHome<RoomWait>);

struct RoomWait {
    socket: Rc<UdpSocket>,
    id: Option<WaiterId>,
}

impl UdpPoller for QuicPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let RoomWait { socket, id } = self.0.get_mut();
        socket.poll_room(id, cx)
    }
}

impl Drop for RoomWait {
    fn drop(&mut self) {
        self.socket.stop_waiting_for_room(self.id);
    }
}

impl fmt::Debug for QuicPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicPoller").field("home", &self.0.home()).finish_non_exhaustive()
    }
}
