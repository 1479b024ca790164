//! The ceiling: an echo server written straight on a ring, without futures, tasks or wakers.
//!
//! It answers one question: how much of a request's cost is the kernel's, whoever asks. It is not a
//! library and takes liberties a runtime cannot. One turn:
//!
//! 1. one enter submits everything and waits for one completion;
//! 2. the completions are copied out and the head of the CQ is published at once, otherwise the next
//!    enter still counts them and returns without waiting;
//! 3. sends are settled, then the other completions push the next submissions.
//!
//! Receives are multishot from a ring of provided buffers (of Unix sockets one-shot, since the kernel's
//! multishot can lose their end: src/docs/kernels.md), and a reply is sent from the very buffer
//! its request came in. Sends are **eager**: MSG_DONTWAIT with a completion only on failure. The
//! kernel runs such a send inside the enter that submits it, so after that enter either the bytes are
//! in the socket's buffer, or there is a completion that says how many are not. This halves the
//! completions, and a send's own completion no longer ends the wait of its enter (which costs a
//! second enter per request when there is only one connection). `MSG_WAITALL` makes a short send a
//! failure, so it cannot pass in silence; the rest then goes out by an ordinary send that waits.
//!
//! Read next: [`EchoLoop::turn`].

pub mod udp;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{CancelBuilder, Fd, Fixed, Timespec};
use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue, types,
};

const SQ_LEN: u32 = 512;
/// 1000 connections can complete at once, and an overflowing CQ would break the eager sends.
const CQ_LEN: u32 = 4096;
/// Direct descriptors; more than any bench opens, less than RLIMIT_NOFILE usually is.
const FILES_LEN: u32 = 4096;
/// All buffers together stay within a typical L2 cache, since the kernel cycles through them.
const BUFFERS_BYTES: usize = 1 << 20;

/// Echoes on every connection of `listener`, which is non-blocking and of any family, until `stop` (an
/// eventfd) becomes readable.
///
/// `buffer_len` is the size of one provided buffer. The calling thread becomes the server.
pub fn serve(listener: BorrowedFd<'_>, stop: BorrowedFd<'_>, buffer_len: usize) -> io::Result<()> {
    // Declared before the ring, hence unmapped after the ring is gone.
    let mut buffers = Buffers::map(buffer_len, 64)?;
    let mut ring = setup()?;
    let no_iowait = ring.params().is_feature_no_iowait();
    let (mut submitter, sq, cq) = ring.split();
    submitter.register_ring_fd()?;
    submitter.register_files_sparse(FILES_LEN)?;
    buffers.register(&submitter)?;

    let mut server = EchoLoop {
        listener: listener.as_raw_fd(),
        is_unix: is_unix(listener)?,
        enter_flags: match no_iowait {
            true => EnterFlags::GETEVENTS | EnterFlags::NO_IOWAIT,
            false => EnterFlags::GETEVENTS,
        },
        submitter,
        sq,
        cq,
        buffers: &mut buffers,
        connections: Vec::new(),
        issued: Vec::new(),
        starved: Vec::new(),
        follow_up: false,
        batch: Vec::with_capacity(CQ_LEN as usize),
    };
    let stopped = opcode::PollAdd::new(Fd(stop.as_raw_fd()), libc::POLLIN as u32);
    server.push(stopped.build(), STOP);
    server.push_accept();
    while server.turn()? == Next::Turn {}

    // Nothing may be in flight when the buffers are unmapped.
    let patience = Timespec::new().sec(5);
    match server.submitter.register_sync_cancel(Some(patience), CancelBuilder::any()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    server.submitter.unregister_files()
}

fn is_unix(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let (mut domain, mut len): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let value = (&raw mut domain).cast();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_DOMAIN);
    // SAFETY: there is room for an int, and for its length.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, value, &mut len) } {
        0 => Ok(domain == libc::AF_UNIX),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The newest setup this kernel takes: NO_SQARRAY is of 6.6, the others of 6.1.
fn setup() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(CQ_LEN);
    let plain = builder.clone();
    builder.setup_no_sqarray().build(SQ_LEN).or_else(|_| plain.build(SQ_LEN))
}

