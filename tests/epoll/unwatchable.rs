//! EP4: descriptors that are no sockets, or that cannot be watched.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use tamam::io::errno as errno_in;
use tamam::net::{TcpListener, TcpStream};
use tamam::{Backend, Runtime};

use crate::common::{assert_same, child, everywhere, pattern, with};
use crate::{asleep, common, unknown_pair};

/// Files that are no sockets, as a program may find them for its standard input: epoll would refuse
/// the first, the ring would not.
fn no_sockets() -> [(&'static str, OwnedFd); 3] {
    let path = std::env::current_exe().expect("a test has a binary");
    let regular = File::open(path).expect("it can be read");
    let null = File::open("/dev/null").expect("it is everywhere");
    let mut pipe = [-1; 2];
    // SAFETY: there is room for two descriptors.
    let made = unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0, "a descriptor is left");
    // SAFETY: pipe2(2) just returned them, nobody else owns them.
    let [reading, _writing] = pipe.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    [("a regular file", regular.into()), ("a device", null.into()), ("a pipe", reading)]
}

/// A stream or a listener over something else: every call says so at once, and nothing spins.
#[test]
fn ep4_a_file_instead_of_a_socket() {
    everywhere(|| async {
        for (what, file) in no_sockets() {
            let dup = file.try_clone().expect("a descriptor is left");
            let stream = TcpStream::from_std(StdStream::from(file)).expect("inside a runtime");
            let listener = TcpListener::from_std(StdListener::from(dup)).expect("inside a runtime");
            for _ in 0..3 {
                let errors = [
                    stream.recv().await.map(drop).expect_err("no socket"),
                    stream
                        .read(Vec::with_capacity(64 * 1024))
                        .await
                        .expect_err("room")
                        .into_parts()
                        .0,
                    stream.send_all("x").await.expect_err("no socket").into_parts().0,
                    listener.accept().await.map(drop).expect_err("no socket"),
                ];
                let errnos = errors.map(|error| error.raw_os_error());
                assert_eq!(errnos, [Some(libc::ENOTSOCK); 4], "{what}");
            }
            let ((), turns, _) = asleep(|| thread::sleep(Duration::from_millis(20))).await;
            assert!(turns <= 3, "{turns} turns, {what}");
            assert_eq!(tamam::metrics().ops, 0, "{what}");
        }
    });
}

/// epoll_ctl(2) refuses what would have to wait, since the user watches too many descriptors, or
/// memory is short: the calls say so, nothing spins, what need not wait works, and no message is
/// torn unsaid.
#[test]
fn ep4_a_socket_that_cannot_be_watched() {
    const NAME: &str = "unwatchable::ep4_a_socket_that_cannot_be_watched";
    let errnos = [("ENOSPC", libc::ENOSPC), ("ENOMEM", libc::ENOMEM)];
    if let Some(part) = child::part(NAME) {
        let (_, errno) = errnos.iter().find(|(name, _)| *name == part).expect("one of them");
        return with(Runtime::builder().backend(Backend::Epoll), || nothing_can_wait(*errno));
    }
    for (name, _) in errnos {
        // The first is the runtime's own.
        let injection = format!("epoll_ctl:error={name}:when=2+");
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, name, &launcher);
    }
}

async fn nothing_can_wait(errno: i32) {
    let refused = Some(errno);
    let (stream, mut peer) = unknown_pair();
    peer.write_all(b"here").expect("connected");
    common::wait_for(&stream, libc::POLLIN);
    assert_eq!(&stream.recv().await.expect("it is there").expect("bytes")[..], b"here");
    stream.send_all("x").await.expect("it fits");
    let recv = stream.recv().await.map(drop).expect_err("it would have to wait");
    assert_eq!(recv.raw_os_error(), refused);

    let all = pattern(64 << 20);
    let (sent, _) = stream.send(all.clone()).await.expect("a part of it fits");
    assert!(sent > 0 && sent < all.len(), "{sent} bytes");
    let torn = stream.send_all("the next").await.expect_err("it would stand in for the rest");
    assert_eq!(torn.error().raw_os_error(), refused);
    drop(stream);
    let bytes = common::arriving(peer).await;
    assert_same(&bytes[1..], &all[..sent]);

    let (full, _filling) = common::full_listener();
    let connect = TcpStream::connect(full.local_addr().expect("bound")).await;
    assert_eq!(errno_in(&connect.map(drop).expect_err("it would wait")), refused);

    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let accept = listener.accept().await.map(drop).expect_err("nobody is there");
    assert_eq!(accept.raw_os_error(), refused);
    let client = StdStream::connect(listener.local_addr().expect("bound"));
    let client = client.expect("the backlog has room");
    let (_, addr) = listener.accept().await.expect("somebody is there");
    assert_eq!(addr, client.local_addr().expect("connected"));
    let ((), turns, _) = asleep(|| thread::sleep(Duration::from_millis(50))).await;
    assert!(turns <= 3, "{turns} turns");
}
