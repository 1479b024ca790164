//! What all streams have in common: traits for code that works on each of them, and such code.
//!
//! # Examples
//! One function for every stream:
//! ```
//! use std::io::Result;
//! use tamam::io::{Lines, Receive, Transmit};
//! use tamam::net::{TcpListener, TcpStream, UnixStream};
//!
//! /// Answers each line with its length.
//! async fn serve(stream: impl Receive + Transmit) -> Result<()> {
//!     let mut lines = Lines::new(&stream);
//!     while let Some(line) = lines.next_line().await? {
//!         stream.send_all(format!("{}\n", line.len())).await?;
//!     }
//!     stream.shutdown().await
//! }
//!
//! async fn ask(stream: impl Receive + Transmit) -> Result<String> {
//!     stream.send_all("hello\n").await?;
//!     Ok(Lines::new(&stream).next_line().await?.unwrap_or_default())
//! }
//!
//! # tamam::run(async {
//! let (client, server) = UnixStream::pair()?;
//! tamam::spawn(serve(server));
//! assert_eq!(ask(client).await?, "5");
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let client = TcpStream::connect(listener.local_addr()?).await?;
//! tamam::spawn(serve(listener.accept().await?.0));
//! assert_eq!(ask(client).await?, "5");
//! # std::io::Result::Ok(())
//! # })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod error;
mod receive;
mod transmit;
mod duplex;
mod memory;
mod standard;
mod any;
mod held;
mod gather;
mod copy;
mod readiness;
mod watched;
mod truncated;

pub use any::AnyStream;
pub use copy::{Copied, Side, copy, copy_both};
pub use duplex::Duplex;
pub use error::{CallError, errno};
pub use gather::{Lines, read_to_end, read_until};
pub use memory::{DuplexStream, duplex};
pub use readiness::{Readiness, ReadyFor, ReadyGuard, TryIoError};
pub use receive::Receive;
pub(crate) use receive::{no_room, receives};
pub use standard::{Stderr, Stdin, Stdout, stderr, stdin, stdout};
pub use transmit::Transmit;
pub(crate) use transmit::transmits;
pub use truncated::Truncated;