// user_data: the kind of op above, the connection (its direct descriptor) below.
const STOP: u64 = 1 << 32;
const ACCEPT: u64 = 2 << 32;
const RECV: u64 = 3 << 32;
const SEND_EAGER: u64 = 4 << 32;
const SEND_REST: u64 = 5 << 32;
const CLOSE: u64 = 6 << 32;
const KIND: u64 = !0 << 32;

/// Bytes of one provided buffer that are still to be echoed.
#[derive(Clone, Copy)]
struct Piece {
    buffer: u16,
    start: u32,
    len: u32,
}

enum Sending {
    Idle,
    /// An eager send is pushed; it is over once the enter that submits it has returned.
    Issued(Piece),
    /// The socket was full; an ordinary send waits for room.
    Waiting(Piece),
}

struct Connection {
    sending: Sending,
    /// Received while a send was under way. Bounded by the number of provided buffers.
    queued: VecDeque<Piece>,
    receiving: bool,
    /// A send failed: nothing is echoed any more, the receive will end by itself.
    broken: bool,
}

#[derive(PartialEq, Eq)]
enum Next {
    Turn,
    Stop,
}

struct EchoLoop<'a> {
    listener: RawFd,
    is_unix: bool,
    enter_flags: EnterFlags,
    submitter: Submitter<'a>,
    sq: SubmissionQueue<'a>,
    cq: CompletionQueue<'a>,
    buffers: &'a mut Buffers,
    /// By direct descriptor.
    connections: Vec<Connection>,
    /// Connections with an eager send pushed since the last turn.
    issued: Vec<u32>,
    /// Connections whose receive ended because no buffer was left.
    starved: Vec<u32>,
    /// Something is to be done once the eager sends are settled. They complete without a word, so the
    /// next enter must not wait for one.
    follow_up: bool,
    batch: Vec<cqueue::Entry>,
}

