//! CX15: no cancel is lost or sent twice, however many are asked for in one turn.

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tamam::net::TcpStream;
use tamam::time::timeout;
use tamam::{Builder, Metrics};

use crate::common::{assert_same, can_open, on_epoll, pattern, start, turn};
use crate::{common, rings, stream};

/// Rings of these sizes, and epoll, to which they mean nothing.
fn engines(sizes: &[(u32, u32)]) -> Vec<Builder> {
    let mut all = Vec::new();
    for (entries, completion_entries) in sizes {
        for (name, builder) in common::both(&rings(*entries, *completion_entries)) {
            if name != "epoll" || !all.iter().any(|(other, _)| *other == name) {
                all.push((name, builder));
            }
        }
    }
    all.into_iter().map(|(_, builder)| builder).collect()
}

const ROOM: usize = 64;

/// So many streams over one idle socket, whose other end it gives too. Each has a descriptor of its
/// own; a pair for each would need twice as many.
fn idle_streams(count: usize) -> (Vec<TcpStream>, UnixStream) {
    let (socket, peer) = UnixStream::pair().expect("a pair of sockets");
    let streams = (0..count).map(|_| stream(socket.try_clone().expect("a descriptor is left")));
    (streams.collect(), peer)
}

/// How many submissions so many ops and so many cancels are: epoll has none for a cancel.
fn submissions(ops: usize, cancels: usize) -> u64 {
    (if on_epoll() { ops } else { ops + cancels }) as u64
}

/// What was submitted and completed since.
fn since(before: &Metrics) -> (u64, u64) {
    let now = tamam::metrics();
    (now.submissions - before.submissions, now.completions - before.completions)
}

/// Polls all of them in each poll of the task, until none is left.
async fn all_together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs = Vec::new();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}

/// Turns until only so many ops are in flight; not for ever, though the kernel gives twenty
/// completions in an enter that does not wait.
async fn until_ops_are(count: usize) {
    for _ in 0..MANY {
        if tamam::metrics().ops == count {
            return;
        }
        turn().await;
    }
    panic!("cancels were lost: {:?}", tamam::metrics());
}

const MANY: usize = 10_000;

/// Starts a receive on each stream, of 64 bytes or by `recv`, and lets the kernel have them.
async fn start_all<'a>(
    streams: &'a [TcpStream],
    is_recv: impl Fn(usize) -> bool,
) -> Vec<Pin<Box<dyn Future<Output = Vec<u8>> + 'a>>> {
    let mut started: Vec<Pin<Box<dyn Future<Output = Vec<u8>> + 'a>>> = Vec::new();
    for (index, stream) in streams.iter().enumerate() {
        if is_recv(index) {
            started.push(
                start(async { stream.recv().await.expect("no error").expect("bytes").to_vec() })
                    .await,
            );
        } else {
            started.push(
                start(async { stream.read(Vec::with_capacity(ROOM)).await.expect("no error").1 })
                    .await,
            );
        }
    }
    turn().await;
    assert_eq!(tamam::metrics().ops, streams.len(), "all are in flight");
    started
}

/// CX15. 1 ten thousand streams have a `read` or a `recv` in flight; 2 all time out in one turn;
/// 3 the ops of the reads are cancelled, each once: so many submissions, so many completions, no
/// more (a second cancel would be answered); the shots stay; 4 the streams are dropped in one poll,
/// and the shots end likewise.
async fn many_timeouts_in_one_turn(with_recv: bool) {
    let (streams, mut peer) = idle_streams(MANY);
    turn().await;
    let before = tamam::metrics();
    let started = start_all(&streams, |index| with_recv && index % 2 == 0).await;
    let elapsed = all_together(started.into_iter().map(|call| timeout(Duration::ZERO, call))).await;
    assert!(elapsed.iter().all(Result::is_err), "nothing was sent");
    let shots = if with_recv { MANY / 2 } else { 0 };
    let cancelled = MANY - shots;
    until_ops_are(shots).await;
    assert_eq!(since(&before), (submissions(MANY, cancelled), cancelled as u64), "each op once");
    assert_eq!(tamam::metrics().timers, 0);

    let before = tamam::metrics();
    drop(streams);
    turn().await;
    assert_eq!(tamam::metrics().ops, 0, "they end before the thread sleeps");
    assert_eq!(since(&before), (submissions(0, shots), shots as u64), "each op once");
    assert_eq!(peer.read(&mut [0]).expect("no error"), 0, "every descriptor is closed");
}

/// CX15. As above, and the ops and their cancels are asked for in one turn: those of the reads go
/// out one after the other.
async fn many_calls_and_timeouts_in_one_turn() {
    let (streams, _peer) = idle_streams(MANY);
    turn().await;
    let before = tamam::metrics();
    let calls = streams.iter().map(|stream| {
        timeout(Duration::ZERO, async { drop(stream.read(Vec::with_capacity(ROOM)).await) })
    });
    assert!(all_together(calls).await.iter().all(Result::is_err), "nothing was sent");
    until_ops_are(0).await;
    assert_eq!(since(&before), (submissions(MANY, MANY), MANY as u64), "each op once");
}

