//! G9: every public future, in a loop in which it is ready at once. The loop lets others run.

use std::future::ready;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use tamam::io::{
    AnyStream, DuplexStream, Lines, Readiness, ReadyFor, Receive, copy, copy_both, duplex,
    read_to_end, read_until, stderr, stdout,
};
use tamam::net::{
    Envelope, TcpKeepalive, TcpListener, TcpSocket, TcpStream, UdpSocket, UnixAddr, UnixDatagram,
    UnixListener, UnixStream, lookup_host,
};
use tamam::signal::{SignalKind, signal};
use tamam::task::{consume_budget, cooperative};
use tamam::time::{interval_at, sleep, sleep_until, timeout, timeout_at};
use tamam::{spawn, spawn_blocking, yield_now};

#[path = "../common/ready_at_once.rs"]
pub mod looped;

use looped::{Line, ROUNDS, assert_others_run, line};

const MS: Duration = Duration::from_millis(1);

/// Futures that have no line of their own.
#[expect(dead_code, reason = "a list for the reader, and for `tidy`")]
const ELSEWHERE: [&str; 7] = [
    "ctrl_c",         // one answer for a signal: as `Signal::recv`
    "terminate",      // the same
    "shutdown",       // the same
    "spawn",          // its handle is `JoinHandle`
    "Runtime::spawn", // the same
    "spawn_blocking",
    "TcpStream::close", // as `shutdown`, then as `recv`
];

/// An address to which there is no route: under epoll the answer comes at once.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([255, 255, 255, 255], 1))
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await;
    let (server, _) = listener.accept().await.expect("it is there");
    (client.expect("somebody listens"), server)
}

/// Its peer has ended, and it has shut down.
async fn ended() -> TcpStream {
    let (stream, peer) = tcp_pair().await;
    stream.shutdown().await.expect("connected");
    drop(peer);
    assert!(stream.recv().await.expect("no reset").is_none());
    stream
}

