//! UX8: Unix datagrams. What they have in common with UDP, and what is different. A full receiver is
//! in `full.rs`.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tamam::io::{CallError, Truncated, errno};
use tamam::net::{UnixAddr, UnixDatagram, UnlinkOnDrop};
use tamam::time::timeout;

use crate::common::{
    self, Gone, alone, begin, engines, everywhere, poll_once, settle, start, turn, with_both,
};
use crate::{MS, free_path, unnamed};

/// A socket with a name that the kernel chooses.
pub fn named() -> (UnixDatagram, UnixAddr) {
    let socket = UnixDatagram::bind_addr(&unnamed()).expect("there are names");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

pub fn pair() -> (UnixDatagram, UnixDatagram) {
    UnixDatagram::pair().expect("descriptors are left")
}

/// A socket with a file, and the guard of it.
fn with_file(name: &str) -> (UnixDatagram, PathBuf, UnlinkOnDrop) {
    let path = free_path(name);
    let socket = UnixDatagram::bind(&path).expect("the folder is there");
    let guard = UnlinkOnDrop::new(&path).expect("it is there");
    (socket, path, guard)
}

pub async fn recv(socket: &UnixDatagram) -> Vec<u8> {
    socket.recv().await.expect("a datagram").chunk.to_vec()
}

/// SO_SNDBUF, of which the kernel makes twice as much.
pub fn set_send_buffer(socket: &impl AsFd, bytes: libc::c_int) {
    let (value, len) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` leads to an int, the type of the option.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, value, len) };
    assert_eq!(done, 0, "SO_SNDBUF can be set");
}

// ---- what is sent arrives -----------------------------------------------------------------------

/// Also those that are larger than any buffer of UDP, up to what the sender's buffer allows.
#[test]
fn ux8_a_datagram_comes_whole_whatever_its_size() {
    everywhere(async || {
        let (sender, receiver) = pair();
        set_send_buffer(&sender, 300_000);
        for _ in 0..2 {
            for size in [0, 1, 4096, 65_507, 65_536, 65_537, 212_960, 400_000] {
                let bytes = common::pattern(size);
                let (sent, buf) = sender.send(bytes.clone()).await.expect("a peer");
                assert_eq!((sent, buf.len()), (size, size));
                let datagram = receiver.recv().await.expect("a datagram");
                common::assert_same(&datagram.chunk, &bytes);
                assert_eq!(datagram.segment_size, size);
                assert_eq!((datagram.to, datagram.ecn), (None, None));
                assert_eq!(datagram.segments().map(<[u8]>::len).collect::<Vec<_>>(), [size]);

                // Or while a call waits for it.
                let waiting = start(receiver.read_from(Vec::with_capacity(size + 1))).await;
                turn().await;
                sender.send(buf).await.expect("a peer");
                let (len, from, buf) = waiting.await.expect("a datagram");
                assert!(len == size && from.is_unnamed());
                common::assert_same(&buf, &bytes);
            }
        }
        let too_large = vec![7; 600_001];
        let error = sender.send(too_large.clone()).await.unwrap_err();
        assert_eq!(errno(error.error()), Some(libc::EMSGSIZE));
        common::assert_same(error.buf(), &too_large);
        let error = sender.try_send(&too_large).unwrap_err();
        assert_eq!(errno(&error), Some(libc::EMSGSIZE));
    });
}

/// In order, to whoever receives, by whatever call; and none is lost.
#[test]
fn ux8_several_receivers_get_each_datagram_once() {
    everywhere(async || {
        const MANY: u32 = 300;
        let (receiver, addr) = named();
        let sender = UnixDatagram::unbound().expect("a descriptor");
        sender.connect_addr(&addr).expect("it is there");
        let receiver = Rc::new(receiver);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.clone();
                tamam::spawn(async move {
                    let mut numbers = Vec::new();
                    loop {
                        match recv(&receiver).await.try_into() {
                            Ok(bytes) => numbers.push(u32::from_le_bytes(bytes)),
                            Err(_) => return numbers, // the last one
                        }
                    }
                })
            })
            .collect();
        turn().await;
        for number in 0..MANY {
            sender.send(number.to_le_bytes().to_vec()).await.expect("a peer");
        }
        for _ in 0..4 {
            sender.send("").await.expect("a peer");
        }
        common::assert_dealt_out(tasks, MANY).await;
    });
}

#[test]
fn ux8_without_a_future() {
    everywhere(async || {
        let (sender, receiver) = pair();
        assert_eq!(receiver.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(tamam::metrics().ops, 0, "nothing is asked for");
        for number in 0..60u8 {
            assert_eq!(sender.try_send(&[number]).expect("room"), 1);
            let datagram = match number % 3 {
                0 => std::future::poll_fn(|cx| receiver.poll_recv(cx)).await,
                1 => receiver.recv().await,
                _ => receiver.try_recv(),
            };
            assert_eq!(datagram.expect("a datagram").chunk[..], [number]);
        }
        // While a call waits, another one may take what comes.
        let mut waiting = start(receiver.recv()).await;
        turn().await;
        sender.try_send(b"one").expect("room");
        assert_eq!(&receiver.try_recv().expect("it is there").chunk[..], b"one");
        settle().await;
        assert!(poll_once(&mut waiting).await.is_pending());
        sender.try_send(b"two").expect("room");
        assert_eq!(&waiting.await.expect("a datagram").chunk[..], b"two");
    });
}

#[test]
fn ux8_too_small_a_buffer_and_peek() {
    everywhere(async || {
        let (sender, receiver) = pair();
        for (room, size) in [(1, 2), (100, 65_507), (7, 150_000)] {
            let bytes = common::pattern(size);
            sender.send(bytes.clone()).await.expect("a peer");
            sender.send("next").await.expect("a peer");
            let peeked = receiver.peek_from(Vec::with_capacity(200_000)).await.expect("one");
            assert_eq!(peeked.0, size);
            for peek in [true, false] {
                let buf = Vec::with_capacity(room);
                let result = match peek {
                    true => receiver.peek_from(buf).await,
                    false => receiver.read_from(buf).await,
                };
                let (error, buf) = result.map(drop).unwrap_err().into_parts();
                assert_eq!(errno(&error), Some(libc::EMSGSIZE));
                let expected = Truncated { received: buf.capacity(), len: size };
                assert_eq!(Truncated::of(&error), Some(&expected));
                assert_eq!(buf[..], bytes[..buf.capacity()]);
            }
            let (len, buf) = receiver.read(Vec::with_capacity(9)).await.expect("a datagram");
            assert_eq!((len, &buf[..]), (4, &b"next"[..]));
        }
        let error = receiver.read(Vec::new()).await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn ux8_futures_that_go_take_nothing() {
    everywhere(async || {
        let (sender, receiver) = pair();
        for gone in Gone::BOTH {
            for number in 0..20u8 {
                gone.leave(start(receiver.recv()).await);
                gone.leave(start(receiver.read_from(Vec::with_capacity(9))).await);
                if number % 2 == 0 {
                    turn().await;
                }
                sender.send(vec![number]).await.expect("a peer");
                sender.send(vec![number, number]).await.expect("a peer");
                turn().await;
                assert_eq!(recv(&receiver).await, [number]);
                assert_eq!(recv(&receiver).await, [number, number]);
            }
            drop(sender.send("never"));
            gone.leave(begin(sender.send("sent")).await);
            assert_eq!(recv(&receiver).await, b"sent");
        }
        assert!(timeout(MS, receiver.recv()).await.is_err());
    });
}

// ---- names --------------------------------------------------------------------------------------

#[test]
fn ux8_names_of_senders() {
    everywhere(async || {
        let (server, path, _guard) = with_file("ux8-names");
        assert_eq!(server.local_addr().expect("bound").as_pathname(), Some(&*path));
        let (filed, filed_path, _other_guard) = with_file("ux8-sender");
        let (abstracted, addr) = named();
        assert_eq!(addr.as_abstract_name().map(<[u8]>::len), Some(5), "autobind");
        let nameless = UnixDatagram::unbound().expect("a descriptor");
        for socket in [&filed, &abstracted, &nameless] {
            socket.send_to("hello", &path).await.expect("it is there");
            assert_eq!(socket.try_send_to(b"again", &path).expect("room"), 5);
        }
        let mut senders = Vec::new();
        for _ in 0..6 {
            senders.push(server.recv().await.expect("a datagram").from);
        }
        for from in &senders[..2] {
            assert_eq!(from.as_pathname(), Some(&*filed_path));
        }
        for from in &senders[2..4] {
            assert_eq!(from.as_abstract_name(), addr.as_abstract_name());
        }
        assert!(senders[4].is_unnamed() && senders[5].is_unnamed());
        server.send_to_addr("answer", &senders[0]).await.expect("it is there");
        server.send_to_addr("answer", &senders[2]).await.expect("it is there");
        assert_eq!(recv(&filed).await, b"answer");
        assert_eq!(recv(&abstracted).await, b"answer");
        let error = server.send_to_addr(vec![1], &senders[4]).await.unwrap_err();
        assert_eq!((error.error().kind(), error.buf()), (ErrorKind::InvalidInput, &vec![1]));
    });
}

/// Nothing is asked of the kernel for a name that cannot be.
#[test]
fn ux8_names_that_cannot_be() {
    everywhere(async || {
        let socket = UnixDatagram::unbound().expect("a descriptor");
        let long = Path::new("/").join("x".repeat(107));
        for path in [long.as_path(), Path::new(std::ffi::OsStr::from_bytes(b"a\0b"))] {
            let bind = UnixDatagram::bind(path).map(drop).expect_err("no such name");
            let connect = socket.connect(path).expect_err("no such name");
            let (send, buf) = socket.send_to(vec![7], path).await.unwrap_err().into_parts();
            assert_eq!(buf, [7]);
            let tried = socket.try_send_to(b"7", path).unwrap_err();
            let calls = ["bind", "connect", "send to", "send to"];
            for (error, call) in [bind, connect, send, tried].into_iter().zip(calls) {
                assert_eq!((error.kind(), errno(&error)), (ErrorKind::InvalidInput, None));
                let failed = CallError::of(&error).expect("it says what was asked");
                assert_eq!((failed.call(), failed.subject()), (call, &*path.display().to_string()));
            }
        }
    });
}

/// Alone: a process that another test is starting would keep the server's socket for a moment.
#[test]
fn ux8_a_path_that_is_there_or_not() {
    alone("datagrams::ux8_a_path_that_is_there_or_not", || {
        everywhere(async || {
            let (server, path, guard) = with_file("ux8-path");
            let error = UnixDatagram::bind(&path).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            drop(server);
            assert!(path.exists(), "the file stays");
            let socket = UnixDatagram::unbound().expect("a descriptor");
            let expect = |error: &std::io::Error, kind: ErrorKind| assert_eq!(error.kind(), kind);
            expect(&socket.connect(&path).unwrap_err(), ErrorKind::ConnectionRefused);
            let error = socket.send_to(vec![7], &path).await.unwrap_err();
            expect(error.error(), ErrorKind::ConnectionRefused);
            assert!(errno(error.error()).is_some() && CallError::of(error.error()).is_none());
            drop(guard);
            expect(&socket.connect(&path).unwrap_err(), ErrorKind::NotFound);
            expect(socket.send_to("x", &path).await.unwrap_err().error(), ErrorKind::NotFound);
            expect(&socket.try_send_to(b"x", &path).unwrap_err(), ErrorKind::NotFound);
            expect(socket.send("x").await.unwrap_err().error(), ErrorKind::NotConnected);
            expect(&socket.try_send(b"x").unwrap_err(), ErrorKind::NotConnected);
        });
    });
}

// ---- peers --------------------------------------------------------------------------------------

/// 1 the peer goes: one send is told, then there is no peer; 2 another one takes its name, which
/// takes a connect; 3 receiving has gone on.
#[test]
fn ux8_the_peer_is_gone_and_comes_back() {
    everywhere(async || {
        let (server, path, guard) = with_file("ux8-gone");
        let (client, addr) = named();
        client.connect(&path).expect("it is there");
        assert_eq!(client.peer_addr().expect("connected").as_pathname(), Some(&*path));
        client.send("one").await.expect("a peer");
        assert_eq!(recv(&server).await, b"one");
        let waiting = start(client.recv()).await;
        turn().await;
        drop((server, guard));
        turn().await;
        let error = client.send(vec![7]).await.unwrap_err();
        assert_eq!((error.error().kind(), error.buf()), (ErrorKind::ConnectionRefused, &vec![7]));
        for _ in 0..2 {
            let error = client.send(vec![7]).await.unwrap_err();
            assert_eq!(error.error().kind(), ErrorKind::NotConnected);
            assert!(client.peer_addr().is_err());
        }
        let server = UnixDatagram::bind(&path).expect("the name is free");
        let _guard = UnlinkOnDrop::new(&path).expect("it is there");
        client.connect(&path).expect("it is there");
        client.send("two").await.expect("a peer");
        let datagram = server.recv().await.expect("a datagram");
        assert_eq!(datagram.from.as_abstract_name(), addr.as_abstract_name());
        server.send_to_addr("three", &datagram.from).await.expect("it is there");
        assert_eq!(&waiting.await.expect("a datagram").chunk[..], b"three");
    });
}

/// A connected socket hears its peer only; who changes its peer tells the one before, if datagrams
/// are thrown away by that.
#[test]
fn ux8_connect_and_disconnect() {
    everywhere(async || {
        let ((one, one_addr), (two, two_addr), (third, _)) = (named(), named(), named());
        one.connect_addr(&two_addr).expect("it is there");
        two.connect_addr(&one_addr).expect("it is there");
        let error = third.send_to_addr("x", &one_addr).await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::PermissionDenied);
        let error = third.connect_addr(&one_addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("connect @"), "{error}");

        let waiting = start(two.recv()).await;
        turn().await;
        two.send("unheard").await.expect("a peer");
        one.disconnect().expect("connected");
        assert!(one.peer_addr().is_err() && one.try_recv().is_err());
        assert_eq!(
            one.local_addr().expect("bound").as_abstract_name(),
            one_addr.as_abstract_name()
        );
        let error = waiting.await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        third.send_to_addr("x", &one_addr).await.expect("it hears everybody now");
        assert_eq!(recv(&one).await, b"x");
        two.send("again").await.expect("its own peer stays");
        assert_eq!(recv(&one).await, b"again");
        one.send_to_addr("answer", &two_addr).await.expect("it is there");
        assert_eq!(recv(&two).await, b"answer");
    });
}

/// Receiving was shut down by somebody else: what waits is received, then every call is told, and no
/// turn is spent on waiting.
#[test]
fn ux8_a_socket_that_was_shut_down() {
    everywhere(async || {
        let (sender, receiver) = pair();
        let waiting = start(receiver.recv()).await;
        turn().await;
        // SAFETY: takes no pointers.
        let done = unsafe { libc::shutdown(receiver.as_fd().as_raw_fd(), libc::SHUT_RD) };
        assert_eq!(done, 0);
        let error = waiting.await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for _ in 0..3 {
            let error = receiver.recv().await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let error = sender.send(vec![7]).await.unwrap_err();
        assert_eq!((error.error().kind(), error.buf()), (ErrorKind::BrokenPipe, &vec![7]));

        let (sender, receiver) = pair();
        sender.send("last").await.expect("a peer");
        // SAFETY: takes no pointers.
        let done = unsafe { libc::shutdown(receiver.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        assert_eq!(recv(&receiver).await, b"last");
        let error = receiver.recv().await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = receiver.send(vec![7]).await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::BrokenPipe);
    });
}

// ---- the end ------------------------------------------------------------------------------------

#[test]
fn ux8_from_std_and_into_std() {
    everywhere(async || {
        let (early, late) = StdDatagram::pair().expect("a pair");
        early.send(b"early").expect("room");
        let socket = UnixDatagram::try_from(late).expect("a runtime");
        assert_eq!(recv(&socket).await, b"early");
        early.send(b"first").expect("room");
        early.send(b"second").expect("room");
        let peeked = socket.peek_from(Vec::with_capacity(9)).await.expect("one");
        assert_eq!(peeked.0, 5);
        for _ in 0..2 {
            socket.recv().await.map(drop).expect("a datagram");
        }
        drop(start(socket.recv()).await);
        turn().await;
        early.send(b"third").expect("room");
        socket.peek_from(Vec::with_capacity(9)).await.map(drop).expect("one");
        early.send(b"fourth").expect("room");
        turn().await;
        let (socket, unread) = socket.into_std().expect("the ring works");
        assert_eq!(tamam::metrics().ops, 0);
        let chunks: Vec<_> = unread.iter().map(|datagram| datagram.chunk.to_vec()).collect();
        assert_eq!(chunks, [b"third"]);
        let mut buf = [0; 16];
        assert_eq!(socket.recv(&mut buf).expect("it is there"), 6);
        assert_eq!(socket.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Descriptors that come along with a datagram are closed: `alone` counts them.
#[test]
fn ux8_no_descriptor_leaks() {
    alone("datagrams::ux8_no_descriptor_leaks", || {
        with_both(tamam::Runtime::builder(), async || {
            let before = common::descriptors().len();
            for _ in 0..20 {
                let (sender, receiver) = pair();
                drop(start(receiver.recv()).await);
                send_descriptor(&sender);
                let waiting = start(async { (recv(&receiver).await, recv(&receiver).await) }).await;
                send_descriptor(&sender);
                assert_eq!(waiting.await, (b"x".to_vec(), b"x".to_vec()));
                std::mem::forget(start(receiver.recv()).await);
                send_descriptor(&sender); // which nobody receives
            }
            turn().await;
            assert_eq!(common::descriptors().len(), before);
        });
    });
}

/// A datagram of one byte, with a descriptor.
fn send_descriptor(socket: &UnixDatagram) {
    let fd = socket.as_fd().as_raw_fd();
    let mut byte = *b"x";
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 3]; // the header, and one descriptor with its padding
    // SAFETY: msghdr consists of integers and raw pointers, for which zero and null are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut piece, 1);
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    // SAFETY: the control data has room for a header and a descriptor.
    unsafe {
        let entry = libc::CMSG_FIRSTHDR(&header);
        (*entry).cmsg_level = libc::SOL_SOCKET;
        (*entry).cmsg_type = libc::SCM_RIGHTS;
        (*entry).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(entry).cast::<libc::c_int>().write_unaligned(fd);
    }
    // SAFETY: the header and what it points to live through the call.
    assert_eq!(unsafe { libc::sendmsg(fd, &header, 0) }, 1, "there is room");
}

/// The runtime is dropped while receives and sends wait: buffers, descriptors and datagrams are where
/// they belong, and what lives on says that the runtime is gone.
#[test]
fn ux8_the_runtime_is_dropped() {
    alone("datagrams::ux8_the_runtime_is_dropped", || {
        for (name, builder) in engines() {
            eprintln!("-- {name}");
            let runtime = builder.build().expect("an engine");
            let buffer: Rc<[u8]> = Rc::from(&[7; 100][..]);
            let (full, idle, addr) = runtime.block_on(async {
                let (receiver, addr) = named();
                let (idle, _) = named();
                (Rc::new(receiver), Rc::new(idle), addr)
            });
            let mut waiting = Vec::new();
            for addressed in [true, false] {
                let (buffer, addr, idle) = (buffer.clone(), addr.clone(), idle.clone());
                let sender = runtime.block_on(async { UnixDatagram::unbound() }).expect("one");
                sender.connect_addr(&addr).expect("it is there");
                waiting.push(Box::pin(async move {
                    let mut error = None;
                    while error.is_none() {
                        let result = match addressed {
                            true => sender.send_to_addr(buffer.clone(), &addr).await,
                            false => sender.send(buffer.clone()).await,
                        };
                        error = result.err();
                    }
                    let (error, buf) = error.expect("the loop has ended").into_parts();
                    assert!(error.to_string().contains("gone"), "{error}");
                    assert!(Rc::ptr_eq(&buf, &buffer));
                    let error = idle.recv().await.map(drop).unwrap_err();
                    assert!(error.to_string().contains("gone"), "{error}");
                }));
            }
            runtime.block_on(async {
                for future in &mut waiting {
                    assert!(poll_once(future).await.is_pending());
                }
                tamam::spawn(async move { idle.recv().await });
                settle().await;
            });
            drop(runtime);
            let other = tamam::Runtime::new().expect("an engine");
            other.block_on(async {
                for future in waiting {
                    future.await;
                }
                assert!(full.try_recv().is_err());
                let full = Rc::into_inner(full).expect("nobody else has it");
                let (socket, unread) = full.into_std().expect("no op is in flight");
                assert!(unread.is_empty());
                assert_eq!(socket.recv(&mut [0; 200]).expect("they are there"), 100);
            });
            assert_eq!(Rc::strong_count(&buffer), 1);
        }
    });
}
