//! A trial of this kernel's multishot receive. No flag tells whether it reports every reset.
//!
//! All that flags and versions tell is in `probe.rs`: read that next.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};

use super::buffer_ring::BufferPool;
use super::op::Completion;
use super::probe::Kernel;
use super::ring::{Ring, SleepLimit};
use super::{BUFFER_GROUP, CANCEL};
use crate::sys;

/// A limit for steps that usually take microseconds, and the pause between two looks.
const TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// Whether a multishot receive reports a reset that comes right after bytes (SEMANTICS RX11).
///
/// Many kernels before 7.0 do not: two wake-ups come before the receive looks, it takes the bytes,
/// forgets both wake-ups, and never completes again. No flag tells this, and the fix was ported to
/// some older series (6.18.15 lacks it, 6.18.44 has it). So each process tries it once. A
/// `pretended` kernel below 7.0 counts as one without the fix. If the trial is not possible, for
/// example without a loopback device, the answer is no. In a shortage of descriptors, the next ring
/// tries again. After an error something may be in flight.
///
/// A reset that is there before the receive is armed is another matter: see `stream/receive.rs`.
pub(super) fn multishot_recv_is_whole(
    ring: &Ring,
    pool: &Rc<BufferPool>,
    pretended: Option<Kernel>,
) -> io::Result<bool> {
    static IS_WHOLE: OnceLock<bool> = OnceLock::new();
    if pretended.is_some_and(|kernel| kernel < Kernel(7, 0)) {
        return Ok(false);
    }
    if let Some(is_whole) = IS_WHOLE.get() {
        return Ok(*is_whole);
    }
    let is_whole = match loopback_pair() {
        Ok((ours, theirs)) => hears_a_reset(ring, pool, &ours, theirs)?,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            return Ok(false);
        }
        Err(_) => false,
    };
    Ok(*IS_WHOLE.get_or_init(|| is_whole))
}

/// The two ends of a connection over loopback.
fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // A firewall may drop the connection or redirect it.
    let ours = TcpStream::connect_timeout(&listener.local_addr()?, TIMEOUT)?;
    sys::poll_readable(listener.as_fd(), Some(TIMEOUT));
    listener.set_nonblocking(true)?;
    let (theirs, peer) = listener.accept()?;
    // Any process may connect to the listener.
    if peer == ours.local_addr()? {
        Ok((ours, theirs))
    } else {
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// Sends a byte and a reset to a multishot receive. True: it reported both, and every step worked.
/// Nothing is in flight afterwards, except after an error.
fn hears_a_reset(
    ring: &Ring,
    pool: &Rc<BufferPool>,
    ours: &TcpStream,
    mut theirs: TcpStream,
) -> io::Result<bool> {
    let (came, is_over) = (Cell::new(0), Cell::new(false));
    let take = || {
        while let Some(entry) = ring.next_completion() {
            let done = Completion::new(&entry);
            if let Some(bid) = done.buffer() {
                drop(pool.lend(bid, done.result().unwrap_or(0) as usize));
            }
            came.set(came.get() + 1);
            is_over.set(is_over.get() || !done.more());
        }
    };
    let reap = || -> io::Result<()> {
        enter(ring)?;
        take();
        // With a queue of one entry, the other completions wait in the kernel.
        if ring.has_overflow() {
            enter(ring)?;
            take();
        }
        Ok(())
    };
    let fd = types::Fd(ours.as_raw_fd());
    ring.push(&opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(CANCEL));
    submit(ring)?; // the receive finds nothing and waits
    let mut is_reset = theirs.write_all(&[0]).and(sys::set_zero_linger(theirs.as_fd())).is_ok();
    drop(theirs);
    is_reset &= sys::poll_hang_up(ours.as_fd(), TIMEOUT);
    if is_reset {
        retry_until_timeout(|| reap().map(|()| came.get() > 0))?; // the byte and the reset have arrived
    }
    let has_heard = is_over.get();
    if !has_heard {
        let cancel = opcode::AsyncCancel::new(CANCEL).build().user_data(CANCEL);
        ring.push(&cancel.flags(squeue::Flags::SKIP_SUCCESS));
        submit(ring)?;
        retry_until_timeout(|| reap().map(|()| is_over.get()))?;
    }
    Ok(is_reset && has_heard)
}

/// Enters until the kernel has taken the submissions. Fails with ETIMEDOUT after a second.
fn submit(ring: &Ring) -> io::Result<()> {
    retry_until_timeout(|| enter(ring).map(|taken| taken > 0))
}

/// Enters and does not wait. Gives how many submissions the kernel took: zero after a transient
/// error (SEMANTICS CX13).
fn enter(ring: &Ring) -> io::Result<u32> {
    match ring.enter(0, SleepLimit::Long) {
        Err(error) if is_transient(&error) => Ok(0),
        result => result,
    }
}

fn is_transient(error: &io::Error) -> bool {
    use libc::{EAGAIN, EBUSY, EINTR, ENOMEM};
    matches!(error.raw_os_error(), Some(EAGAIN | EBUSY | EINTR | ENOMEM))
}

/// Repeats `step` until it gives true. Fails with an error of `step`, or with ETIMEDOUT after
/// [`TIMEOUT`].
fn retry_until_timeout(mut step: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !step()? {
        if start.elapsed() >= TIMEOUT {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