impl EchoLoop<'_> {
    fn turn(&mut self) -> io::Result<Next> {
        let want = u32::from(!std::mem::take(&mut self.follow_up));
        self.enter(want, self.enter_flags)?;
        self.cq.sync();
        self.batch.extend(&mut self.cq);
        self.cq.sync(); // publishes the head
        // A failed eager send must be seen in the turn of its enter, so none may wait in overflow.
        assert!(!self.sq.cq_overflow(), "the CQ has room for every completion of one turn");

        let mut batch = std::mem::take(&mut self.batch);
        self.settle_eager_sends(&batch);
        let mut next = Next::Turn;
        for completion in batch.drain(..) {
            let connection = completion.user_data() as u32;
            match completion.user_data() & KIND {
                RECV => self.on_recv(connection, completion.result(), completion.flags()),
                ACCEPT => self.on_accept(completion.result(), completion.flags())?,
                SEND_REST => self.on_send_rest(connection, completion.result()),
                STOP => next = Next::Stop,
                SEND_EAGER | CLOSE => {} // settled above; a close that failed has closed all the same
                unknown => panic!("completion of an op that was never pushed: {unknown:#x}"),
            }
        }
        self.batch = batch;
        if self.buffers.publish() {
            while let Some(connection) = self.starved.pop() {
                self.push_recv(connection);
            }
        }
        self.follow_up |= !self.starved.is_empty() && !self.issued.is_empty();
        Ok(next)
    }

    /// Failures first; every other eager send that was pushed before this turn's enter is done.
    fn settle_eager_sends(&mut self, batch: &[cqueue::Entry]) {
        for completion in batch {
            if completion.user_data() & KIND == SEND_EAGER {
                self.on_eager_failure(completion.user_data() as u32, completion.result());
            }
        }
        let mut issued = std::mem::take(&mut self.issued);
        for connection in issued.drain(..) {
            if let Sending::Issued(piece) = self.connection(connection).sending {
                self.send_over(connection, piece);
            }
        }
        // `send_over` issues what was queued: those belong to the next turn.
        issued.append(&mut self.issued);
        self.issued = issued;
    }

    fn on_eager_failure(&mut self, connection: u32, result: i32) {
        let Sending::Issued(piece) = self.connection(connection).sending else {
            panic!("an eager send fails in the turn of its enter");
        };
        match result {
            sent if sent >= 0 => self.push_send_rest(connection, piece.after(sent as u32)),
            error if error == -libc::EAGAIN => self.push_send_rest(connection, piece),
            _ => self.send_failed(connection, piece),
        }
    }

    fn on_send_rest(&mut self, connection: u32, result: i32) {
        let Sending::Waiting(piece) = self.connection(connection).sending else {
            panic!("the rest of a send completes once");
        };
        match result {
            sent if sent == piece.len as i32 => self.send_over(connection, piece),
            sent if sent > 0 => self.push_send_rest(connection, piece.after(sent as u32)),
            _ => self.send_failed(connection, piece),
        }
    }

    fn send_over(&mut self, connection: u32, piece: Piece) {
        self.buffers.recycle(piece.buffer);
        let state = self.connection(connection);
        state.sending = Sending::Idle;
        match state.queued.pop_front() {
            Some(piece) => self.push_send_eager(connection, piece),
            None => self.close_if_over(connection),
        }
    }

    fn send_failed(&mut self, connection: u32, piece: Piece) {
        self.buffers.recycle(piece.buffer);
        let state = &mut self.connections[connection as usize];
        state.sending = Sending::Idle;
        state.broken = true;
        for piece in state.queued.drain(..) {
            self.buffers.recycle(piece.buffer);
        }
        self.close_if_over(connection);
    }

    fn on_accept(&mut self, result: i32, flags: u32) -> io::Result<()> {
        if result < 0 && result != -libc::ECONNABORTED {
            return Err(io::Error::from_raw_os_error(-result));
        }
        if let Ok(slot) = usize::try_from(result) {
            if self.connections.len() <= slot {
                self.connections.resize_with(slot + 1, Connection::vacant);
            }
            let state = &mut self.connections[slot];
            debug_assert!(!state.receiving && state.queued.is_empty());
            state.receiving = true;
            state.broken = false;
            self.push_recv(slot as u32);
        }
        if !cqueue::more(flags) {
            self.push_accept();
        }
        Ok(())
    }

    fn on_recv(&mut self, connection: u32, result: i32, flags: u32) {
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let state = self.connection(connection);
            match u32::try_from(result) {
                Ok(len) if len > 0 && !state.broken => {
                    let piece = Piece { buffer, start: 0, len };
                    match state.sending {
                        Sending::Idle => self.push_send_eager(connection, piece),
                        Sending::Issued(_) | Sending::Waiting(_) => {
                            state.queued.push_back(piece);
                            self.follow_up = true;
                        }
                    }
                }
                _ => self.buffers.recycle(buffer),
            }
        }
        if cqueue::more(flags) {
            return;
        }
        match result {
            error if error == -libc::ENOBUFS => self.starved.push(connection),
            received if received > 0 => self.push_recv(connection),
            _ => {
                // The end, or an error that ends the connection just as well.
                self.connection(connection).receiving = false;
                self.close_if_over(connection);
            }
        }
    }

    fn close_if_over(&mut self, connection: u32) {
        let state = self.connection(connection);
        match state.sending {
            _ if state.receiving => {}
            Sending::Waiting(_) => {}
            Sending::Issued(_) => self.follow_up = true,
            Sending::Idle => {
                assert!(state.queued.is_empty(), "an idle connection has sent what was queued");
                let close = opcode::Close::new(Fixed(connection)).build();
                self.push(close.flags(squeue::Flags::SKIP_SUCCESS), CLOSE | u64::from(connection));
            }
        }
    }

    fn connection(&mut self, connection: u32) -> &mut Connection {
        &mut self.connections[connection as usize]
    }

    fn push_accept(&mut self) {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).allocate_file_index(true);
        self.push(accept.build(), ACCEPT);
    }

    fn push_recv(&mut self, connection: u32) {
        let recv = match self.is_unix {
            false => opcode::RecvMulti::new(Fixed(connection), BUFFER_GROUP).build(),
            true => opcode::Recv::new(Fixed(connection), std::ptr::null_mut(), 0)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        self.push(recv, RECV | u64::from(connection));
    }

    fn push_send_eager(&mut self, connection: u32, piece: Piece) {
        let state = self.connection(connection);
        state.sending = Sending::Issued(piece);
        self.follow_up |= !state.receiving || !state.queued.is_empty();
        self.issued.push(connection);
        let send = opcode::Send::new(Fixed(connection), self.buffers.bytes(piece), piece.len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(send, SEND_EAGER | u64::from(connection));
    }

    fn push_send_rest(&mut self, connection: u32, piece: Piece) {
        self.connection(connection).sending = Sending::Waiting(piece);
        let send = opcode::Send::new(Fixed(connection), self.buffers.bytes(piece), piece.len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(send.build(), SEND_REST | u64::from(connection));
    }

    fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        let entry = entry.user_data(user_data);
        loop {
            // SAFETY: what an entry points at are the provided buffers, which `serve` unmaps after
            // the ring is gone, and descriptors that outlive the loop.
            if unsafe { self.sq.push(&entry) }.is_ok() {
                return;
            }
            self.enter(0, EnterFlags::empty()).expect("a full SQ can be submitted");
        }
    }

    fn enter(&mut self, want: u32, flags: EnterFlags) -> io::Result<()> {
        self.sq.sync();
        let pushed = self.sq.len() as u32;
        // SAFETY: no argument is passed, and the entries obey the contract stated in `push`.
        let entered =
            unsafe { self.submitter.enter::<libc::sigset_t>(pushed, want, flags.bits(), None) };
        self.sq.sync();
        match entered {
            Ok(submitted) if submitted as u32 == pushed => Ok(()),
            Ok(submitted) => Err(io::Error::other(format!("submitted {submitted} of {pushed}"))),
            // Only an enter that submitted nothing fails, and one with nothing to submit is harmless.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) && pushed == 0 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Connection {
    fn vacant() -> Self {
        let sending = Sending::Idle;
        Connection { sending, queued: VecDeque::new(), receiving: false, broken: false }
    }
}

impl Piece {
    fn after(self, sent: u32) -> Self {
        assert!(sent < self.len, "a send that sent everything has not failed");
        Piece { buffer: self.buffer, start: self.start + sent, len: self.len - sent }
    }
}

const BUFFER_GROUP: u16 = 0;

/// The provided buffers and the ring through which the kernel takes them.
struct Buffers {
    ring: Mapping,
    memory: Mapping,
    buffer_len: usize,
    count: u16,
    /// Runs free; the entry is the tail modulo `count`.
    tail: u16,
    published: u16,
}

impl Buffers {
    /// `least`: so many there are, even if they are more than [`BUFFERS_BYTES`].
    fn map(buffer_len: usize, least: usize) -> io::Result<Self> {
        let count = (BUFFERS_BYTES / buffer_len).clamp(least, 1024).next_power_of_two();
        Ok(Buffers {
            ring: Mapping::new(count * size_of::<types::BufRingEntry>())?,
            memory: Mapping::new(count * buffer_len)?,
            buffer_len,
            count: count as u16,
            tail: 0,
            published: 0,
        })
    }

    fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        let ring = self.ring.start.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and outlives the ring.
        unsafe { submitter.register_buf_ring_with_flags(ring, self.count, BUFFER_GROUP, 0) }?;
        (0..self.count).for_each(|buffer| self.recycle(buffer));
        self.publish();
        Ok(())
    }

    fn bytes(&self, piece: Piece) -> *const u8 {
        let offset = usize::from(piece.buffer) * self.buffer_len + piece.start as usize;
        assert!(offset + piece.len as usize <= self.memory.len, "a piece lies in its buffer");
        self.memory.start.as_ptr().wrapping_add(offset)
    }

    /// Gives a buffer back; the kernel sees it after [`publish`](Self::publish).
    fn recycle(&mut self, buffer: u16) {
        assert!(buffer < self.count, "the kernel names buffers it was given");
        let start = self.memory.start.as_ptr() as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies in the mapping, which is zeroed memory and
        // valid for this plain integer type; the kernel does not read it until the tail moves past.
        let entry =
            unsafe { &mut *self.ring.start.as_ptr().cast::<types::BufRingEntry>().add(slot) };
        entry.set_addr(start + (usize::from(buffer) * self.buffer_len) as u64);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back; says whether that was anything.
    fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        let base = self.ring.start.as_ptr().cast::<types::BufRingEntry>();
        // SAFETY: `base` is the first entry of the registered ring.
        let tail = unsafe { types::BufRingEntry::tail(base) };
        // SAFETY: the field is aligned, lives as long as the mapping, and is shared with the kernel,
        // which only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }
}

/// Anonymous memory, populated so that no page fault falls into a measurement.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED does not give null");
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
