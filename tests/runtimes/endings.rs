//! CX9, CX11: the end of a thread, and futures that use their runtime as it goes.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::sleep;

use crate::common::{alone, both, build, pair, start, turn};
use crate::{Objects, assert_refused, each, poll_outside, receivers};

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

/// 1 a thread keeps its runtime in a thread-local, and a stream of it in another, which goes before
/// or after it; 2 receives are in flight; 3 the thread ends; 4 every peer sees the end.
#[test]
fn cx9_a_runtime_in_a_thread_local() {
    alone("endings::cx9_a_runtime_in_a_thread_local", || {
        let engines = both(&Runtime::builder()).into_iter();
        for ((name, builder), is_stream_first) in
            engines.flat_map(|it| [(it.clone(), true), (it, false)])
        {
            eprintln!("-- {name}, stream first: {is_stream_first}");
            let thread = thread::spawn(move || {
                // The order of first uses is the order of destructors, one way or the other.
                if is_stream_first {
                    STREAM.with(|_| ());
                }
                let runtime = build(builder);
                let (mut peers, stream) = runtime.block_on(async {
                    let mut peers = receivers(100).await;
                    let (stream, peer) = pair().await;
                    peers.push(peer);
                    std::mem::forget(start(stream.recv()).await);
                    turn().await;
                    (peers, stream)
                });
                assert!(runtime.metrics().ops >= 101, "the receives are in flight");
                RUNTIME.set(Some(runtime));
                STREAM.set(Some(stream));
                peers[0].write_all(b"unread").expect("connected");
                peers
            });
            for peer in &mut thread.join().expect("no panic, in destructors neither") {
                match peer.read(&mut [0]) {
                    Ok(len) => assert_eq!(len, 0),
                    Err(error) => panic!("no reset: {error}"),
                }
            }
        }
    });
}

/// Notes when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// What the drop of a future found, when it used the runtime that is being dropped.
#[derive(Default)]
struct Found {
    errors: Vec<io::Error>,
    is_spawned_dropped: bool,
    is_handle_cancelled: bool,
    is_sleep_ready: bool,
}

/// Uses everything when it is dropped.
struct Guard {
    objects: Option<Objects>,
    found: Rc<RefCell<Found>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut found = self.found.borrow_mut();
        let dropped = Rc::new(Cell::new(false));
        let guard = Dropped(dropped.clone());
        let mut handle = tamam::spawn(async move {
            pending::<()>().await;
            drop(guard);
        });
        found.is_spawned_dropped = dropped.get();
        found.is_handle_cancelled = matches!(
            poll_outside(&mut handle), Poll::Ready(Err(error)) if error.is_cancelled());
        found.is_sleep_ready = poll_outside(&mut sleep(Duration::from_secs(3600))).is_ready();
        let Objects { stream, listener, addr, .. } = self.objects.take().expect("dropped once");
        let mut note = |what: Poll<Option<io::Error>>| {
            found.errors.push(match what {
                Poll::Ready(error) => error.expect("an error"),
                Poll::Pending => io::Error::other("nothing: it waits, for ever"),
            });
        };
        let error = |result: io::Result<()>| result.err();
        note(poll_outside(&mut Box::pin(stream.recv())).map(|it| error(it.map(drop))));
        let read = stream.read(Vec::with_capacity(100_000));
        note(poll_outside(&mut Box::pin(read)).map(|it| it.err().map(|it| it.into_parts().0)));
        let send = stream.send_all("in the teardown");
        note(poll_outside(&mut Box::pin(send)).map(|it| it.err().map(|it| it.into_parts().0)));
        note(poll_outside(&mut Box::pin(listener.accept())).map(|it| error(it.map(drop))));
        note(poll_outside(&mut Box::pin(TcpStream::connect(addr))).map(|it| error(it.map(drop))));
        drop(TcpListener::bind("127.0.0.1:0")); // whatever it says, it does not panic
    }
}

#[test]
fn cx11_a_future_that_uses_the_runtime_in_its_drop() {
    alone("endings::cx11_a_future_that_uses_the_runtime_in_its_drop", || {
        each::engine(|runtime| {
            let found = Rc::new(RefCell::new(Found::default()));
            let runtime = runtime();
            let objects = Objects::of(&runtime);
            let mut peer = objects.peer.try_clone().expect("a descriptor is left");
            let guard = Guard { objects: Some(objects), found: found.clone() };
            let others = runtime.block_on(receivers(10));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(guard);
            }));
            runtime.block_on(turn());
            drop(runtime);
            let found = found.take();
            assert!(found.is_spawned_dropped, "what is spawned is dropped at once");
            assert!(found.is_handle_cancelled);
            assert!(!found.is_sleep_ready, "an hour has not passed");
            assert_refused(&found.errors, "its tamam runtime is gone");
            assert_eq!(found.errors.len(), 5);
            assert_eq!(peer.read(&mut [0]).expect("the end, and nothing before it"), 0);
            drop(others);
        });
    });
}

/// A panic in there is caught, and the others are dropped all the same.
#[test]
fn cx11_a_panic_in_the_drop() {
    alone("endings::cx11_a_panic_in_the_drop", || {
        each::engine(|runtime| {
            let runtime = runtime();
            let peers = runtime.block_on(receivers(3));
            let dropped = Rc::new(Cell::new(false));
            let (bomb, guard) = (Bomb, Dropped(dropped.clone()));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(bomb);
            }));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(guard);
            }));
            runtime.block_on(turn());
            drop(runtime);
            assert!(dropped.get());
            for mut peer in peers {
                assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
            }
        });
    });
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("by intent, in a drop during teardown");
    }
}
