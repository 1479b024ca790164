//! A trial of what no flag tells: whether this kernel's multishot receive can be relied on.
//!
//! Read next: `probe.rs`, which knows the rest.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::{opcode, squeue, types};

use super::buffer_ring::Pool;
use super::op::Completion;
use super::probe::Kernel;
use super::ring::{Ring, Sleep};
use super::{BUFFER_GROUP, CANCEL};
use crate::sys;

/// For what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a multishot receive is told of a reset that comes right after bytes (SEMANTICS RX11).
///
/// Many kernels before 7.0 forget it: two wake-ups come before the receive looks, it takes the bytes,
/// is done with both, and never completes again. No flag tells, and the fix was carried back to some
/// series (6.18.15 lacks it, 6.18.44 has it), so it is tried, once in a process. `pretended`: a kernel
/// that is one without. If it cannot be tried, for want of a loopback device or of descriptors, the
/// answer is no, and the next ring tries again. With an error something may be in flight.
pub(super) fn multishot_recv_is_whole(
    ring: &Ring,
    pool: &Rc<Pool>,
    pretended: Option<Kernel>,
) -> io::Result<bool> {
    static IS_WHOLE: OnceLock<bool> = OnceLock::new();
    if pretended.is_some_and(|kernel| kernel < Kernel(7, 0)) {
        return Ok(false);
    }
    if let Some(is_whole) = IS_WHOLE.get() {
        return Ok(*is_whole);
    }
    let Ok((ours, theirs)) = loopback_pair() else { return Ok(false) };
    match hears_a_reset(ring, pool, &ours, theirs)? {
        Some(is_whole) => Ok(*IS_WHOLE.get_or_init(|| is_whole)),
        None => Ok(false),
    }
}

fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // A firewall may drop what goes there.
    let ours = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (theirs, peer) = listener.accept()?;
    // Anybody may connect.
    if peer == ours.local_addr()? {
        Ok((ours, theirs))
    } else {
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// Has a multishot receive meet a byte and a reset at once; whether it hears of both, if that went
/// as planned. Nothing is in flight afterwards, unless there is an error.
fn hears_a_reset(
    ring: &Ring,
    pool: &Rc<Pool>,
    ours: &TcpStream,
    mut theirs: TcpStream,
) -> io::Result<Option<bool>> {
    let mut is_over = false;
    let mut reap = || {
        while let Some(entry) = ring.next_completion() {
            let done = Completion::new(&entry);
            if let Some(bid) = done.buffer() {
                drop(pool.lend(bid, done.result().unwrap_or(0) as usize));
            }
            is_over |= !done.more();
        }
        is_over
    };
    let fd = types::Fd(ours.as_raw_fd());
    ring.push(&opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(CANCEL));
    ring.enter(0, Sleep::Long)?; // finds nothing, and waits
    let mut is_reset = theirs.write_all(&[0]).and(sys::set_zero_linger(theirs.as_fd())).is_ok();
    drop(theirs);
    is_reset &= sys::poll_reset(ours.as_fd(), PATIENCE);
    ring.enter(0, Sleep::Long)?; // now both are there
    let has_heard = reap();
    if !has_heard {
        let cancel = opcode::AsyncCancel::new(CANCEL).build().user_data(CANCEL);
        ring.push(&cancel.flags(squeue::Flags::SKIP_SUCCESS));
        let deadline = sys::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while !reap() {
            if sys::monotonic_ns() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match ring.enter(1, Sleep::Until(deadline)) {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Ok(is_reset.then_some(has_heard))
}
