//! The ceiling for datagrams: an echo, or a sink, written straight on a ring.
//!
//! Receives are multishot RECVMSG, one for each socket, and an answer is sent from the very buffer its
//! request came in. Sends are eager, as those of TCP: MSG_DONTWAIT, with a completion only on
//! failure, so they are over when the enter that submits them returns.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{EnterFlags, cqueue, opcode, squeue};

use super::{BUFFER_GROUP, Buffers, Piece, setup};

/// `struct io_uring_recvmsg_out`, a sockaddr_in, and control data for UDP_GRO.
const HEAD: usize = 16 + 16 + CONTROL;
const CONTROL: usize = 32;

const STOP: u64 = 1 << 32;
const RECV: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const KIND: u64 = !0 << 32;

/// What becomes of a datagram.
pub enum Work<'a> {
    Echo,
    /// It is counted: each of this size.
    Sink(&'a AtomicU64, usize),
}

/// The header of an answer, one for each buffer.
#[derive(Clone, Copy)]
struct Answer {
    header: libc::msghdr,
    piece: libc::iovec,
}

/// Serves until `stop` (an eventfd) becomes readable. `datagram_len` is the longest there is.
pub fn serve(
    sockets: &[UdpSocket],
    stop: BorrowedFd<'_>,
    datagram_len: usize,
    work: &Work<'_>,
) -> io::Result<()> {
    let mut buffers = Buffers::map(HEAD + datagram_len, 16)?;
    // SAFETY: a header consists of integers and raw pointers, for which zero and null are valid.
    let zero: Answer = unsafe { std::mem::zeroed() };
    let mut answers = vec![zero; usize::from(buffers.count)];
    let mut room = zero.header;
    (room.msg_namelen, room.msg_controllen) = (16, CONTROL as _);
    let mut ring = setup()?;
    let (mut submitter, mut sq, mut cq) = ring.split();
    submitter.register_ring_fd()?;
    buffers.register(&submitter)?;
    let push = |sq: &mut io_uring::SubmissionQueue<'_>, entry: squeue::Entry, user_data: u64| {
        let entry = entry.user_data(user_data);
        // SAFETY: what an entry points to lives until the loop has ended and cancelled everything.
        while unsafe { sq.push(&entry) }.is_err() {
            sq.sync();
            submitter.submit().expect("the kernel takes submissions");
            sq.sync();
        }
    };
    push(&mut sq, opcode::PollAdd::new(Fd(stop.as_raw_fd()), libc::POLLIN as u32).build(), STOP);
    let receive = |index: usize| {
        let fd = Fd(sockets[index].as_raw_fd());
        opcode::RecvMsgMulti::new(fd, &raw const room, BUFFER_GROUP).build()
    };
    (0..sockets.len()).for_each(|index| push(&mut sq, receive(index), RECV | index as u64));
    let (mut issued, mut batch): (Vec<u16>, Vec<cqueue::Entry>) = (Vec::new(), Vec::new());
    let mut is_stopped = false;
    while !is_stopped {
        sq.sync();
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: there is no argument.
        let entered = unsafe { submitter.enter::<()>(sq.len() as u32, 1, flags, None) };
        match entered {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        issued.drain(..).for_each(|buffer| buffers.recycle(buffer));
        cq.sync();
        batch.extend(&mut cq);
        cq.sync();
        for completion in batch.drain(..) {
            let index = completion.user_data() as u32 as usize;
            match completion.user_data() & KIND {
                STOP => is_stopped = true,
                RECV => {
                    if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                        let len = completion.result().max(HEAD as i32) as u32 - HEAD as u32;
                        let start = HEAD as u32;
                        let bytes = buffers.bytes(Piece { buffer, start, len }).cast_mut();
                        match work {
                            Work::Sink(count, size) => {
                                let datagrams = (len as usize).div_ceil(*size) as u64;
                                count.fetch_add(datagrams, Ordering::Relaxed);
                                buffers.recycle(buffer);
                            }
                            Work::Echo => {
                                let name = buffers.bytes(Piece { buffer, start: 16, len: 16 });
                                let answer = &mut answers[usize::from(buffer)];
                                answer.piece =
                                    libc::iovec { iov_base: bytes.cast(), iov_len: len as usize };
                                answer.header.msg_name = name.cast_mut().cast();
                                answer.header.msg_namelen = 16;
                                answer.header.msg_iov = &raw mut answer.piece;
                                answer.header.msg_iovlen = 1;
                                let fd = Fd(sockets[index].as_raw_fd());
                                let send = opcode::SendMsg::new(fd, &raw const answer.header)
                                    .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                                    .build()
                                    .flags(squeue::Flags::SKIP_SUCCESS);
                                push(&mut sq, send, SEND);
                                issued.push(buffer);
                            }
                        }
                    }
                    if !cqueue::more(completion.flags()) {
                        push(&mut sq, receive(index), completion.user_data());
                    }
                }
                SEND => return Err(io::Error::from_raw_os_error(-completion.result())),
                unknown => panic!("completion of an op that was never pushed: {unknown:#x}"),
            }
        }
        buffers.publish();
    }
    let patience = Timespec::new().sec(5);
    match submitter.register_sync_cancel(Some(patience), CancelBuilder::any()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}
