//! Chunks and the pool they are lent from (SEMANTICS section 6). A chunk may be kept by anyone, for
//! ever, past its stream and its runtime, and split into any number of parts: what it says never
//! changes, its buffer goes back once, and nobody else waits for it.

mod common;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::thread;

use common::{Random, assert_same, begin, completing, pair, pattern, quarantine, start, turn};
use tamam::buf::Chunk;
use tamam::net::TcpStream;
use tamam::{Builder, Runtime};

fn pool(buffer_size: usize, buffers: u32) -> Builder {
    Runtime::builder().buffer_size(buffer_size).buffer_count(buffers)
}

fn write(mut peer: &StdStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("it fits into the kernel");
}

/// The next chunk.
async fn chunk(stream: &TcpStream) -> Chunk {
    stream.recv().await.expect("no error").expect("not the end")
}

/// The next `len` bytes, as the chunks they came in.
async fn chunks(stream: &TcpStream, len: usize) -> Vec<Chunk> {
    let (mut chunks, mut left) = (Vec::new(), len);
    while left > 0 {
        chunks.push(chunk(stream).await);
        left = left.checked_sub(chunks[chunks.len() - 1].len()).expect("no more than were sent");
    }
    chunks
}

fn bytes_of(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect()
}

fn lent() -> usize {
    tamam::metrics().buffers_lent
}

/// One message there and back.
async fn echo(stream: &TcpStream, mut peer: &StdStream, message: &[u8]) {
    write(peer, message);
    let mut left = message.len();
    while left > 0 {
        let chunk = chunk(stream).await;
        left -= chunk.len();
        stream.send_all(chunk).await.expect("the peer reads");
    }
    let mut back = vec![0; message.len()];
    peer.read_exact(&mut back).expect("it was sent");
    assert_eq!(back, message);
}

/// BF1. A chunk stays on its thread: recycling needs no atomics. The calls compile only if each
/// has one answer, and with `Send` (or `Sync`) implemented there would be two.
mod stays_on_its_thread {
    use super::Chunk;

    pub struct Yes;

    pub trait MaybeSend<Answer> {
        fn is_send() -> bool {
            false
        }
    }

    impl<T> MaybeSend<()> for T {}
    impl<T: Send> MaybeSend<Yes> for T {}

    pub trait MaybeSync<Answer> {
        fn is_sync() -> bool {
            false
        }
    }

    impl<T> MaybeSync<()> for T {}
    impl<T: Sync> MaybeSync<Yes> for T {}

    pub fn answers() -> (bool, bool) {
        (<Chunk as MaybeSend<_>>::is_send(), <Chunk as MaybeSync<_>>::is_sync())
    }
}

#[test]
fn bf1_a_chunk_is_neither_send_nor_sync() {
    assert_eq!(stays_on_its_thread::answers(), (false, false));
}

/// BF1. What leaves the thread as a `Vec` is a copy if the pool owns the memory, and the memory
/// itself if not.
#[test]
fn bf1_vec_copies_pooled_bytes_and_moves_heap_memory() {
    common::with_both(pool(64, 8), || async {
        let (stream, peer) = pair().await;
        write(&peer, b"pooled");
        let pooled = chunk(&stream).await;
        assert!(pooled.is_pooled());
        let (at, before) = (pooled.as_ptr(), lent());
        let vec = Vec::from(pooled);
        assert_eq!((&vec[..], vec.as_ptr() == at, lent()), (&b"pooled"[..], false, before - 1));
        let vec = thread::spawn(move || vec).join().expect("no panic");
        assert_eq!(vec, b"pooled");
    });
    common::with_both(pool(64, 1), || async {
        let (stream, peer) = pair().await;
        write(&peer, b"heap");
        let mut heap = chunk(&stream).await;
        assert!(!heap.is_pooled(), "the only buffer goes back at once");
        heap.truncate(3);
        let at = heap.as_ptr();
        let vec = Vec::from(heap);
        assert_eq!((&vec[..], vec.as_ptr() == at), (&b"hea"[..], true));
    });
}

/// BF1. As for `Vec`: `Bytes` may go to other threads and live for ever.
#[cfg(feature = "bytes")]
#[test]
fn bf1_bytes_copy_pooled_bytes_and_move_heap_memory() {
    for (buffers, is_pooled) in [(8, true), (1, false)] {
        common::with_both(pool(64, buffers), || async {
            let (stream, peer) = pair().await;
            write(&peer, b"tamam");
            let chunk = chunk(&stream).await;
            assert_eq!(chunk.is_pooled(), is_pooled);
            let at = chunk.as_ptr();
            let bytes = bytes::Bytes::from(chunk);
            assert_eq!((&bytes[..], bytes.as_ptr() == at, lent()), (&b"tamam"[..], !is_pooled, 0));
        });
    }
}

