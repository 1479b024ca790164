//! What a datagram is received by: a message header, and memory for the record of the datagram.
//!
//! A record is what the kernel writes into a provided buffer. The other ways to receive write the
//! same, so one piece of code reads all of them:
//!
//! ```text
//! 0            16          128             256
//! │ RecordHead │ address   │ control data  │ payload …
//! ```
//!
//! What a record says is read in `datagram/record.rs`: read that next.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem;
use std::rc::Rc;

use super::buffer_ring::{BufferPool, Chunk};
use crate::sys::datagram::header_for_room;
use crate::sys::page_len;

/// Room for the sender's address: of any family.
const NAME_ROOM: usize = 112;
/// Room for control data.
const CONTROL_ROOM: usize = 128;
/// Where the payload begins.
pub(crate) const RECORD_HEAD: usize = mem::size_of::<RecordHead>() + NAME_ROOM + CONTROL_ROOM;
/// Room for the payload: no datagram of IP has more, merged ones included.
const PAYLOAD_ROOM: usize = 1 << 16;

/// The length of a buffer for any record, in whole pages.
pub(super) fn buffer_len() -> usize {
    (RECORD_HEAD + PAYLOAD_ROOM).next_multiple_of(page_len())
}

/// `struct io_uring_recvmsg_out`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RecordHead {
    name_len: u32,
    control_len: u32,
    payload_len: u32,
    flags: u32,
}

/// A record: where its parts are. All bytes of it are initialised, and all lengths are checked.
pub(crate) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// `None`: it is shorter than its head.
    pub(crate) fn new(record: &'a [u8]) -> Option<Record<'a>> {
        (record.len() >= RECORD_HEAD).then_some(Record(record))
    }

    fn number(&self, index: usize) -> usize {
        let number = self.0[4 * index..].first_chunk().expect("the head has four numbers");
        u32::from_ne_bytes(*number) as usize
    }

    /// The address of the sender, as the kernel has it; empty if there is none.
    pub(crate) fn name(&self) -> &'a [u8] {
        let start = mem::size_of::<RecordHead>();
        &self.0[start..start + self.number(0).min(NAME_ROOM)]
    }

    /// Whether the kernel has cut the payload off, because there was no room for it.
    pub(crate) fn is_cut(&self) -> bool {
        self.number(3) & libc::MSG_TRUNC as usize != 0
    }

    /// The control data.
    pub(crate) fn control(&self) -> &'a [u8] {
        let start = mem::size_of::<RecordHead>() + NAME_ROOM;
        &self.0[start..start + self.number(1).min(CONTROL_ROOM)]
    }
}

/// A message header and the memory that it names: of a pool, or its own.
#[repr(C)]
pub(crate) struct IncomingDatagram {
    /// The first field: a pointer to it is one to the whole.
    header: UnsafeCell<libc::msghdr>,
    piece: UnsafeCell<libc::iovec>,
    memory: RecordMemory,
}

enum RecordMemory {
    /// Each datagram is received into a buffer of this pool.
    Pooled(Rc<BufferPool>),
    /// One datagram is received into this.
    Heap(UnsafeCell<Vec<u8>>),
}

impl IncomingDatagram {
    /// For any number of datagrams, into buffers of the pool.
    pub(crate) fn pooled(pool: Rc<BufferPool>) -> Rc<IncomingDatagram> {
        Rc::new(IncomingDatagram {
            header: UnsafeCell::new(header_for_room(NAME_ROOM, CONTROL_ROOM)),
            piece: UnsafeCell::new(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }),
            memory: RecordMemory::Pooled(pool),
        })
    }

    /// For one datagram, into memory of its own.
    pub(crate) fn on_heap() -> Rc<IncomingDatagram> {
        let mut memory: Vec<u8> = Vec::with_capacity(RECORD_HEAD + PAYLOAD_ROOM);
        memory.resize(RECORD_HEAD, 0);
        let start = memory.as_mut_ptr();
        let incoming = Rc::new(IncomingDatagram {
            header: UnsafeCell::new(header_for_room(NAME_ROOM, CONTROL_ROOM)),
            piece: UnsafeCell::new(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }),
            memory: RecordMemory::Heap(UnsafeCell::new(memory)),
        });
        // SAFETY: the memory has room for a record, and nobody else uses `incoming` yet.
        unsafe { aim(incoming.header.get(), incoming.piece.get(), start, PAYLOAD_ROOM) };
        incoming
    }

    /// The header, which stays where it is. It is also the address of the whole.
    pub(crate) fn header(&self) -> *mut libc::msghdr {
        // From `self`, not from the field: the pointer may be used for the whole.
        (&raw const *self).cast_mut().cast()
    }

    /// The pool that it receives into. Panics if it has memory of its own.
    pub(crate) fn pool(&self) -> &Rc<BufferPool> {
        match &self.memory {
            RecordMemory::Pooled(pool) => pool,
            RecordMemory::Heap(_) => unreachable!("it picks from no pool"),
        }
    }

    /// The record of the datagram that came, whose payload has `len` bytes. The receive has ended.
    /// Panics unless it has memory of its own, which nobody else uses.
    pub(crate) fn into_record(self: Rc<Self>, len: usize) -> Chunk {
        assert!(len <= PAYLOAD_ROOM, "the kernel writes no more than it was given");
        let this = Rc::into_inner(self).expect("an op that has ended shares nothing");
        let header = this.header.into_inner();
        let RecordMemory::Heap(memory) = this.memory else { unreachable!("it picks from no pool") };
        let mut memory = memory.into_inner();
        // SAFETY: the kernel has written `len` bytes behind the head, which was initialised. The
        // assertion above has checked the capacity.
        unsafe { memory.set_len(RECORD_HEAD + len) };
        memory.shrink_to_fit(); // few bytes must not pin a large buffer
        // SAFETY: a record begins with its head, and the memory is that of a record.
        unsafe { write_head(memory.as_mut_ptr(), &header, len) };
        Chunk::from(memory)
    }
}

