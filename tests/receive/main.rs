//! Receiving (SEMANTICS section 2). Every byte reaches exactly one call, in the order of the
//! stream, whatever becomes of the futures it came for: dropped, forgotten, timed out, aborted,
//! raced with a cancel. After the bytes comes the end, the same to everybody and for ever; a reset
//! is never shown as a clean one.

#[path = "../common/tcp.rs"]
mod family;

include!("rows.rs");
