//! stdin, stdout and stderr of the process. What is in flight is not here, but in `stream/`; what is
//! different for them is in `blocking/standard.rs`. Read next: `stream/mod.rs`.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};

use super::any::AnyCarrier;
use super::{CallError, receives, transmits};
use crate::driver::Driver;
use crate::stream::{Carried, Carrier, Connection, ThreadedEnd, queueing_calls, receiving_calls};
use crate::sys::pipe::silence_sigpipe;
use crate::sys::standard::Standard;
use crate::{blocking, context, sys};

/// A pipe, a socket or a terminal that the engine reads and writes.
pub(crate) struct DirectStandard {
    connection: Rc<Connection>,
}

/// A stream whose calls a thread makes.
pub(crate) struct ThreadedStandard {
    end: Rc<ThreadedEnd>,
}

/// Opens a stream: the handles of a runtime share it. So what one has received is unread for all, and
/// buffers of any number of tasks go out whole.
fn open(stream: Standard, home: Rc<Driver>) -> io::Result<AnyCarrier> {
    sys::standard::take_free_numbers();
    let fd = sys::standard::for_engine(stream, !home.attempts_first());
    let Some(fd) = fd.inspect_err(|error| home.note_failure(error))? else {
        return Ok(AnyCarrier::ThreadedStandard(ThreadedStandard {
            end: ThreadedEnd::open(stream)?,
        }));
    };
    let unread = match stream {
        Standard::Input => blocking::standard::input().take_unread(),
        Standard::Output | Standard::Error => Vec::new(),
    };
    let connection = Connection::shared(fd, home, &unread);
    Ok(AnyCarrier::DirectStandard(DirectStandard { connection }))
}

impl Carried for DirectStandard {
    type Carrier = Connection;

    fn carrier(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Carried for ThreadedStandard {
    type Carrier = ThreadedEnd;

    fn carrier(&self) -> &Rc<ThreadedEnd> {
        &self.end
    }
}

/// What `AnyStream` asks of each kind of carrier. No `AnyStream` is made of these two, so neither is ever
/// called.
macro_rules! any_kind {
    ($($kind:ident),*) => {$(
        impl $kind {
            pub(crate) fn abort_on_drop(&self) {}
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($kind))
            }
        }
    )*};
}

any_kind!(DirectStandard, ThreadedStandard);

impl Drop for DirectStandard {
    fn drop(&mut self) {
        self.connection.drop_handle();
    }
}

/// An open stream of this thread.
struct Open {
    stream: Standard,
    /// Of its runtime.
    home: Weak<Driver>,
    carrier: Weak<AnyCarrier>,
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
}

/// The stream of the runtime here: the one that is open, or a new one.
fn shared(stream: Standard) -> io::Result<Rc<AnyCarrier>> {
    let home = context::try_current()?.driver.clone();
    let open_before = OPEN.with_borrow_mut(|all| {
        all.retain(|open| open.carrier.strong_count() > 0);
        let is_wanted =
            |open: &&Open| open.stream == stream && open.home.as_ptr() == Rc::as_ptr(&home);
        all.iter().find(is_wanted).and_then(|open| open.carrier.upgrade())
    });
    if let Some(carrier) = open_before {
        return Ok(carrier);
    }
    let opened = open(stream, home.clone());
    let opened = opened.map_err(|error| CallError::wrap("open", stream.name(), error))?;
    let opened = Rc::new(opened);
    let (home, carrier) = (Rc::downgrade(&home), Rc::downgrade(&opened));
    OPEN.with_borrow_mut(|all| all.push(Open { stream, home, carrier }));
    Ok(opened)
}

/// Standard input: a terminal, a pipe, a file, a socket or /dev/null. A closed one is as empty as
/// /dev/null.
///
/// All handles of a runtime are one stream. Bytes that were read ahead and not used, also those of a
/// dropped read, stay for the next `stdin()` of the process; code that reads file descriptor 0 past
/// this crate does not see them. O_NONBLOCK is never set on what other processes share.
///
/// A terminal is read by the runtime's engine, on io_uring also a pipe or a socket. All else may wait in
/// its call: a thread of the process makes it, which is started when it is needed. As long as a handle
/// is there, one read may be under way after a call was dropped: drop all handles before a child that
/// reads the same stdin is started.
///
/// # Errors
/// [`CallError`] with EMFILE and its like; `Other` outside a runtime.
/// # Examples
/// ```
/// use tamam::io::{Lines, stdin};
///
/// # tamam::run(async {
/// let stdin = stdin()?;
/// let mut lines = Lines::new(&stdin);
/// let mut count = 0;
/// while lines.next_line().await?.is_some() {
///     count += 1;
/// }
/// println!("{count} lines");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stdin() -> io::Result<Stdin> {
    Ok(Stdin { carrier: shared(Standard::Input)? })
}