#[test]
fn cx15_ten_thousand_timeouts_in_one_turn() {
    common::alone("cancels::cx15_ten_thousand_timeouts_in_one_turn", || {
        if !can_open(MANY as u64 + 100) {
            return;
        }
        for builder in engines(&[(8, 4096), (8, 8), (1, 2)]) {
            for with_recv in [false, true] {
                common::with(builder.clone(), || many_timeouts_in_one_turn(with_recv));
            }
            common::with(builder, many_calls_and_timeouts_in_one_turn);
        }
    });
}

/// CX15. As above with a task for each, and a budget that lets all of them be polled in one turn.
#[test]
fn cx15_ten_thousand_tasks_time_out_in_one_turn() {
    common::alone("cancels::cx15_ten_thousand_tasks_time_out_in_one_turn", || {
        if !can_open(MANY as u64 + 100) {
            return;
        }
        for builder in engines(&[(8, 8)]) {
            common::with(builder.budget(2 * MANY as u32), || async {
                let (streams, _peer) = idle_streams(MANY);
                turn().await;
                let (before, go) = (tamam::metrics(), Rc::new(Cell::new(false)));
                let wait_and_time_out = async |stream: TcpStream, go: Rc<Cell<bool>>| {
                    let read = start(stream.read(Vec::with_capacity(ROOM))).await;
                    while !go.get() {
                        tamam::yield_now().await;
                    }
                    assert!(timeout(Duration::ZERO, read).await.is_err(), "nothing was sent");
                    stream
                };
                let tasks: Vec<_> = streams
                    .into_iter()
                    .map(|stream| tamam::spawn(wait_and_time_out(stream, go.clone())))
                    .collect();
                turn().await;
                turn().await;
                assert_eq!(tamam::metrics().ops, MANY, "all are in flight");
                go.set(true);
                let mut streams = Vec::new();
                for task in tasks {
                    streams.push(task.await.expect("no panic"));
                }
                until_ops_are(0).await;
                assert_eq!(since(&before), (submissions(MANY, MANY), MANY as u64), "each op once");
            });
        }
    });
}

/// CX15. 1 calls wait on many streams; 2 every other peer sends, and all calls time out before the
/// runtime turns again: cancels race data; 3 each stream has its bytes, from the
/// call that won or in the next one, and can go on.
#[test]
fn cx15_cancels_race_data() {
    common::alone("cancels::cx15_cancels_race_data", || {
        let message = |index: usize| [&pattern(index)[..], b"tamam"].concat();
        const STREAMS: usize = 1000;
        if !can_open(2 * STREAMS as u64 + 100) {
            return;
        }
        for builder in engines(&[(8, 8), (1, 2)]) {
            common::with(builder, || async {
                let pairs = (0..STREAMS).map(|_| UnixStream::pair().expect("descriptors are left"));
                let (streams, peers): (Vec<_>, Vec<_>) =
                    pairs.map(|(socket, peer)| (stream(socket), peer)).unzip();
                for round in 0..5usize {
                    let started = start_all(&streams, |index| index % 3 == 0).await;
                    for (index, mut peer) in peers.iter().enumerate() {
                        if index % 2 == round % 2 {
                            peer.write_all(&message(index)).expect("it fits");
                        }
                    }
                    // In the order of the streams: outputs come as their futures end.
                    let mut got = vec![Vec::new(); STREAMS];
                    let calls = started
                        .into_iter()
                        .zip(&mut got)
                        .map(|(call, got)| timeout(Duration::ZERO, async { *got = call.await }));
                    let ends = all_together(calls).await;
                    println!(
                        "round {round}: {} calls won",
                        ends.iter().filter(|end| end.is_ok()).count()
                    );
                    for (index, stream) in streams.iter().enumerate() {
                        if index % 2 == round % 2 {
                            let expected = message(index);
                            let left = expected.len() - got[index].len();
                            let rest = stream.read_exact(Vec::with_capacity(left), left).await;
                            got[index].extend(rest.expect("no error"));
                            assert_same(&got[index], &expected);
                        }
                        assert!(got[index].is_empty() || index % 2 == round % 2);
                    }
                    assert!(tamam::metrics().ops <= STREAMS, "one op each at most");
                }
                drop(streams);
            });
        }
    });
}

/// CX15. The runtime is dropped with all of it in flight, and with all cancels asked for in the
/// poll before: the small queue drains.
#[test]
fn cx15_teardown_through_a_small_queue() {
    common::alone("cancels::cx15_teardown_through_a_small_queue", || {
        if !can_open(MANY as u64 + 100) {
            return;
        }
        for builder in engines(&[(8, 8), (1, 2)]) {
            for cancelled in [false, true] {
                let _watchdog = common::Watchdog::start();
                let runtime = common::build(builder.clone());
                let (streams, mut peer) = runtime.block_on(async {
                    let (streams, peer) = idle_streams(MANY);
                    let mut reads = Vec::new();
                    for stream in &streams {
                        reads.push(start(stream.read(Vec::with_capacity(ROOM))).await);
                    }
                    if cancelled {
                        drop(reads);
                    } else {
                        std::mem::forget(reads);
                    }
                    (streams, peer)
                });
                if !cancelled {
                    assert_eq!(runtime.metrics().ops, MANY);
                }
                let start = Instant::now();
                drop(runtime);
                println!("dropped in {:?}", start.elapsed());
                // What does not end is leaked after five seconds, with its descriptor: the peer would
                // not see the end.
                drop(streams);
                peer.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
                assert_eq!(peer.read(&mut [0]).expect("no error"), 0, "every descriptor is closed");
            }
        }
    });
}
