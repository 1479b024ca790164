//! stdin, stdout and stderr of the process. What is in flight is not here, but in `stream/`; what is
//! different for them is in `blocking/standard.rs`. Read next: `stream/mod.rs`.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};

use super::{CallError, receives, transmits};
use crate::context;
use crate::stream::{Connection, receiving_calls, sending_calls};
use crate::sys::pipe::silence_sigpipe;
use crate::sys::standard::Standard;

/// What the handles of one stream share in a runtime. So what one has received is unread for all, and
/// buffers of any number of tasks go out whole.
struct OpenStream {
    connection: Rc<Connection>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.connection.drop_handle();
    }
}

thread_local! {
    /// The open streams of this thread: stdin, stdout, stderr.
    static OPEN: RefCell<[Weak<OpenStream>; 3]> = const { RefCell::new([Weak::new(), Weak::new(), Weak::new()]) };
}

/// The stream of the runtime here: the one that is open, or a new one.
fn shared(stream: Standard, name: &str) -> io::Result<Rc<OpenStream>> {
    let home = context::try_current()?.driver.clone();
    let open = OPEN.with_borrow(|open| open[stream as usize].upgrade());
    if let Some(shared) = open.filter(|shared| Rc::ptr_eq(shared.connection.home(), &home)) {
        return Ok(shared);
    }
    let connection = Connection::standard(stream, home);
    let connection = connection.map_err(|error| CallError::wrap("open", name, error))?;
    let shared = Rc::new(OpenStream { connection });
    OPEN.with_borrow_mut(|open| open[stream as usize] = Rc::downgrade(&shared));
    Ok(shared)
}

/// Standard input: a terminal, a pipe, a file, a socket or /dev/null. A closed one is as empty as
/// /dev/null.
///
/// All handles of a runtime are one stream. Bytes that were read ahead and not used, also those of a
/// dropped read, stay for the next `stdin()` of the process; code that reads file descriptor 0 past
/// this crate does not see them. O_NONBLOCK is never set on what other processes share.
///
/// On io_uring the kernel reads. Under epoll a thread of the process does, which is started when it is
/// needed. As long as a handle is there, one read may be under way after a call was dropped; drop all
/// handles before a child that reads the same stdin is started.
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
    Ok(Stdin { shared: shared(Standard::Input, "stdin")? })
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
/// goes out as far as there is room.
///
/// On io_uring the kernel writes. Under epoll a thread of the process does, 64 KiB at a time, from a
/// copy.
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
    Ok(Stdout { shared: shared(Standard::Output, "stdout")? })
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
    Ok(Stderr { shared: shared(Standard::Error, "stderr")? })
}

/// A handle of standard input: see [`stdin`]. All methods take `&self`.
///
/// # Examples
/// See [`stdin`].
pub struct Stdin {
    shared: Rc<OpenStream>,
}

/// A handle of standard output: see [`stdout`]. All methods take `&self`.
///
/// # Examples
/// See [`stdout`].
pub struct Stdout {
    shared: Rc<OpenStream>,
}

/// A handle of standard error: see [`stderr`]. All methods take `&self`.
///
/// # Examples
/// See [`stderr`].
pub struct Stderr {
    shared: Rc<OpenStream>,
}

impl Stdin {
    receiving_calls!(connection, "# let (sender, receiver) = tamam::pipe::pipe()?;");
}

impl Stdout {
    sending_calls!(connection, "# let (sender, receiver) = tamam::pipe::pipe()?;");
}

impl Stderr {
    sending_calls!(connection, "# let (sender, receiver) = tamam::pipe::pipe()?;");
}

/// What all three have.
macro_rules! standard_stream {
    ($stream:ident) => {
        impl $stream {
            pub(crate) fn connection(&self) -> &Rc<Connection> {
                &self.shared.connection
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