thread_local! {
    /// Chunks that are dropped when their thread ends.
    static KEPT: RefCell<Vec<Chunk>> = const { RefCell::new(Vec::new()) };
}

/// BF2. 1 chunks are received, some of them split; 2 their stream is dropped, then their runtime,
/// with a receive in flight; 3 they still say the same and can be written to; 4 they are dropped,
/// or else their thread ends with them in a thread-local.
fn outlive_everything(builder: Builder, in_thread_local: bool) {
    const LEN: usize = 100;
    let runtime = common::build(builder);
    let (kept, _peer) = runtime.block_on(async {
        let (stream, peer) = pair().await;
        write(&peer, &pattern(LEN));
        let mut kept = chunks(&stream, LEN).await;
        let at = kept[0].len() / 2;
        let tail = kept[0].split_off(at);
        kept.insert(1, tail);
        drop(start(stream.recv()).await);
        turn().await;
        (kept, peer)
    });
    assert_same(&bytes_of(&kept), &pattern(LEN));
    drop(runtime);
    assert_same(&bytes_of(&kept), &pattern(LEN));
    let mut kept = kept;
    let tail = kept[0].split_off(1);
    kept.insert(1, tail);
    kept[0].fill(!pattern(1)[0]);
    assert_same(&bytes_of(&kept)[1..], &pattern(LEN)[1..]);
    kept[0].fill(pattern(1)[0]);
    // A later runtime's buffers are others.
    let other = Runtime::new().expect("one of the engines works");
    other.block_on(async {
        let (stream, peer) = pair().await;
        write(&peer, &[0xee; LEN]);
        assert_eq!(bytes_of(&chunks(&stream, LEN).await), [0xee; LEN]);
    });
    assert_same(&bytes_of(&kept), &pattern(LEN));
    if in_thread_local {
        KEPT.with_borrow_mut(|chunks| chunks.append(&mut kept));
    } else {
        drop(kept.remove(0));
        assert_same(&bytes_of(&kept), &pattern(LEN)[1..]);
    }
}

/// How much this process has mapped, in bytes.
fn mapped() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages = statm.split(' ').next().and_then(|pages| pages.parse::<usize>().ok());
    // SAFETY: takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    pages.expect("the first field is the size in pages") * page
}

#[test]
fn bf2_chunks_outlive_stream_runtime_and_thread() {
    common::alone("bf2_chunks_outlive_stream_runtime_and_thread", || {
        let _watchdog = common::Watchdog::start();
        // 256 MiB of address space each: one that is leaked is seen.
        let large = pool(32 << 20, 8);
        let larges = common::both(&large);
        let sizes: Vec<_> =
            common::engines().into_iter().chain(larges).map(|(_, builder)| builder).collect();
        for in_thread_local in [false, true] {
            let round = || {
                for builder in sizes.iter().cloned() {
                    let thread =
                        thread::spawn(move || outlive_everything(builder, in_thread_local));
                    thread.join().expect("no panic");
                }
            };
            round();
            let (heap, map) = (quarantine::live(), mapped());
            (0..5).for_each(|_| round());
            let growth = quarantine::live() - heap;
            assert!(growth < 1000, "five rounds leak {growth} bytes of heap");
            let growth = mapped().saturating_sub(map);
            assert!(growth < 128 << 20, "five rounds leak {growth} bytes of mappings");
        }
    });
}

/// BF2. A runtime in a thread-local, and chunks of it in another, end in the order that the thread
/// likes: neither needs the other.
#[test]
fn bf2_chunks_and_their_runtime_end_with_the_thread() {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    common::alone("bf2_chunks_and_their_runtime_end_with_the_thread", || {
        let cases = common::both(&pool(64, 8))
            .into_iter()
            .flat_map(|(_, builder)| [(builder.clone(), false), (builder, true)]);
        for (builder, chunks_first) in cases {
            let thread = thread::spawn(move || {
                // Destructors run in the order of first uses, or in the opposite one.
                if chunks_first {
                    KEPT.with_borrow_mut(Vec::clear);
                    RUNTIME.set(None);
                } else {
                    RUNTIME.set(None);
                    KEPT.with_borrow_mut(Vec::clear);
                }
                let runtime = common::build(builder);
                let peer = runtime.block_on(async {
                    let (stream, peer) = pair().await;
                    write(&peer, b"tamam");
                    let kept = chunk(&stream).await;
                    assert!(kept.is_pooled());
                    KEPT.with_borrow_mut(|chunks| chunks.push(kept));
                    tamam::spawn(async move { drop(stream.recv().await) });
                    turn().await;
                    peer
                });
                RUNTIME.set(Some(runtime));
                peer
            });
            let mut peer = thread.join().expect("no panic");
            assert_eq!(peer.read(&mut [0]).expect("no reset"), 0, "the stream is closed");
        }
    });
}