/// recvmsg(2) by a header of one's own: the record of the next datagram, in `buffer`. Gives the
/// length of the payload.
///
/// # Safety
/// `buffer` is writable for `len` bytes, and nobody else uses it. `len` is at least that of a head.
pub(crate) unsafe fn receive_record(
    receive: impl FnOnce(*mut libc::msghdr) -> std::io::Result<u32>,
    buffer: *mut u8,
    len: usize,
) -> std::io::Result<u32> {
    // SAFETY: the caller promises the same.
    unsafe { receive_into(header_for_room(NAME_ROOM, CONTROL_ROOM), receive, buffer, len) }
}

/// The record of the next datagram, by recvfrom(2), in memory of its own with this much room for the
/// payload. `receive` is given the payload and its room, the name and its length, and returns how long
/// the datagram is, or was. There is no control data: descriptors that came along are closed by the
/// kernel.
pub(crate) fn receive_own_record(
    receive: impl FnOnce(*mut u8, usize, *mut u8, &mut u32) -> std::io::Result<usize>,
    room: usize,
) -> std::io::Result<Chunk> {
    let mut memory: Vec<u8> = Vec::with_capacity(RECORD_HEAD + room);
    memory.resize(RECORD_HEAD, 0);
    let start = memory.as_mut_ptr();
    // SAFETY: the memory begins with a head, and the name is behind what it begins with.
    let name = unsafe { start.add(mem::size_of::<RecordHead>()) };
    // SAFETY: the memory has this capacity.
    let payload = unsafe { start.add(RECORD_HEAD) };
    let mut name_len = NAME_ROOM as u32;
    let len = receive(payload, room, name, &mut name_len)?;
    let received = len.min(room);
    let flags = if len > room { libc::MSG_TRUNC as u32 } else { 0 };
    let payload_len = received as u32;
    let head = RecordHead { name_len, control_len: 0, payload_len, flags };
    // SAFETY: the memory begins with a head. It may be unaligned.
    unsafe { start.cast::<RecordHead>().write_unaligned(head) };
    // SAFETY: the kernel has written so many bytes behind the head, which was initialised.
    unsafe { memory.set_len(RECORD_HEAD + received) };
    Ok(Chunk::from(memory))
}

/// Receives by `header`, which names no memory yet.
///
/// # Safety
/// As for [`receive_record`]. `header` has room for no longer a name or control data than a record.
unsafe fn receive_into(
    mut header: libc::msghdr,
    receive: impl FnOnce(*mut libc::msghdr) -> std::io::Result<u32>,
    buffer: *mut u8,
    len: usize,
) -> std::io::Result<u32> {
    let mut piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: the caller promises that there is room for the head and for what is behind it.
    unsafe { aim(&raw mut header, &raw mut piece, buffer, len - RECORD_HEAD) };
    let received = receive(&raw mut header)?;
    // SAFETY: as above; the kernel is done with the header.
    unsafe { write_head(buffer, &header, received as usize) };
    Ok(received)
}

/// Makes a header receive into the parts of the record at `start`, whose payload has `room` bytes.
///
/// # Safety
/// `header` and `piece` are writable, and nobody else uses them. There are a head and `room` bytes
/// at `start`.
unsafe fn aim(header: *mut libc::msghdr, piece: *mut libc::iovec, start: *mut u8, room: usize) {
    // SAFETY: the caller promises that there is a head at `start`.
    let name = unsafe { start.add(mem::size_of::<RecordHead>()) };
    // SAFETY: as above.
    let control = unsafe { name.add(NAME_ROOM) };
    // SAFETY: as above.
    let payload = unsafe { start.add(RECORD_HEAD) };
    // SAFETY: the caller promises that both are writable.
    unsafe { piece.write(libc::iovec { iov_base: payload.cast(), iov_len: room }) };
    // SAFETY: as above.
    let header = unsafe { &mut *header };
    (header.msg_name, header.msg_control) = (name.cast(), control.cast());
    (header.msg_iov, header.msg_iovlen) = (piece, 1);
}

/// Writes the head of a record, from the header that it was received by.
///
/// # Safety
/// There is a head at `start`, which nobody else uses.
unsafe fn write_head(start: *mut u8, header: &libc::msghdr, payload_len: usize) {
    let head = RecordHead {
        name_len: header.msg_namelen,
        control_len: header.msg_controllen as u32,
        payload_len: payload_len as u32,
        flags: header.msg_flags as u32,
    };
    // SAFETY: the caller promises room for it. The memory may be unaligned.
    unsafe { start.cast::<RecordHead>().write_unaligned(head) };
}
