//! The auto traits of every public type, as they are meant. The table is checked when it is compiled:
//! a row that is not so any more does not build.
//!
//! What belongs to a runtime is neither `Send` nor `Sync`; `Upgradeable` is `Send`, and checks its
//! thread. What is not `UnwindSafe` has a foreign value inside: an `io::Error`, a resolver, a config
//! of rustls.

mod common;

use std::cell::Cell;
use std::marker::{PhantomData, PhantomPinned};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;

use tamam::buf::BufError;
use tamam::hyper::{Executor, Timer, Upgradeable};
use tamam::io::{AnyStream, DuplexStream, Stderr, Stdin, Stdout};
use tamam::io::{
    CallError, Copied, Lines, Readiness, ReadyFor, ReadyGuard, Side, Truncated, TryIoError,
};
use tamam::net::{
    Datagram, Ecn, Envelope, Incoming, IntoStdError, MulticastGroup, OwnedReadHalf, OwnedWriteHalf,
    ReuniteError, SystemResolver, TcpKeepalive, TcpListener, TcpOptions, TcpSocket, TcpStream,
    UdpBuilder, UdpSocket, UnixAddr, UnixCred, UnixDatagram, UnixListener, UnixReadHalf,
    UnixStream, UnixWriteHalf, UnlinkOnDrop,
};
use tamam::pipe::{OpenOptions, Receiver, Sender};
use tamam::signal::{Next, ShutdownSignal, Signal, SignalKind};
use tamam::time::{Elapsed, Interval, MissedTickBehavior, Sleep, Timeout, sleep};
#[cfg(feature = "tls")]
use tamam::tls::{
    LazyConfigAcceptor, StartHandshake, TlsAcceptor, TlsConnector, TlsError, TlsInfo, TlsReadHalf,
    TlsReuniteError, TlsStream, TlsWriteHalf,
};
use tamam::{
    AbortHandle, Backend, BlockingHandle, Builder, Capabilities, Chunk, EnterGuard, Feature,
    JoinError, JoinHandle, Limit, Metrics, ParseBackendError, Report, Runtime, SetupError, Support,
    TaskId, YieldNow,
};

/// What types have that do not have a trait.
trait Fallback {
    const HAS: bool = false;
}

/// Whether a type has a trait: then the constant of `Has` itself hides that of `Fallback`.
macro_rules! has {
    ($type:ty, $trait:path) => {{
        #[allow(dead_code, reason = "it is used for the types that have the trait")]
        struct Has<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code, reason = "it is used for the types that have it not")]
        impl<T: ?Sized + $trait> Has<T> {
            const HAS: bool = true;
        }
        impl<T: ?Sized> Fallback for Has<T> {}
        Has::<$type>::HAS
    }};
}

const fn is(word: &str) -> bool {
    assert!(matches!(word.as_bytes(), b"yes" | b"no"), "each column is yes or no");
    matches!(word.as_bytes(), b"yes")
}

macro_rules! rows {
    ($send:ident, $sync:ident, $unpin:ident, $unwind:ident, $ref_unwind:ident: $($type:ty),*) => {
        $(const _: () = {
            assert!(has!($type, Send) == is(stringify!($send)));
            assert!(has!($type, Sync) == is(stringify!($sync)));
            assert!(has!($type, Unpin) == is(stringify!($unpin)));
            assert!(has!($type, UnwindSafe) == is(stringify!($unwind)));
            assert!(has!($type, RefUnwindSafe) == is(stringify!($ref_unwind)));
        };)*
    };
}

// Send, Sync, Unpin, UnwindSafe, RefUnwindSafe: the types.
rows!(yes, yes, yes, yes, yes:
    Upgradeable<TcpStream>, Envelope, Ecn, Truncated, MulticastGroup,
    ReadyFor, TryIoError, Side, UnixCred, UnlinkOnDrop, OpenOptions,
    JoinError, TaskId, YieldNow, BlockingHandle<u8>, BlockingHandle<Cell<u8>>, Backend,
    Capabilities, Feature, ParseBackendError, SetupError, Support, Limit, Metrics,
    TcpKeepalive, TcpOptions, SystemResolver, Elapsed, MissedTickBehavior, Signal, SignalKind,
    Executor, Timer
);
#[cfg(feature = "quinn")]
rows!(yes, yes, yes, yes, yes: tamam::quinn::Quic);
rows!(yes, yes, yes, no, no: Copied, Builder, Report, BufError<Vec<u8>>, CallError, Next, ShutdownSignal);
rows!(no, no, yes, yes, yes:
    Readiness<OwnedFd>, ReadyGuard<'static, OwnedFd>,
    Runtime, EnterGuard<'static>, JoinHandle<Rc<Cell<u8>>>, AbortHandle, Chunk, TcpListener,
    Incoming<'static>, TcpSocket, TcpStream, OwnedReadHalf, OwnedWriteHalf, ReuniteError,
    UnixListener, UnixStream, UnixReadHalf, UnixWriteHalf, Receiver, Sender, Lines<UnixStream>,
    UdpSocket, UnixDatagram, Datagram<SocketAddr>, Datagram<UnixAddr>, DuplexStream, AnyStream,
    Stdin, Stdout, Stderr, Sleep, Timeout<u8>, Interval
);
rows!(no, no, yes, no, no: UdpBuilder, IntoStdError, IntoStdError<UnixStream>);
rows!(no, no, no, yes, yes: Timeout<PhantomPinned>);

#[cfg(feature = "tls")]
mod of_tls {
    use super::*;

    rows!(yes, yes, yes, yes, yes: TlsInfo);
    rows!(yes, yes, yes, no, no: TlsConnector, TlsAcceptor, TlsError);
    rows!(no, no, yes, yes, yes:
        LazyConfigAcceptor, TlsStream, TlsReadHalf, TlsWriteHalf, TlsReuniteError
    );
    rows!(no, no, yes, no, no: StartHandshake);
}

/// What `UnwindSafe` promises: after a panic in the middle of a use, the objects work as before.
#[test]
fn objects_work_after_a_panic() {
    let runtime = Runtime::new().expect("an engine");
    let (listener, stream) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await;
        (listener, stream.expect("it listens"))
    });
    let (server, _) = runtime.block_on(listener.accept()).expect("it is there");
    for _ in 0..3 {
        // Not asserted: these types say so themselves.
        let panicked = catch_unwind(|| {
            runtime.block_on(async {
                let _receiving = common::start(server.recv()).await;
                let _accepting = common::start(listener.accept()).await;
                let _sleeping = common::start(sleep(std::time::Duration::from_secs(9))).await;
                drop(stream.send_all("x").await);
                panic!("as asked");
            })
        });
        assert!(panicked.is_err());
        let chunk = runtime.block_on(server.recv()).expect("no error").expect("the byte");
        assert_eq!(&chunk[..], b"x");
        let kept = catch_unwind(|| assert_eq!(&chunk[..], b"y"));
        assert!(kept.is_err() && chunk.len() == 1);
    }
    let task = runtime.spawn(async { 5 });
    drop(catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { panic!("as asked") }))));
    assert_eq!(runtime.block_on(task).expect("no panic"), 5);
}