/// BF3. 1 a hundred streams share a few buffers; 2 a thousand chunks are kept; 3 every stream goes
/// on, and so it does when the chunks are gone.
#[test]
fn bf3_kept_chunks_starve_nobody() {
    for (buffer_size, buffers) in [(4096, 4), (16, 4), (16, 1), (4096, 2)] {
        common::with_both(pool(buffer_size, buffers), || async {
            let mut connections = Vec::new();
            for _ in 0..100 {
                connections.push(pair().await);
            }
            let mut kept = Vec::new();
            for round in 0..10u8 {
                for (stream, peer) in &connections {
                    write(peer, &[round; 10]);
                    kept.extend(chunks(stream, 10).await);
                    let most = buffers as usize * 3 / 4;
                    assert!(lent() <= most, "chunks pin at most three quarters: {}", lent());
                }
            }
            assert!(kept.len() >= 1000);
            for (stream, peer) in &connections {
                echo(stream, peer, &pattern(300)).await;
            }
            let (round, all) = (kept.len() / 10, bytes_of(&kept));
            for (index, chunk) in kept.iter().enumerate() {
                assert!(chunk.iter().all(|byte| usize::from(*byte) == index / round));
            }
            assert_eq!(all.len(), 10_000);
            drop(kept);
            for (stream, peer) in &connections {
                echo(stream, peer, &pattern(300)).await;
            }
        });
    }
}

/// BF3. As above, with all streams receiving at once, each in its task.
#[test]
fn bf3_a_hundred_receivers_at_once() {
    for (buffer_size, buffers) in [(4096, 4), (16, 4), (16, 1)] {
        common::with_both(pool(buffer_size, buffers), || async {
            const LEN: usize = 5000;
            let kept = Rc::new(RefCell::new(Vec::new()));
            let (mut tasks, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                let (stream, peer) = pair().await;
                peers.push(peer);
                let kept = kept.clone();
                tasks.push(tamam::spawn(async move {
                    let got = chunks(&stream, LEN).await;
                    assert_same(&bytes_of(&got), &pattern(LEN));
                    kept.borrow_mut().extend(got);
                }));
            }
            turn().await; // every receive is in flight
            let writer = thread::spawn(move || {
                peers.iter().for_each(|peer| write(peer, &pattern(LEN)));
                peers
            });
            for task in tasks {
                task.await.expect("no panic");
            }
            drop(common::join(writer).await);
            assert_eq!(bytes_of(&kept.borrow()).len(), 100 * LEN);
        });
    }
}

/// BF3. Streams with much to come take what buffers there are, turn after turn; one that found none is
/// served from the heap in the next turn, not when they are done.
#[test]
fn bf3_a_flood_starves_nobody() {
    for (buffers, flooders) in [(1, 1), (1, 8), (4, 16)] {
        common::with_both(pool(65_536, buffers), || async {
            let (mut peers, mut floods) = (Vec::new(), Vec::new());
            for _ in 0..flooders {
                let (stream, peer) = pair().await;
                peer.set_nonblocking(true).expect("a socket");
                while (&peer).write(&[7; 65_536]).is_ok() {}
                peers.push(peer);
                floods.push(tamam::spawn(
                    async move { while let Ok(Some(_)) = stream.recv().await {} },
                ));
            }
            let (stream, peer) = pair().await;
            write(&peer, b"x");
            let before = tamam::metrics().turns;
            let served =
                tamam::spawn(async move { stream.recv().await.map(|chunk| chunk.is_some()) });
            assert!(served.await.expect("no panic").expect("connected"));
            let turns = tamam::metrics().turns - before;
            assert!(turns <= 8, "{buffers} buffers, {flooders} in front: {turns} turns");
            for flood in floods {
                flood.abort();
                let _aborted = flood.await;
            }
        });
    }
}

