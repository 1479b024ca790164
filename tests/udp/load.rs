//! UD8: as much as a socket holds, sent at once.

use tamam::Runtime;

use crate::common::{everywhere, with_both};
use crate::{bound, numbered, peer, recv_in_order};

/// How much SO_RCVBUF may be, at most.
fn rmem_max() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/rmem_max").expect("proc is mounted");
    text.trim().parse().expect("a number")
}

/// 1 the socket's buffer is as large as allowed; 2 datagrams of this size are sent until the kernel
/// throws one away; 3 all others arrive, in order.
async fn a_burst_arrives(size: usize) {
    let (socket, addr) = bound();
    socket.set_recv_buffer_size(rmem_max()).expect("as much as is allowed");
    let peer = peer(addr);
    let mut sent = 0;
    while socket.dropped().expect("this kernel counts them") == 0 && sent < 100_000 {
        for _ in 0..64 {
            peer.send(&numbered(sent, size)).expect("room");
            sent += 1;
        }
    }
    let lost = socket.dropped().expect("this kernel counts them");
    let kept = sent - lost;
    println!("{kept} datagrams of {size} bytes, {lost} thrown away");
    // The kernel throws away the last ones: nothing has made room meanwhile.
    recv_in_order(&socket, (0..kept).map(|number| numbered(number, size))).await;
    let error = socket.try_recv().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn ud8_a_burst_of_all_that_a_socket_holds_arrives_in_order() {
    with_both(Runtime::builder(), || async {
        for size in [64, 1200, 9000, 60_000] {
            a_burst_arrives(size).await;
        }
    });
}

#[test]
fn ud8_a_burst_arrives_through_the_smallest_queues() {
    everywhere(|| a_burst_arrives(1200));
}
