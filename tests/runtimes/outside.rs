//! CX1, CX2, CX3: what works outside a runtime, and before `block_on`.

use std::cell::RefCell;
use std::future::pending;
use std::io::ErrorKind;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::{interval, sleep, timeout};

use crate::common::alone;
use crate::{OUTSIDE, common, each, listening, panics, poll_outside};

/// Two connected std sockets.
fn std_pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let client = StdStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("it is there");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
    }
    (client, server)
}

#[test]
fn cx1_constructors_outside_are_errors() {
    let (client, _server) = std_pair();
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let mut connect = Box::pin(TcpStream::connect(addr));
    let Poll::Ready(connected) = poll_outside(&mut connect) else { panic!("an answer at once") };
    let errors = [
        TcpListener::bind("127.0.0.1:0").map(drop),
        TcpListener::from_std(listener).map(drop),
        TcpStream::from_std(client).map(drop),
        TcpSocket::new_v4().map(drop),
        TcpSocket::new_v6().map(drop),
        connected.map(drop),
    ]
    .map(|result| result.expect_err("there is no runtime"));
    for (number, error) in errors.iter().enumerate() {
        assert!(error.to_string().starts_with(OUTSIDE), "constructor {number}: {error}");
        assert_eq!(error.kind(), ErrorKind::Other, "constructor {number}");
    }
}

/// `connect` does nothing before it is polled, so it may be made anywhere.
#[test]
fn cx1_connect_counts_where_it_is_polled() {
    each::engine(|runtime| {
        let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        let connect = TcpStream::connect(listener.local_addr().expect("bound"));
        runtime().block_on(async { drop(connect.await.expect("it listens")) });
    });
}

/// The hook that sees the panic's place belongs to the process.
#[test]
fn cx2_outside_a_runtime_is_a_panic_at_the_callers_line() {
    alone("outside::cx2_outside_a_runtime_is_a_panic_at_the_callers_line", || {
        let place = Arc::new(Mutex::new(String::new()));
        let noted = place.clone();
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(Location::file);
            *noted.lock().expect("not poisoned") = location.expect("a place").to_owned();
        }));
        let calls: [(&str, fn()); 3] = [
            ("spawn", || drop(tamam::spawn(async {}))),
            ("metrics", || _ = tamam::metrics()),
            ("backend", || _ = tamam::backend()),
        ];
        for (name, call) in calls {
            let text = panics(call);
            let file = place.lock().expect("not poisoned").clone();
            assert!(text.starts_with(OUTSIDE), "{name}: {text}");
            assert_eq!(file, file!(), "{name}");
        }
        // Made outside they are fine; polled they are not, due or not.
        let (mut due, mut later) = (sleep(Duration::ZERO), sleep(Duration::from_secs(3600)));
        let mut interval = interval(Duration::from_secs(1));
        let mut never = timeout(Duration::from_secs(1), Box::pin(pending::<()>()));
        for (name, text) in [
            ("sleep that is due", panics(|| poll_outside(&mut due))),
            ("sleep", panics(|| poll_outside(&mut later))),
            ("tick", panics(|| poll_outside(&mut Box::pin(interval.tick())))),
            ("timeout", panics(|| poll_outside(&mut Pin::new(&mut never)))),
        ] {
            assert!(text.starts_with(OUTSIDE), "{name}: {text}");
        }
        drop(std::panic::take_hook());
    });
}

#[test]
fn cx3_spawned_before_runs_in_the_next_block_on() {
    each::engine(|runtime| {
        let runtime = runtime();
        let trace = Rc::new(RefCell::new(Vec::new()));
        let note = |name: &'static str| {
            let trace = trace.clone();
            async move {
                trace.borrow_mut().push(name);
                tamam::yield_now().await;
                trace.borrow_mut().push(name);
            }
        };
        drop(runtime.spawn(note("one")));
        drop(runtime.spawn(note("two")));
        {
            let _guard = runtime.enter();
            drop(tamam::spawn(note("three")));
        }
        assert!(trace.borrow().is_empty(), "nothing runs by itself");
        assert_eq!(runtime.metrics().tasks, 3);
        runtime.block_on(async {});
        assert_eq!(*trace.borrow(), ["one", "two", "three"]);
        runtime.block_on(async {});
        assert_eq!(*trace.borrow(), ["one", "two", "three", "one", "two", "three"]);
        assert_eq!(runtime.metrics().tasks, 0);
    });
}

/// Constructors find the runtime under the guard, and only there.
#[test]
fn cx3_enter_is_for_constructors_too() {
    each::engine(|runtime| {
        let runtime = runtime();
        let (listener, addr) = {
            let _guard = runtime.enter();
            listening()
        };
        assert!(TcpListener::bind("127.0.0.1:0").is_err());
        let client = StdStream::connect(addr).expect("it listens");
        let (_, peer) = runtime.block_on(listener.accept()).expect("a connection");
        assert_eq!(peer, client.local_addr().expect("connected"));
    });
}
