//! TLS over TCP, by rustls.

#[cfg_attr(not(test), expect(dead_code))]
mod engine;
mod info;
#[cfg(test)]
mod tests;

pub use info::TlsInfo;
pub use rustls;
