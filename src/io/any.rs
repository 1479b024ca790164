//! `AnyStream`: a stream whose kind is known at run time. Read next: `stream/layer.rs`.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::standard::{DirectStandard, ThreadedStandard};
use super::{DuplexStream, receives, transmits};
use crate::buf::{Fill, Outgoing};
use crate::deferred::Deferred;
use crate::driver::Driver;
use crate::net::{TcpStream, UnixStream};
use crate::queue::{Key, WaiterId};
use crate::stream::{
    Asked, Bottom, Carried, Carrier, Drained, Fate, QueuedOutcome, QueuedSend, Source, Ticket,
    Unread, receiving_calls, sending_calls,
};
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A stream of any kind: for code that is no generic function, such as a list of connections. It has
/// the calls of the stream that it was made of.
///
/// TLS over it is one of these streams too, so a tunnel may be as deep as one likes.
///
/// # Examples
/// ```
/// use tamam::io::{AnyStream, duplex};
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let ((a, b), (c, d)) = (duplex(1024), UnixStream::pair()?);
/// let peers: Vec<AnyStream> = vec![a.into(), c.into()];
/// for peer in &peers {
///     peer.send_all("hello").await?;
/// }
/// assert_eq!(&b.recv().await?.expect("a message")[..], b"hello");
/// assert_eq!(&d.recv().await?.expect("a message")[..], b"hello");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct AnyStream {
    carrier: Rc<AnyCarrier>,
}

/// The kinds of streams.
#[derive(Debug)]
pub(crate) enum AnyCarrier {
    Tcp(TcpStream),
    Unix(UnixStream),
    Memory(DuplexStream),
    DirectStandard(DirectStandard),
    ThreadedStandard(ThreadedStandard),
    #[cfg(feature = "tls")]
    TlsOverTcp(TlsStream),
    #[cfg(feature = "tls")]
    TlsOverUnix(TlsStream<UnixStream>),
    #[cfg(feature = "tls")]
    TlsOverMemory(TlsStream<DuplexStream>),
    #[cfg(feature = "tls")]
    TlsOverAny(TlsStream<AnyStream>),
}

/// The call, on the stream that is there.
macro_rules! on {
    ($any:expr, $stream:ident => $call:expr) => {
        match $any {
            AnyCarrier::Tcp($stream) => $call,
            AnyCarrier::Unix($stream) => $call,
            AnyCarrier::Memory($stream) => $call,
            AnyCarrier::DirectStandard($stream) => $call,
            AnyCarrier::ThreadedStandard($stream) => $call,
            #[cfg(feature = "tls")]
            AnyCarrier::TlsOverTcp($stream) => $call,
            #[cfg(feature = "tls")]
            AnyCarrier::TlsOverUnix($stream) => $call,
            #[cfg(feature = "tls")]
            AnyCarrier::TlsOverMemory($stream) => $call,
            #[cfg(feature = "tls")]
            AnyCarrier::TlsOverAny($stream) => $call,
        }
    };
}

