//! A trial of one engine: a runtime is built on it, and talks to itself over loopback.
//!
//! It tells whether an engine works, not what it could do better (that is `Capabilities`) and not
//! why it fails (that is `SetupError`, from `driver/probe.rs`). Read next: `advice.rs`.

use std::io;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use crate::driver::{Backend, Capabilities, SetupError};
use crate::io::errno;
use crate::net::{TcpListener, TcpStream};
use crate::runtime::Runtime;
use crate::time::{sleep, timeout};

/// How long a few bytes may take over loopback.
const TRIAL_MAX: Duration = Duration::from_secs(5);

/// The outcome of a trial.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) result: io::Result<Capabilities>,
    /// The part of the trial that could not be run, and why.
    pub(super) note: Option<String>,
}

impl Trial {
    /// Builds a runtime with `backend` on a thread of its own (so that the caller may be inside a
    /// runtime) and runs it there. Waits for the outcome: whether the engine works, or why not. If
    /// no thread can be had, the runtime is only built, and the note says so.
    pub(super) fn of(backend: Backend) -> Trial {
        // The calling thread may already run a runtime, and a thread runs one at most. It may also
        // have used up the sixteen rings that a thread can register.
        let thread = thread::Builder::new().name("tamam-doctor".to_owned());
        match thread.spawn(move || Trial::run(backend)) {
            Ok(thread) => thread.join().unwrap_or_else(|_| Trial {
                result: Err(io::Error::other("its trial panicked")),
                note: None,
            }),
            Err(error) => {
                let result = build(backend).map(|runtime| runtime.capabilities());
                let note = format!("started only, not run: no thread could be had: {error}");
                Trial { note: result.is_ok().then_some(note), result }
            }
        }
    }

    /// The trial itself, on this thread, which must not run a runtime.
    fn run(backend: Backend) -> Trial {
        let runtime = match build(backend) {
            Ok(runtime) => runtime,
            Err(error) => return Trial { result: Err(error), note: None },
        };
        let ended = runtime.block_on(async { timeout(TRIAL_MAX, round_trip()).await });
        let (result, note) = match ended {
            Ok(Ok(())) => (Ok(runtime.capabilities()), None),
            // The error has an errno: the engine delivered an answer of the network. It works.
            Ok(Err(error)) if errno(&error).is_some() => {
                let note = format!("tried with a timer only, since loopback says: {error}");
                (Ok(runtime.capabilities()), Some(note))
            }
            Ok(Err(error)) => (Err(error), None),
            Err(_elapsed) => {
                let text = format!("a few bytes over loopback took more than {TRIAL_MAX:?}");
                (Err(io::Error::new(io::ErrorKind::TimedOut, text)), None)
            }
        };
        Trial { result, note }
    }

    /// Why the engine does not work. `None`: it works, or the cause is not one that this crate
    /// knows.
    pub(super) fn cause(&self) -> Option<&SetupError> {
        self.result.as_ref().err().and_then(setup_error)
    }
}

fn build(backend: Backend) -> io::Result<Runtime> {
    Runtime::builder().backend(backend).build()
}

/// The cause inside an error of [`Runtime::new`]; `None` if it has none.
pub(super) fn setup_error(error: &io::Error) -> Option<&SetupError> {
    error.get_ref()?.downcast_ref()
}

/// Waits for a timer, then sends bytes over a connection in both directions.
async fn round_trip() -> io::Result<()> {
    const MESSAGE: &[u8] = b"tamam";
    sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.send_all(MESSAGE).await?;
        let got = to.read_exact(Vec::with_capacity(MESSAGE.len()), MESSAGE.len()).await?;
        if got != MESSAGE {
            return Err(io::Error::other("what came over loopback is not what was sent"));
        }
    }
    Ok(())
}
