//! The rows of sending over Unix sockets (SEMANTICS UX1): the same tests as in `main.rs`.

#[path = "../common/unix.rs"]
mod family;

include!("rows.rs");
