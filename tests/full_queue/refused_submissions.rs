//! H12, CX13: the kernel takes no submissions for a moment, and they wait outside the queue.

use std::io::{Read, Write};
use std::thread;

use tamam::time::timeout;

use crate::common::filter::{install_or_skip, step};
use crate::common::{PATIENCE, pair, ring_only, start};
use crate::{common, rings};

/// From now on, io_uring_enter(2) of this thread fails with EAGAIN where it only submits, as it does
/// when the queue is full. Where it also waits it works. False, with a word, if that cannot be.
fn refuse_to_submit_only() -> bool {
    const GETEVENTS: u32 = 1;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_K;
    let mut steps = [
        step(load, 0, 0, 0), // the number of the call
        step(jump | libc::BPF_JEQ, libc::SYS_io_uring_enter as u32, 0, 3),
        step(load, 16 + 3 * 8, 0, 0), // its fourth argument, the flags
        step(jump | libc::BPF_JSET, GETEVENTS, 1, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32, 0, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    install_or_skip(&mut steps)
}

/// 1 a receive fills the queue; 2 a send does not fit in, and the kernel takes nothing; 3 the bytes
/// of the receive come only when the send is out: so the driver must not sleep before it is.
async fn a_send_behind_a_full_queue() {
    let (waiting, mut waiting_peer) = pair().await;
    let (sending, mut sending_peer) = pair().await;
    let peers = thread::spawn(move || {
        let mut bytes = [0; 5];
        sending_peer.read_exact(&mut bytes).expect("the send is on its way");
        waiting_peer.write_all(&bytes).expect("connected");
        (waiting_peer, sending_peer)
    });
    for _ in 0..3 {
        tamam::yield_now().await;
    }
    let recv = start(waiting.recv()).await;
    let send = start(sending.send_all("hello")).await;
    assert_eq!(&recv.await.expect("no error").expect("not the end")[..], b"hello");
    send.await.expect("the peer has read it");
    common::join(peers).await;
}

#[test]
fn h12_no_sleep_while_a_submission_does_not_fit() {
    let test = || {
        let Some(ring) = ring_only(rings(1, 64)) else { return };
        if !refuse_to_submit_only() {
            return;
        }
        common::with(ring, || async {
            let done = timeout(*PATIENCE / 9, a_send_behind_a_full_queue()).await;
            done.expect("it sleeps, and a submission waits");
        });
    };
    // The filter is the thread's for ever. It has the name of the test, which the watchdog tells.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let alone = thread::Builder::new().name(name).spawn(test).expect("a thread");
    alone.join().expect("no panic");
}
