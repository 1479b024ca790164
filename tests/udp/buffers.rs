//! UD2: the buffers of datagrams: one group for all sockets, whose untouched pages cost nothing.

use tamam::Runtime;

use crate::common::{alone, everywhere, with_both};
use crate::{bound, numbered, pair, peer, recv};

/// How many bytes of memory the process has that are in place.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages: usize = text.split(' ').nth(1).expect("a number").parse().expect("a number");
    pages * 4096
}

#[test]
fn ud2_one_socket_lends_a_quarter_and_the_others_go_on() {
    with_both(Runtime::builder().buffer_count(64), || async {
        let (greedy, from) = pair().await;
        let mut kept = Vec::new();
        for number in 0..100 {
            from.send(&numbered(number, 100)).expect("room");
            kept.push(recv(&greedy).await);
        }
        let pooled = kept.iter().filter(|datagram| datagram.chunk.is_pooled()).count();
        assert_eq!(pooled, 16);
        assert_eq!(tamam::metrics().buffers_lent, 16);
        let (other, from) = pair().await;
        from.send(b"other").expect("room");
        assert!(recv(&other).await.chunk.is_pooled());
        for (number, datagram) in kept.iter().enumerate() {
            assert_eq!(datagram.chunk[..], numbered(number as u32, 100), "kept for long");
        }
    });
}

/// All buffers are lent: datagrams are received to the heap, and none is lost.
#[test]
fn ud2_without_a_free_buffer_datagrams_go_to_the_heap() {
    everywhere(|| async {
        let mut kept = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..6 {
            let (socket, from) = pair().await;
            for number in 0..80 {
                from.send(&numbered(number, 1000)).expect("room");
            }
            for number in 0..80 {
                let datagram = recv(&socket).await;
                assert_eq!(datagram.chunk[..], numbered(number, 1000));
                kept.push(datagram);
            }
            sockets.push((socket, from));
        }
        for (index, datagram) in kept.iter().enumerate() {
            assert_eq!(datagram.chunk[..], numbered(index as u32 % 80, 1000), "kept for long");
        }
    });
}

/// The memory of a runtime without datagrams has no buffers for them; small ones touch a page each;
/// after large ones, a round of small ones gives the pages back.
#[test]
fn ud2_only_touched_pages_cost_memory() {
    alone("buffers::ud2_only_touched_pages_cost_memory", || {
        with_both(Runtime::builder(), || async {
            let (socket, addr) = bound();
            let peer = peer(addr);
            let before = resident();
            let rounds = |count: usize, size: usize| {
                let (socket, peer) = (&socket, &peer);
                async move {
                    let bytes = vec![7; size];
                    for _ in 0..count {
                        peer.send(&bytes).expect("room");
                        assert_eq!(recv(socket).await.chunk.len(), size);
                    }
                    resident()
                }
            };
            let small = rounds(1000, 1200).await;
            assert!(small < before + (4 << 20), "{before} bytes, then {small}");
            let large = rounds(600, 60_000).await;
            let again = rounds(1200, 1200).await;
            println!("resident: {before}, small {small}, large {large}, small again {again}");
            assert!(again < before + (5 << 20), "{before} bytes, then {again}");
        });
    });
}

/// The kernel's multishot receive ends when it finds no buffer: nothing is lost by that.
#[test]
fn ud2_bursts_are_larger_than_the_group() {
    with_both(Runtime::builder().buffer_count(2), || async {
        let (socket, from) = pair().await;
        for _ in 0..5 {
            for number in 0..50 {
                from.send(&numbered(number, 500)).expect("room");
            }
            for number in 0..50 {
                assert_eq!(recv(&socket).await.chunk[..], numbered(number, 500));
            }
        }
    });
}

/// While datagrams are large, the kernel has few of the buffers: more that come at once are received
/// all the same.
#[test]
fn ud2_bursts_of_large_datagrams_at_many_sockets() {
    everywhere(|| async {
        let mut sockets = Vec::new();
        for _ in 0..20 {
            sockets.push(pair().await);
        }
        for round in 0..8 {
            for number in 0..5 {
                for (_, from) in &sockets {
                    from.send(&numbered(5 * round + number, 5000)).expect("room");
                }
            }
            for (socket, _) in &sockets {
                for number in 0..5 {
                    let datagram = recv(socket).await;
                    assert_eq!(datagram.chunk[..], numbered(5 * round + number, 5000));
                }
            }
        }
    });
}