/// BF4. 1 a hundred streams have data parked that nobody reads; 2 one more goes on; 3 what was
/// parked is all there.
#[test]
fn bf4_unread_streams_starve_nobody() {
    for (buffer_size, buffers) in [(4096, 8), (16, 8), (16, 1)] {
        common::with_both(pool(buffer_size, buffers), || async {
            let mut unread = Vec::new();
            for index in 0..100 {
                let (stream, peer) = pair().await;
                drop(start(stream.recv()).await);
                turn().await;
                completing(|| write(&peer, &pattern(1000 + index))).await;
                unread.push((stream, peer));
            }
            assert!(tamam::metrics().parked >= 100, "something is parked on each");
            assert!(lent() <= buffers as usize * 3 / 4, "parked chunks pin at most three quarters");
            let (stream, peer) = pair().await;
            for _ in 0..1000 {
                echo(&stream, &peer, b"a message").await;
            }
            for (index, (stream, _)) in unread.iter().enumerate() {
                let len = 1000 + index;
                assert_same(&bytes_of(&chunks(stream, len).await), &pattern(len));
            }
        });
    }
}

/// BF5. 1 shots over the pool are armed on many streams, some of whose chunks are kept; 2 the peers
/// send all the time; 3 the runtime is dropped, which ends the shots, and only then takes the pool
/// from the kernel; 4 no chunk changes any more, and what was parked and what is in the socket is
/// all that was sent: nothing was received into memory that was not there.
#[test]
fn bf5_the_pool_goes_after_the_last_receive() {
    common::alone("bf5_the_pool_goes_after_the_last_receive", || {
        for (name, builder) in common::engines() {
            println!("-- {name}");
            let _watchdog = common::Watchdog::start();
            let runtime = common::build(builder);
            let (streams, peers): (Vec<_>, Vec<_>) = runtime.block_on(async {
                let (mut streams, mut peers) = (Vec::new(), Vec::new());
                for _ in 0..30 {
                    let (stream, peer) = pair().await;
                    write(&peer, &pattern(20));
                    let kept = chunks(&stream, 20).await;
                    drop(start(stream.recv()).await);
                    streams.push((stream, kept));
                    peers.push(peer);
                }
                turn().await;
                (streams, peers)
            });
            assert!(runtime.metrics().ops == 30, "the receives are armed");
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let writer = thread::spawn({
                let stop = stop.clone();
                move || {
                    let (all, mut sent) = (pattern(64 * 1024), vec![20; peers.len()]);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        for (peer, sent) in peers.iter().zip(&mut sent) {
                            let len = (all.len() - *sent).min(50);
                            write(peer, &all[*sent..*sent + len]);
                            *sent += len;
                        }
                    }
                    sent
                }
            });
            runtime.block_on(tamam::time::sleep(std::time::Duration::from_millis(5)));
            assert_eq!(runtime.metrics().stray_completions, 0);
            drop(runtime);
            let kept_then: Vec<_> = streams.iter().map(|(_, kept)| bytes_of(kept)).collect();
            thread::sleep(std::time::Duration::from_millis(5));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent = writer.join().expect("the writer does not panic");
            for (((stream, kept), then), sent) in streams.into_iter().zip(kept_then).zip(sent) {
                assert_same(&bytes_of(&kept), &then);
                let (mut socket, mut got) = stream.into_std().expect("nothing is in flight");
                socket.set_nonblocking(false).expect("a socket");
                socket.read_to_end(&mut got).expect("the peer has finished");
                assert_same(&[then, got].concat(), &pattern(64 * 1024)[..sent]);
            }
        }
    });
}