/// A listener that cannot accept any more.
fn not_listening() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    // SAFETY: takes no pointers.
    let done = unsafe { libc::shutdown(listener.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
    assert_eq!(done, 0, "a listener may be shut down");
    listener
}

/// As [`ended`], over a Unix socket.
async fn ended_unix() -> UnixStream {
    let (stream, _peer) = UnixStream::pair().expect("a pair");
    stream.shutdown().await.expect("connected");
    stream
}

/// As [`ended`], in memory.
fn ended_memory() -> DuplexStream {
    duplex(1).0
}

fn unnamed() -> UnixAddr {
    UnixAddr::from_pathname("").expect("as std has it")
}

/// As [`not_listening`], over a Unix socket.
fn no_unix_listener() -> UnixListener {
    let listener = UnixListener::bind_addr(&unnamed()).expect("the kernel chooses a name");
    // SAFETY: takes no pointers.
    let done = unsafe { libc::shutdown(listener.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
    assert_eq!(done, 0, "a listener may be shut down");
    listener
}

/// A stream that has the trait's own methods.
struct ForeignStream(TcpStream);

impl Receive for ForeignStream {
    async fn recv(&self) -> std::io::Result<Option<tamam::Chunk>> {
        self.0.recv().await
    }

    fn unread(&self, chunk: tamam::Chunk) {
        self.0.unread(chunk);
    }
}
/// A datagram socket that is its own peer.
async fn own_peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.connect(socket.local_addr().expect("bound")).await.expect("it is there");
    socket
}

/// As [`own_peer`], with a datagram in it.
async fn own_peer_with_one() -> UdpSocket {
    let socket = own_peer().await;
    has_one(&socket);
    socket
}

/// Gives it a datagram.
fn has_one(socket: &UdpSocket) -> &UdpSocket {
    socket.try_send(b"one").expect("room");
    socket
}

/// Two Unix datagram sockets, each the peer of the other.
fn unix_datagrams() -> (UnixDatagram, UnixDatagram) {
    UnixDatagram::pair().expect("a pair")
}

/// Gives the second a datagram.
fn has_one_unix(pair: &(UnixDatagram, UnixDatagram)) -> &UnixDatagram {
    pair.0.try_send(b"one").expect("room");
    &pair.1
}

/// As [`unix_datagrams`], with a datagram in the second.
fn unix_datagrams_with_one() -> (UnixDatagram, UnixDatagram) {
    let pair = unix_datagrams();
    has_one_unix(&pair);
    pair
}

/// Takes what was sent before, so that there is room.
fn sent_unix(pair: &(UnixDatagram, UnixDatagram)) -> &UnixDatagram {
    drop(pair.1.try_recv());
    &pair.0
}

/// One whose peer is gone.
fn ended_unix_datagram() -> UnixDatagram {
    unix_datagrams().0
}

/// A message of no possible size: refused at once on both engines.
const IMPOSSIBLE: Envelope = Envelope { to: None, from: None, ecn: None, segment_size: Some(0) };

fn lines() -> Vec<Line> {
    vec![
        line!("UdpSocket::recv", own_peer().await, |socket| has_one(&socket).recv()),
        line!("UdpSocket::read_from", own_peer().await, |socket| {
            has_one(&socket).read_from(Vec::with_capacity(9))
        }),
        line!("UdpSocket::read_from", own_peer().await, |socket| socket.read_from(Vec::new())),
        line!("UdpSocket::read", own_peer().await, |socket| socket.read(Vec::new())),
        line!("UdpSocket::peek_from", own_peer_with_one().await, |socket| {
            socket.peek_from(Vec::with_capacity(9))
        }),
        line!("UdpSocket::send", own_peer().await, |socket| socket.send("one")),
        line!("UdpSocket::send_to", own_peer().await, |socket| socket.send_to("one", nowhere())),
        line!("UdpSocket::send_msg", own_peer().await, |socket| socket.send_msg("", IMPOSSIBLE)),
        line!("UdpSocket::send_segments", own_peer().await, |socket| {
            socket.send_segments("one", 1, nowhere())
        }),
        line!("UnixDatagram::recv", unix_datagrams(), |pair| has_one_unix(&pair).recv()),
        line!("UnixDatagram::read_from", unix_datagrams(), |pair| {
            has_one_unix(&pair).read_from(Vec::with_capacity(9))
        }),
        line!("UnixDatagram::read", unix_datagrams(), |pair| pair.0.read(Vec::new())),
        line!("UnixDatagram::peek_from", unix_datagrams_with_one(), |pair| {
            pair.1.peek_from(Vec::with_capacity(9))
        }),
        line!("UnixDatagram::send", unix_datagrams(), |pair| sent_unix(&pair).send("one")),
        line!("UnixDatagram::send", ended_unix_datagram(), |socket| socket.send("one")),
        line!("UnixDatagram::send_to", unix_datagrams(), |pair| pair.0.send_to("one", "a\0b")),
        line!("UnixDatagram::send_to", unix_datagrams(), |pair| pair.0.send_to("one", "/none")),
        line!("UnixDatagram::send_to_addr", (ended_unix_datagram(), unnamed()), |state| {
            state.0.send_to_addr("one", &state.1)
        }),
        line!("UdpSocket::connect", own_peer().await, |socket| socket.connect(nowhere())),
        line!("TcpStream::recv", ended().await, |stream| stream.recv()),
        line!("TcpStream::read", ended().await, |stream| stream.read(Vec::with_capacity(1))),
        line!("TcpStream::read", ended().await, |stream| stream.read(Vec::new())),
        line!("TcpStream::read_exact", ended().await, |stream| stream.read_exact(Vec::new(), 0)),
        line!("TcpStream::peek", ended().await, |stream| stream.peek(Vec::with_capacity(1))),
        line!("TcpStream::peek", ended().await, |stream| stream.peek(Vec::new())),
        line!("TcpStream::send", ended().await, |stream| stream.send("late")),
        line!("TcpStream::send", ended().await, |stream| stream.send("")),
        line!("TcpStream::send_all", ended().await, |stream| stream.send_all("late")),
        line!("TcpStream::sendv", ended().await, |stream| stream.sendv(vec!["late"])),
        line!("TcpStream::shutdown", ended().await, |stream| stream.shutdown()),
        line!("OwnedReadHalf::recv", ended().await.into_split().0, |half| half.recv()),
        line!("OwnedReadHalf::read", ended().await.into_split().0, |half| half.read(Vec::new())),
        line!("OwnedReadHalf::read_exact", ended().await.into_split().0, |half| half
            .read_exact(Vec::new(), 0)),
        line!("OwnedReadHalf::peek", ended().await.into_split().0, |half| half.peek(Vec::new())),
        line!("OwnedWriteHalf::send", ended().await.into_split().1, |half| half.send("late")),
        line!("OwnedWriteHalf::send_all", ended().await.into_split().1, |half| half
            .send_all("late")),
        line!("OwnedWriteHalf::sendv", ended().await.into_split().1, |half| half
            .sendv(vec!["late"])),
        line!("OwnedWriteHalf::shutdown", ended().await.into_split().1, |half| half.shutdown()),
        line!("TcpListener::accept", not_listening(), |listener| listener.accept()),
        line!("Incoming::next", not_listening(), |listener| async {
            listener.incoming().next().await
        }),
        line!("TcpStream::connect", (), |_state| TcpStream::connect("nonsense")),
        line!("TcpStream::connect", (), |_state| TcpStream::connect(nowhere())),
        line!("TcpStream::connect_staggered", (), |_state| {
            TcpStream::connect_staggered("nonsense", MS)
        }),
        line!("TcpStream::connect_staggered", (), |_state| {
            TcpStream::connect_staggered(nowhere(), MS)
        }),
        line!("TcpSocket::connect", (), |_state| async {
            TcpSocket::new_v4().expect("a socket").connect(nowhere()).await
        }),
        line!("TcpSocket::connect", (), |_state| async {
            let endless = TcpKeepalive { idle: Some(Duration::MAX), ..Default::default() };
            TcpSocket::new_v4().expect("a socket").keepalive(endless).connect(nowhere()).await
        }),
        line!("DuplexStream::recv", ended_memory(), |stream| stream.recv()),
        line!("DuplexStream::read", ended_memory(), |stream| stream.read(Vec::new())),
        line!("DuplexStream::send_all", ended_memory(), |stream| stream.send_all("late")),
        line!("DuplexStream::send", duplex(1 << 20), |ends| ends.0.send("x")),
        line!("DuplexStream::sendv", ended_memory(), |stream| stream.sendv(vec!["late"])),
        line!("DuplexStream::shutdown", ended_memory(), |stream| stream.shutdown()),
        line!("AnyStream::recv", AnyStream::from(ended().await), |stream| stream.recv()),
        line!("AnyStream::read", AnyStream::from(ended().await), |stream| stream.read(Vec::new())),
        line!("AnyStream::send", AnyStream::from(ended().await), |stream| stream.send("late")),
        line!("AnyStream::send_all", AnyStream::from(duplex(1 << 20).0), |stream| stream
            .send_all("")),
        line!("AnyStream::sendv", AnyStream::from(ended_unix().await), |stream| stream
            .sendv(vec!["late"])),
        line!("AnyStream::shutdown", AnyStream::from(ended().await), |stream| stream.shutdown()),
        line!("UnixStream::recv", ended_unix().await, |stream| stream.recv()),
        line!("UnixStream::read", ended_unix().await, |stream| stream.read(Vec::new())),
        line!("UnixStream::send_all", ended_unix().await, |stream| stream.send_all("late")),
        line!("UnixStream::shutdown", ended_unix().await, |stream| stream.shutdown()),
        line!("UnixStream::send_fds", ended_unix().await, |stream| stream.send_fds("late", &[])),
        line!("UnixStream::send_fds", ended_unix().await, |stream| stream.send_fds("", &[])),
        line!("UnixStream::recv_fds", ended_unix().await, |stream| stream.recv_fds()),
        line!("UnixReadHalf::recv_fds", ended_unix().await.into_split().0, |half| half.recv_fds()),
        line!("UnixWriteHalf::send_fds", ended_unix().await.into_split().1, |half| half
            .send_fds("", &[])),
        line!("Stdout::shutdown", stdout().expect("open"), |stream| async {
            stream.shutdown().await
        }),
        line!("Stderr::shutdown", stderr().expect("open"), |stream| async {
            stream.shutdown().await
        }),
        line!("UnixStream::connect", (), |_state| UnixStream::connect("/nonsense/socket")),
        line!("UnixStream::connect", (), |_state| UnixStream::connect("a\0b")),
        line!("UnixStream::connect_addr", unnamed(), |addr| UnixStream::connect_addr(&addr)),
        line!("UnixListener::accept", no_unix_listener(), |listener| listener.accept()),
        line!("copy", ended().await, |stream| copy(&stream, &stream)),
        line!("copy_both", ended().await, |stream| copy_both(&stream, &stream)),
        line!("read_to_end", ended().await, |stream| read_to_end(&stream, 0)),
        line!("read_until", ended().await, |stream| read_until(&stream, 0, 0)),
        line!("Lines::next_line", Lines::new(ended().await), |lines| lines.next_line()),
        line!("Receive::read", ForeignStream(ended().await), |stream| stream.read(Vec::new())),
        line!("Receive::read_exact", ForeignStream(ended().await), |stream| stream
            .read_exact(Vec::new(), 0)),
        line!("lookup_host", (), |_state| lookup_host("127.0.0.1:80")),
        line!("lookup_host", (), |_state| lookup_host("nonsense")),
        line!("Readiness::readable", ended_socket(ReadyFor::Both), |socket| socket.readable()),
        line!("Readiness::readable", ended_socket(ReadyFor::Write), |socket| socket.readable()),
        line!("Readiness::writable", ended_socket(ReadyFor::Both), |socket| socket.writable()),
        line!("sleep", (), |_state| sleep(Duration::ZERO)),
        line!("sleep_until", Instant::now(), |start| sleep_until(start)),
        line!("timeout", (), |_state| timeout(Duration::ZERO, sleep(Duration::ZERO))),
        line!("timeout_at", Instant::now(), |start| timeout_at(start, sleep(Duration::MAX))),
        line!("Interval::tick", due_for_long(), |ticks| ticks.tick()),
        line!("JoinHandle", finished().await, |handles| handles.pop().expect("one a round")),
        line!("BlockingHandle", finished_closures().await, |handles| handles
            .pop()
            .expect("one a round")),
        line!("Signal::recv", signal(SignalKind::WINDOW).expect("may be handled"), |signals| {
            raise(libc::SIGWINCH);
            signals.recv()
        }),
        line!("yield_now", (), |_state| yield_now()),
        line!("consume_budget", (), |_state| consume_budget()),
        line!("cooperative", (), |_state| cooperative(ready(()))),
    ]
}

/// A socket of std's whose peer is gone.
fn ended_socket(asked: ReadyFor) -> Readiness<std::os::unix::net::UnixStream> {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors");
    Readiness::with_interest(ours, asked).expect("a socket can be watched")
}

fn due_for_long() -> tamam::time::Interval {
    let ticks = interval_at(Instant::now(), Duration::from_nanos(1));
    thread::sleep(MS);
    ticks
}

async fn finished() -> Vec<tamam::JoinHandle<()>> {
    let handles: Vec<_> = (0..ROUNDS).map(|_| spawn(async {})).collect();
    while handles.iter().any(|handle| !handle.is_finished()) {
        yield_now().await;
    }
    handles
}

async fn finished_closures() -> Vec<tamam::BlockingHandle<()>> {
    let handles: Vec<_> = (0..ROUNDS).map(|_| spawn_blocking(|| ())).collect();
    while handles.iter().any(|handle| !handle.is_finished()) {
        sleep(MS).await;
    }
    handles
}

/// The handler runs before this returns.
fn raise(signal: i32) {
    // SAFETY: takes no pointers. The default action of this signal is none.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[test]
fn g9_every_future_that_is_ready_at_once_lets_others_run() {
    assert_others_run(lines);
}
