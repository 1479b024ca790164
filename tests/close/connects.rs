//! CL16, CL17: attempts to connect that are dropped or forgotten.

use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::pin::Pin;
use std::time::Duration;

use tamam::net::{TcpSocket, TcpStream};
use tamam::time::timeout;

use crate::common::PATIENCE;
use crate::{blocking_read, common};

/// CL16. 1 connecting to a full backlog; 2 dropped, before or after the kernel saw it: in one turn
/// the descriptor is free; 3 the address behind it is not tried.
#[test]
fn cl16_a_dropped_connect_frees_its_descriptor() {
    common::alone("connects::cl16_a_dropped_connect_frees_its_descriptor", || {
        let (full, _filling) = common::full_listener();
        let full = full.local_addr().expect("bound");
        let next = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        next.set_nonblocking(true).expect("a socket");
        let addrs = [full, next.local_addr().expect("bound")];
        common::everywhere(|| async {
            for submitted in [false, true] {
                let before = common::descriptors();
                let connects = [
                    Box::pin(TcpStream::connect(addrs)) as Pin<Box<dyn Future<Output = _>>>,
                    Box::pin(TcpSocket::new_v4().expect("a socket").connect(full)),
                ];
                for connect in connects {
                    let connect = common::start(connect).await;
                    if submitted {
                        common::turn().await;
                        common::turn().await;
                    }
                    drop(connect);
                }
                common::turn().await;
                assert_eq!(common::descriptors(), before, "submitted: {submitted}");
                assert_eq!(tamam::metrics().ops, 0);
                let error = next.accept().expect_err("it was not tried");
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        });
    });
}

/// CL16. A timeout around a connect ends it the same way; many in a row leave nothing.
#[test]
fn cl16_connects_that_time_out() {
    common::alone("connects::cl16_connects_that_time_out", || {
        let (full, _filling) = common::full_listener();
        let full = full.local_addr().expect("bound");
        common::everywhere(|| async {
            let before = common::descriptors();
            for _ in 0..100 {
                timeout(Duration::from_millis(1), TcpStream::connect(full))
                    .await
                    .expect_err("full");
            }
            common::turn().await;
            assert_eq!((common::descriptors(), tamam::metrics().ops), (before, 0));
        });
    });
}

/// CL16. 1 the attempt has won, and nobody polled it since; 2 it is dropped: the peer sees a
/// connection and its end.
#[test]
fn cl16_a_connect_that_won_is_closed() {
    common::everywhere(|| async {
        for turned in [false, true] {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let connect = TcpStream::connect(listener.local_addr().expect("bound"));
            let connect = common::start(connect).await;
            if turned {
                common::turn().await;
                common::wait_for(&listener, libc::POLLIN);
            }
            drop(connect);
            common::turn().await;
            listener.set_nonblocking(true).expect("a socket");
            match listener.accept() {
                Ok((mut peer, _)) => {
                    peer.set_nonblocking(false).expect("a socket");
                    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
                    assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
                }
                // Cancelled before the kernel had begun: nothing ever happened.
                Err(error) => assert!(!turned && error.kind() == ErrorKind::WouldBlock, "{error}"),
            }
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}

/// CL17. 1 connects are forgotten, to a full backlog and to one with room, before and after the
/// kernel saw them; 2 the runtime is dropped: no descriptor is left.
#[test]
fn cl17_a_forgotten_connect_lives_as_long_as_the_runtime() {
    common::alone("connects::cl17_a_forgotten_connect_lives_as_long_as_the_runtime", || {
        let (full, _filling) = common::full_listener();
        let roomy = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addrs = [&full, &roomy].map(|listener| listener.local_addr().expect("bound"));
        for (name, builder) in common::engines() {
            let _watchdog = common::Watchdog::start();
            let before = common::descriptors();
            let runtime = common::build(builder);
            runtime.block_on(async {
                for (addr, submitted) in
                    addrs.into_iter().flat_map(|addr| [(addr, false), (addr, true)])
                {
                    let connect = common::start(TcpStream::connect(addr)).await;
                    if submitted {
                        common::turn().await;
                    }
                    std::mem::forget(connect);
                    let socket = TcpSocket::new_v4().expect("a socket");
                    std::mem::forget(common::start(socket.connect(addr)).await);
                    common::turn().await;
                }
                roomy.set_nonblocking(true).expect("a socket");
                let mut won = 0;
                while let Ok((mut peer, _)) = roomy.accept() {
                    peer.set_nonblocking(true).expect("a socket");
                    let error = blocking_read(&mut peer).expect_err("the socket stays");
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    won += 1;
                }
                assert_eq!(won, 4, "an attempt does not need its future");
            });
            drop(runtime);
            assert_eq!(common::descriptors(), before, "{name}");
        }
    });
}
