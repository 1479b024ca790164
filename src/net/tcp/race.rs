//! Happy Eyeballs (RFC 8305): it tries several addresses of one host, each a little after the one
//! before, until the first attempt succeeds.
//!
//! One attempt is not here, but in `connect.rs`: read that next. Section 3's wait for the second
//! address family is not needed, because a resolver gives both families together.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::connect::Connect;
use super::establish::new_socket;
use crate::context;
use crate::driver::Driver;
use crate::io::{CallError, errno};
use crate::time::{Sleep, sleep};

/// How long an attempt runs before the next one starts (section 8, "Connection Attempt Delay").
pub(super) const DELAY: Duration = Duration::from_millis(250);
/// The shortest delay that the same section allows.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(10);
/// At most how many attempts are in flight at once, each with its own socket. The next one then
/// waits until one of them has failed.
const IN_FLIGHT_MAX: usize = 16;

/// The order of RFC 8305, section 4: the address families alternate, and the family of the first
/// address begins. When one family has no more, the rest of the other follows. Within a family the
/// order stays. An address that comes again is left out.
pub(super) fn interleave(addrs: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let mut seen = HashSet::with_capacity(addrs.len());
    let once = addrs.into_iter().filter(|addr| seen.insert(*addr));
    let (first, second): (VecDeque<_>, VecDeque<_>) =
        once.partition(|addr| addr.is_ipv6() == first_is_v6);
    let mut families = [first, second];
    let mut order = VecDeque::new();
    while families.iter().any(|family| !family.is_empty()) {
        order.extend(families.iter_mut().filter_map(VecDeque::pop_front));
    }
    order
}

/// The future of the first connection. The other attempts end with it (SEMANTICS CL16).
pub(super) struct Race {
    home: Rc<Driver>,
    /// What the addresses belong to, for the error; empty for a list of addresses.
    name: String,
    /// Not tried yet.
    addrs: VecDeque<SocketAddr>,
    /// Bounded by `IN_FLIGHT_MAX`.
    attempts: Vec<(SocketAddr, Connect)>,
    failed: Vec<(SocketAddr, io::Error)>,
    delay: Duration,
    /// When the next attempt starts, if none has failed before.
    next: Sleep,
}

impl Race {
    /// Nothing is submitted before the first poll.
    pub(super) fn new(
        home: Rc<Driver>,
        name: String,
        addrs: VecDeque<SocketAddr>,
        delay: Duration,
    ) -> Race {
        let (attempts, failed) = (Vec::new(), Vec::new());
        let delay = delay.max(DELAY_MIN);
        Race { home, name, addrs, attempts, failed, delay, next: sleep(Duration::ZERO) }
    }

    /// Polls the attempts in flight, and drops those that have failed. `Ok` is the socket of one
    /// that has succeeded. `Err` says whether one has failed in this call; all others go on.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Result<OwnedFd, bool> {
        let failed_before = self.failed.len();
        let mut number = 0;
        while let Some((addr, connect)) = self.attempts.get_mut(number) {
            match Pin::new(connect).poll(cx) {
                Poll::Pending => number += 1,
                Poll::Ready(Ok(socket)) => return Ok(socket),
                Poll::Ready(Err(error)) => {
                    self.failed.push((*addr, error));
                    drop(self.attempts.remove(number));
                }
            }
        }
        Err(self.failed.len() > failed_before)
    }

    /// Makes the next attempt, and starts the delay of the one after it. The next poll of the
    /// attempt submits it. Without a socket it counts as failed, and the one after it starts at
    /// once.
    fn begin(&mut self, addr: SocketAddr) {
        match new_socket(&self.home, addr) {
            Ok(socket) => {
                let connect = Connect::new(socket, self.home.clone(), addr);
                self.attempts.push((addr, connect));
                self.next = sleep(self.delay);
            }
            Err(error) => {
                self.failed.push((addr, error));
                self.next = sleep(Duration::ZERO);
            }
        }
    }
}

