//! Dropping the runtime, on either engine, with a thousand receives in flight: nothing is lost,
//! nothing is written to after it was freed.

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tamam::net::TcpListener;
use tamam::{Builder, Runtime};

/// Counts the futures that were dropped.
struct Dropped(Rc<Cell<usize>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// CX10. 1 runtime, 1000 connections; half of the tasks wait in `recv`, half in a large `read`;
/// 2 peers write all the time; 3 the runtime is dropped; 4 every future is dropped, every peer sees
/// the end, and no freed block has changed.
#[test]
fn cx10_a_thousand_receives_in_flight() {
    common::alone("cx10_a_thousand_receives_in_flight", || {
        for (name, builder) in common::both(&Runtime::builder()) {
            println!("-- {name}");
            a_thousand_receives(builder);
        }
    });
}

fn a_thousand_receives(builder: Builder) {
    const STREAMS: usize = 1000;
    let _watchdog = common::Watchdog::start();
    let runtime = common::build(builder);
    let dropped = Rc::new(Cell::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let peers = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = listener.local_addr().expect("bound");
        let connecting = thread::spawn(move || {
            (0..STREAMS).map(|_| StdStream::connect(addr).expect("connects")).collect::<Vec<_>>()
        });
        for index in 0..STREAMS {
            let (stream, _) = listener.accept().await.expect("a connection");
            let guard = Dropped(dropped.clone());
            tamam::spawn(async move {
                let _guard = guard;
                loop {
                    match index % 2 {
                        0 => drop(stream.recv().await),
                        _ => drop(stream.read(Vec::with_capacity(64 * 1024)).await),
                    }
                }
            });
        }
        let peers = common::join(connecting).await;
        tamam::yield_now().await;
        peers
    });
    assert!(runtime.metrics().ops >= STREAMS, "the receives are in flight");
    let writer = {
        let writers: Vec<_> = peers.iter().map(|peer| peer.try_clone().expect("dup")).collect();
        let stop = stop.clone();
        thread::spawn(move || {
            for peer in &writers {
                peer.set_nonblocking(true).expect("a socket");
            }
            while !stop.load(Ordering::Relaxed) {
                for mut peer in &writers {
                    let _ = peer.write(&[7; 4096]);
                }
            }
            for peer in &writers {
                peer.set_nonblocking(false).expect("a socket");
            }
        })
    };
    runtime.block_on(tamam::time::sleep(std::time::Duration::from_millis(50)));
    let start = std::time::Instant::now();
    drop(runtime);
    println!("dropped in {:?}", start.elapsed());
    assert_eq!(dropped.get(), STREAMS, "every future is dropped");
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer does not panic");
    for mut peer in peers {
        peer.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
        // The end, or a reset: the peer wrote all the time (CL4).
        match peer.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => panic!("nobody sent anything"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}