/// The same calls on the carrier of the stream that is there, or on what is below all its layers.
macro_rules! passed_on {
    ($to:ident: $($(#[$attr:meta])* fn $name:ident(
        self: $me:ty $(, $arg:ident: $type:ty)* $(,)?
    ) $(-> $output:ty)?;)*) => {$(
        $(#[$attr])*
        fn $name(self: $me $(, $arg: $type)*) $(-> $output)? {
            let any: &AnyCarrier = self;
            on!(any, stream => $to(stream).$name($($arg),*))
        }
    )*};
}

fn carrier<S: Carried>(stream: &S) -> &Rc<S::Carrier> {
    stream.carrier()
}

fn bottom<S: Carried>(stream: &S) -> &<S::Carrier as Source>::Bottom {
    stream.carrier().bottom()
}

impl AnyStream {
    receiving_calls!(
        carrier,
        "# let (sender, receiver) = tamam::io::duplex(1024);\n\
         # let [sender, receiver] = [sender, receiver].map(tamam::io::AnyStream::from);"
    );
    sending_calls!(
        carrier,
        "# let (sender, receiver) = tamam::io::duplex(1024);\n\
         # let [sender, receiver] = [sender, receiver].map(tamam::io::AnyStream::from);"
    );
}

/// Made of a stream of its kind.
macro_rules! from {
    ($($stream:ty => $kind:ident),* $(,)?) => {$(
        impl From<$stream> for AnyStream {
            fn from(stream: $stream) -> AnyStream {
                AnyStream { carrier: Rc::new(AnyCarrier::$kind(stream)) }
            }
        }
    )*};
}

from!(TcpStream => Tcp, UnixStream => Unix, DuplexStream => Memory);
#[cfg(feature = "tls")]
from!(
    TlsStream => TlsOverTcp,
    TlsStream<UnixStream> => TlsOverUnix,
    TlsStream<DuplexStream> => TlsOverMemory,
    TlsStream<AnyStream> => TlsOverAny,
);

impl fmt::Debug for AnyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyStream::")?;
        self.carrier.fmt(f)
    }
}

receives!(AnyStream);
transmits!(AnyStream { |any| on!(&*any.carrier, stream => stream.abort_on_drop()) });

impl Carried for AnyStream {
    type Carrier = AnyCarrier;

    fn carrier(&self) -> &Rc<AnyCarrier> {
        &self.carrier
    }
}

impl Source for AnyCarrier {
    type Bottom = AnyCarrier;

    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        on!(self, stream => stream.carrier().with_unread(run))
    }

    fn bottom(&self) -> &AnyCarrier {
        self
    }

    passed_on! {
        carrier:
        fn lend_min(self: &Self) -> Option<usize>;
        fn ask(
            self: &Rc<Self>,
            lend: Option<Rc<Fill<dyn Any>>>,
            cx: &mut Context<'_>,
        ) -> Asked;
        fn can_get_further(self: &Rc<Self>) -> bool;
        fn bytes_were_taken(self: &Rc<Self>);
    }
}

impl Bottom for AnyCarrier {
    passed_on! {
        bottom:
        fn poll_home(self: &Self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
        fn wait_for_arrival(self: &Self, id: &mut Option<WaiterId>, cx: &mut Context<'_>);
        fn stop_waiting_for_arrival(self: &Self, id: Option<WaiterId>);
        fn wake_receivers(self: &Self);
        fn recall_buffer(self: &Self);
        fn end_receive(self: &Self);
        fn receive_again(self: &Self) -> bool;
        fn wait_for_progress(self: &Self, id: &mut Option<WaiterId>, cx: &mut Context<'_>);
        fn stop_waiting_for_progress(self: &Self, id: Option<WaiterId>);
        fn wake_senders(self: &Self);
    }
}

impl Carrier for AnyCarrier {
    passed_on! {
        carrier:
        fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_>;
        fn driver(self: &Self) -> Option<&Rc<Driver>>;
        fn depth(self: &Self) -> u32;
        fn check_sendable(self: &Self) -> io::Result<()>;
        fn check_going_out(self: &Self) -> io::Result<()>;
        fn unsent(self: &Self) -> usize;
        fn queue(
            self: &Rc<Self>,
            payload: Outgoing,
            waker: Option<Waker>,
            fate: Fate,
        ) -> Ticket;
        fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>);
        fn ask_shutdown(self: &Rc<Self>);
        fn abandon(self: &Rc<Self>, ticket: Ticket);
        fn take_back(self: &Rc<Self>, key: Key) -> Outgoing;
        fn poll_sent(self: &Rc<Self>, send: &mut QueuedSend, cx: &mut Context<'_>) -> Poll<QueuedOutcome>;
        fn poll_shutdown(
            self: &Rc<Self>,
            id: &mut Option<WaiterId>,
            cx: &mut Context<'_>,
        ) -> Poll<io::Result<()>>;
    }
}
