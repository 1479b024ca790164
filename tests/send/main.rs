//! Sending (SEMANTICS section 3). Every buffer goes out whole and in the order of first polls,
//! whatever becomes of its future: dropped before its turn, nothing of it is sent; later, all of
//! it. A failure is told to everybody who asks, with the buffer, and to those after them. The end
//! follows what was queued before it.

#[path = "../common/tcp.rs"]
mod family;

include!("rows.rs");