/// BF6. 1 a chunk is split into ten parts, at random places, by all three ways; 2 the parts are
/// changed, each on its own; 3 they are dropped in random order: the buffer goes back with the last
/// of them, once.
#[test]
fn bf6_parts_share_a_buffer_that_goes_back_once() {
    common::with_both(pool(64, 4), || async {
        let (stream, peer) = pair().await;
        let mut random = Random(6);
        for round in 0..500 {
            let message: Vec<u8> = (0..50).map(|at| at ^ round as u8).collect();
            write(&peer, &message);
            let mut parts = vec![chunk(&stream).await];
            assert_eq!(parts[0].len(), 50, "one segment, one chunk");
            assert!(parts[0].is_pooled(), "round {round}: buffers are missing");
            while parts.len() < 10 {
                let which = random.below(parts.len() as u64) as usize;
                let at = random.below(parts[which].len() as u64 + 1) as usize;
                let (place, part) = match random.below(2) {
                    0 => (which + 1, parts[which].split_off(at)),
                    _ => (which, parts[which].split_to(at)),
                };
                parts.insert(place, part);
            }
            assert_eq!(bytes_of(&parts), message);
            let own = random.below(10) as usize;
            parts[own].fill(0xff);
            for (index, part) in parts.iter().enumerate() {
                let before: usize = parts[..index].iter().map(|part| part.len()).sum();
                let expected = match index == own {
                    true => vec![0xff; part.len()],
                    false => message[before..before + part.len()].to_vec(),
                };
                assert_eq!(part[..], expected[..], "parts never overlap");
            }
            while let Some(last) = parts.len().checked_sub(1) {
                assert_eq!(lent(), 1, "the buffer is lent until its last part goes");
                let which = random.below(last as u64 + 1) as usize;
                match random.below(3) {
                    0 => drop(Vec::from(parts.swap_remove(which))),
                    1 => parts.swap_remove(which).truncate(0),
                    _ => drop(parts.swap_remove(which)),
                }
            }
            assert_eq!(lent(), 0);
        }
        // All four are the kernel's again: three can be lent at once, and no buffer twice.
        let mut kept = Vec::new();
        for byte in 0..3u8 {
            write(&peer, &[byte; 50]);
            kept.push(chunk(&stream).await);
        }
        assert!(kept.iter().all(Chunk::is_pooled) && lent() == 3);
        let firsts: Vec<_> = kept.iter().map(|chunk| (chunk[0], chunk[49])).collect();
        assert_eq!(firsts, [(0, 0), (1, 1), (2, 2)]);
        let mut places: Vec<_> = kept.iter().map(|chunk| chunk.as_ptr()).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 3, "a buffer is lent twice");
    });
}

/// BF6. Parts as buffers to send, each on its own, in flight together where they have to wait; and
/// parts of heap memory.
#[test]
fn bf6_parts_can_be_sent() {
    common::everywhere(|| async {
        let (stream, mut peer) = pair().await;
        for _ in 0..50 {
            write(&peer, &pattern(16));
            let mut sending = Vec::new();
            for mut chunk in chunks(&stream, 16).await {
                while chunk.len() > 3 {
                    sending.push(begin(stream.send_all(chunk.split_to(3))).await);
                }
                sending.push(begin(stream.send_all(chunk)).await);
            }
            for send in sending {
                drop(send.await.expect("the peer reads"));
            }
            let mut back = vec![0; 16];
            peer.read_exact(&mut back).expect("they are out");
            assert_eq!(back, pattern(16));
        }
    });
}

/// BF6. Splitting where it cannot be split panics, and the chunk is as it was.
#[test]
fn bf6_the_edges_of_a_split() {
    common::with_both(pool(64, 4), || async {
        let (stream, peer) = pair().await;
        write(&peer, b"tamam");
        let mut chunk = chunk(&stream).await;
        let empty = chunk.split_off(5);
        assert!(empty.is_empty() && chunk.split_to(0).is_empty());
        drop(empty);
        let beyond = std::panic::AssertUnwindSafe(|| drop(chunk.split_off(6)));
        assert!(std::panic::catch_unwind(beyond).is_err());
        assert_eq!((&chunk[..], lent()), (&b"tamam"[..], 1));
        chunk.truncate(100);
        assert_eq!(&chunk[..], b"tamam");
        chunk.truncate(0);
        assert!(chunk.is_empty() && Vec::from(chunk).is_empty());
        assert_eq!(lent(), 0);
    });
}

/// BF7. Buffers for which there is no memory: the error names them, and no limit that is not concerned.
#[test]
fn bf7_buffers_that_cannot_be_mapped_are_named() {
    common::alone("bf7_buffers_that_cannot_be_mapped_are_named", || {
        // Where memory is promised without a limit, this one holds.
        let limit = libc::rlimit { rlim_cur: 8 << 30, rlim_max: 8 << 30 };
        // SAFETY: `limit` is a valid limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        for (engine, builder) in common::both(&pool(1 << 30, 32768)) {
            let error = builder.build().map(drop).expect_err("32 TiB");
            println!("{engine}: {error}");
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            let text = error.to_string();
            assert!(text.contains("buffer_size") && !text.contains("MEMLOCK"), "{engine}: {text}");
        }
    });
}