/// Standard output: a terminal, a pipe, a file, a socket or /dev/null. A closed one takes everything,
/// as /dev/null does.
///
/// All handles of a runtime are one stream: buffers go out whole, in the order of the first polls.
/// There is no buffer beside the kernel's: a send that has ended was written. (std's `println!` has
/// one; flush it before a send.) A reader that is gone is `BrokenPipe`, and never SIGPIPE: see
/// [`pipe::Sender`](crate::pipe::Sender). A failure stays until all handles are dropped.
///
/// [`shutdown`](Stdout::shutdown) waits for what was queued, such as the rest of a dropped send, and
/// does not end the stream, since others share it. When the last handle is dropped, what is queued
/// goes out as far as there is room; where a thread writes, the drop waits for it, 100 ms at most without
/// progress.
///
/// A terminal is written by the runtime's engine, on io_uring also a pipe or a socket; all else by a
/// thread of the process, from a copy. That costs some 20 µs for each send: gather short lines, or use
/// [`sendv`](Stdout::sendv).
///
/// # Errors
/// As [`stdin`].
/// # Examples
/// ```
/// # tamam::run(async {
/// let stdout = tamam::io::stdout()?;
/// stdout.send_all("hello\n").await?;
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stdout() -> io::Result<Stdout> {
    silence_sigpipe();
    Ok(Stdout { carrier: shared(Standard::Output)? })
}

/// Standard error: as [`stdout`].
///
/// # Errors
/// As [`stdin`].
/// # Examples
/// ```
/// # tamam::run(async {
/// tamam::io::stderr()?.send_all("no such file\n").await?;
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stderr() -> io::Result<Stderr> {
    silence_sigpipe();
    Ok(Stderr { carrier: shared(Standard::Error)? })
}

/// A handle of standard input: see [`stdin`]. All methods take `&self`.
///
/// # Examples
/// See [`stdin`].
pub struct Stdin {
    carrier: Rc<AnyCarrier>,
}

/// A handle of standard output: see [`stdout`]. All methods take `&self`.
///
/// # Examples
/// See [`stdout`].
pub struct Stdout {
    carrier: Rc<AnyCarrier>,
}

/// A handle of standard error: see [`stderr`]. All methods take `&self`.
///
/// # Examples
/// See [`stderr`].
pub struct Stderr {
    carrier: Rc<AnyCarrier>,
}

impl Stdin {
    receiving_calls!(carrier, "# let (sender, receiver) = tamam::pipe::pipe()?;");
}

/// What the two that are written have. `$name`: the function that opens one.
macro_rules! written_stream {
    ($stream:ident, $name:literal) => {
        impl $stream {
            queueing_calls!(carrier, "# let (sender, receiver) = tamam::pipe::pipe()?;");

            /// Waits until everything is written that was queued by any handle, such as the rest of a
            /// dropped send. It is a flush: the stream does not end, since others share it.
            ///
            /// # Errors
            /// The first failure of this stream.
            /// # Cancel safety
            /// Cancel safe: it only waits.
            /// # Examples
            /// ```
            /// # tamam::run(async {
            #[doc = concat!("let stream = tamam::io::", $name, "()?;")]
            /// stream.send_all("hello\n").await?;
            /// stream.shutdown().await?;
            /// stream.send_all("it goes on\n").await?;
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            #[doc(alias = "flush")]
            pub async fn shutdown(&self) -> io::Result<()> {
                self.carrier().shutdown().await
            }
        }
    };
}

written_stream!(Stdout, "stdout");
written_stream!(Stderr, "stderr");

/// What all three have.
macro_rules! standard_stream {
    ($stream:ident) => {
        impl $stream {
            pub(crate) fn carrier(&self) -> &Rc<AnyCarrier> {
                &self.carrier
            }
        }

        impl fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($stream)).finish_non_exhaustive()
            }
        }
    };
}

standard_stream!(Stdin);
standard_stream!(Stdout);
standard_stream!(Stderr);
receives!(Stdin);
transmits!(Stdout);
transmits!(Stderr);