impl Future for Race {
    type Output = io::Result<OwnedFd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Away from home every attempt would fail with the same error.
        ready!(context::poll_home(&this.home, cx))?;
        loop {
            let any_failed = match this.poll_attempts(cx) {
                Ok(socket) => return Poll::Ready(Ok(socket)),
                Err(any_failed) => any_failed,
            };
            if this.addrs.is_empty() {
                if this.attempts.is_empty() {
                    ready!(context::consume_budget(cx)); // perhaps no attempt had a socket
                    let failed = std::mem::take(&mut this.failed);
                    return Poll::Ready(Err(AllFailed { failed }.into_error(&this.name)));
                }
                return Poll::Pending;
            }
            if this.attempts.len() == IN_FLIGHT_MAX {
                return Poll::Pending;
            }
            // The first attempt, and one after a failure, start at once.
            if !any_failed && !this.attempts.is_empty() {
                ready!(Pin::new(&mut this.next).poll(cx));
            }
            if let Some(addr) = this.addrs.pop_front() {
                this.begin(addr);
            }
        }
    }
}

/// Why no address could be connected to: the cause in a `CallError`.
#[derive(Debug)]
struct AllFailed {
    failed: Vec<(SocketAddr, io::Error)>,
}

impl AllFailed {
    /// The most useful error: that of the last address that could be reached. "No route" usually
    /// says only that this machine has no IPv6. If no address could be reached, the last error;
    /// `None` if no address was tried.
    fn most_useful(&self) -> Option<&io::Error> {
        let is_useful = |error: &&io::Error| {
            !matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::AddrNotAvailable
            ) && errno(error) != Some(libc::EAFNOSUPPORT)
        };
        let mut errors = self.failed.iter().rev().map(|(_, error)| error);
        errors.clone().find(is_useful).or_else(|| errors.next())
    }

    /// The error of the whole connect. Its kind and its errno are those of the most useful error.
    fn into_error(self, name: &str) -> io::Error {
        let kind = self.most_useful().map_or(io::ErrorKind::NotFound, io::Error::kind);
        let errno = self.most_useful().and_then(errno);
        CallError::wrap_with_errno("connect", name, io::Error::new(kind, self), errno)
    }
}

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (addr, error)) in self.failed.iter().enumerate() {
            let mark = if number == 0 { "" } else { "; " };
            write!(f, "{mark}{addr}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AllFailed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str) -> Vec<SocketAddr> {
        let parse = |text: &str| match text.parse::<u8>() {
            Ok(number) => format!("127.0.0.{number}:1"),
            Err(_) => format!("[::{text}]:1"),
        };
        text.split_whitespace().map(|text: &str| parse(text).parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        for (given, order) in [
            ("", ""),
            ("1", "1"),
            ("a b c 1 2", "a 1 b 2 c"),
            ("1 2 3 a", "1 a 2 3"),
            ("1 a 1 a b", "1 a b"),
        ] {
            assert_eq!(interleave(addrs(given)), addrs(order), "{given}");
        }
    }

    #[test]
    fn the_most_telling_failure_gives_the_kind() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        let all = |errnos: &[i32]| {
            let failed = addrs("a 1 b").into_iter().zip(errnos.iter().map(|errno| error(*errno)));
            AllFailed { failed: failed.collect() }.into_error("name:1")
        };
        let refused = all(&[libc::ENETUNREACH, libc::ECONNREFUSED, libc::EHOSTUNREACH]);
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(errno(&refused), Some(libc::ECONNREFUSED));
        let text = refused.to_string();
        assert!(text.starts_with("connect name:1: "), "{text}");
        for part in ["[::a]:1: Network", "127.0.0.1:1: Connection refused", "[::b]:1: No route"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            all(&[libc::ENETUNREACH, libc::EHOSTUNREACH]).kind(),
            io::ErrorKind::HostUnreachable
        );
    }
}
