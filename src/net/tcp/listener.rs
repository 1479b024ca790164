//! A listening socket: it owns one accept and the connections that accept brought.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::socket::TcpSocket;
use super::stream::TcpStream;
use crate::context;
use crate::driver::{
    self, Completion, Driver, Owner, Payload, Role, Submitted, Token, count, error, is_retried,
};
use crate::net::addr::ToSocketAddrs;
use crate::net::waiters::{WaiterId, Waiters};
use crate::ops;
use crate::sys;
use crate::time::{Sleep, sleep_until};

/// With so many connections parked the accept is stopped; below half of it, it starts again.
const PARKED_MAX: usize = 64;
/// The pause after a lack of descriptors or memory: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// So many errors of new connections in a row are treated as a lack of something.
const FAILED_MAX: u32 = 16;

/// A TCP socket that accepts connections.
///
/// The listener owns its accept and parks what arrives, so a dropped or even a forgotten
/// [`accept`](Self::accept) loses no connection. Any number of tasks may accept from one listener.
/// Up to 64 connections are accepted ahead of the calls, and reset if the listener is dropped: to limit
/// how many there are, accept and refuse.
///
/// # Examples
/// ```
/// use tamam::net::{TcpListener, TcpStream};
///
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (_server, peer) = listener.accept().await?;
///     assert_eq!(peer, client.local_addr()?);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    inner: Option<Rc<Listener>>,
}

/// The object that the accept belongs to.
struct Listener {
    /// Taken by `into_std` only.
    fd: Option<OwnedFd>,
    home: Rc<Driver>,
    accept: RefCell<Accept>,
    /// Nobody will accept any more: what still comes is reset.
    closed: Cell<bool>,
}

struct Accept {
    parked: VecDeque<OwnedFd>,
    op: AcceptOp,
    /// Shown to one caller.
    passing: Option<i32>,
    /// The socket does not accept any more; each call tries once (SEMANTICS AC10).
    refused: Option<i32>,
    pause: Duration,
    failed: u32,
    waiters: Waiters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptOp {
    Idle,
    Armed {
        token: Token,
        stopping: bool,
    },
    /// For want of descriptors or memory: until then, or until the runtime has closed a descriptor
    /// more than this many.
    Paused {
        until: Instant,
        closed: u64,
    },
}

impl Listener {
    fn fd(&self) -> BorrowedFd<'_> {
        sys::present(&self.fd)
    }

    /// Makes sure that an accept is in flight. The caller is at home. True if it was over at once:
    /// look again.
    fn arm(self: &Rc<Self>) -> bool {
        let mut accept = self.accept.borrow_mut();
        if let AcceptOp::Armed { token, stopping } = &mut accept.op {
            if *stopping && self.home.keep(*token) {
                *stopping = false;
            }
            return false;
        }
        accept.refused = None;
        let op = ops::accept::multishot(self.fd());
        match self.home.submit(op, self.clone(), Role::Accept) {
            Submitted::InFlight(token) => {
                accept.op = AcceptOp::Armed { token, stopping: false };
                false
            }
            Submitted::Answered(done, _) => {
                drop(accept);
                let mut woken = Vec::new();
                self.answer(done, true, &mut woken);
                self.home.wake_later(woken);
                true
            }
        }
    }

    /// What an accept has brought. `wanted`: somebody waits for it.
    fn answer(&self, done: Completion, wanted: bool, woken: &mut Vec<Waker>) {
        let mut accept = self.accept.borrow_mut();
        if !done.more() {
            accept.op = AcceptOp::Idle;
        }
        match done.result() {
            Ok(fd) => {
                let fd = sys::adopt(fd);
                if self.closed.get() {
                    reset(fd);
                } else {
                    count(&self.home.counters().parked, u64::from(!wanted));
                    accept.park(fd);
                }
            }
            Err(errno) => {
                count(&self.home.counters().accept_errors, u64::from(!is_retried(errno)));
                accept.note_error(errno, wanted, self.home.closed_descriptors());
            }
        }
        if let AcceptOp::Armed { token, stopping: false } = accept.op {
            if accept.parked.len() >= PARKED_MAX {
                accept.op = AcceptOp::Armed { token, stopping: true };
                self.home.cancel(token);
            }
        }
        accept.waiters.wake(woken);
    }

    /// Whether nothing is in flight, and no pause is on.
    fn is_idle(&self) -> bool {
        self.accept.borrow().op == AcceptOp::Idle
    }

    /// Ends the accept now; what it still brought is parked.
    fn settle(&self) {
        let op = self.accept.borrow().op;
        if let AcceptOp::Armed { token, .. } = op {
            self.home.settle(token);
        }
    }
}

impl Accept {
    fn park(&mut self, fd: OwnedFd) {
        self.parked.push_back(fd);
        self.pause = PAUSE.0;
        self.failed = 0;
    }

    /// Takes the oldest connection, if there is one.
    fn take(&mut self) -> Option<OwnedFd> {
        let fd = self.parked.pop_front();
        if self.parked.is_empty() && self.parked.capacity() > PARKED_MAX {
            self.parked = VecDeque::new();
        }
        fd
    }

    fn note_error(&mut self, errno: i32, wanted: bool, closed: u64) {
        match errno {
            errno if is_retried(errno) => {}
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM => {
                // An error that nobody waits for is not kept.
                self.passing = wanted.then_some(errno);
                self.start_pause(closed);
            }
            libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT => {
                self.refused = Some(errno);
            }
            // The new connection's own trouble (accept(2)); the next one may be well.
            _ => {
                self.failed += 1;
                if self.failed >= FAILED_MAX {
                    self.passing = wanted.then_some(errno);
                    self.start_pause(closed);
                }
            }
        }
    }

    fn start_pause(&mut self, closed: u64) {
        self.op = AcceptOp::Paused { until: Instant::now() + self.pause, closed };
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.home.close_descriptor(fd);
        }
    }
}

impl Owner for Listener {
    fn complete(self: Rc<Self>, _: Role, done: Completion, _: Payload, woken: &mut Vec<Waker>) {
        let wanted = !self.accept.borrow().waiters.is_empty();
        self.answer(done, wanted, woken);
    }
}

/// Closes a connection that nobody will serve as the kernel closes its backlog.
fn reset(fd: OwnedFd) {
    // Fails only if the socket is no socket; then there is nothing to reset.
    let _ = sys::set_zero_linger(fd.as_fd());
}

impl TcpListener {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> TcpListener {
        let accept = Accept {
            parked: VecDeque::new(),
            op: AcceptOp::Idle,
            passing: None,
            refused: None,
            pause: PAUSE.0,
            failed: 0,
            waiters: Waiters::default(),
        };
        let closed = Cell::new(false);
        let inner = Listener { fd: Some(fd), home, accept: RefCell::new(accept), closed };
        TcpListener { inner: Some(Rc::new(inner)) }
    }

    fn inner(&self) -> &Rc<Listener> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the listener")
    }

    /// Listens at `addr`, with SO_REUSEADDR and a backlog of 1024 connections. Of several
    /// addresses the first that can be bound is taken. Port 0 lets the kernel choose. At `[::]` IPv4
    /// clients are served too, where the system does not say otherwise (ipv6(7)).
    ///
    /// # Errors
    /// Those of bind(2) and listen(2) for the last address, such as `AddrInUse`, also for some
    /// milliseconds after a process that listened with io_uring was killed (clients still connect
    /// to that one meanwhile, and are reset): who starts again at once tries again. `InvalidInput`
    /// if `addr` is no address, or a host name, which only those who can wait look up
    /// ([`lookup_host`](crate::net::lookup_host)); `Other` outside a runtime.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for addr in addr.resolve()? {
            match TcpSocket::for_addr(addr).and_then(|socket| socket.reuse_addr(true).listen(addr))
            {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is at least one address"))
    }

    /// Takes over a listening socket, with the connections that wait in it. It is made
    /// non-blocking, for those who share it.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2).
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(listener.as_fd())?;
        Ok(TcpListener::new(OwnedFd::from(listener), home))
    }

    /// Gives the socket back, and with it the connections that were accepted and not taken.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    pub fn into_std(
        mut self,
    ) -> io::Result<(std::net::TcpListener, Vec<(std::net::TcpStream, SocketAddr)>)> {
        if self.inner().home.is_forked_copy() {
            return Err(driver::forked());
        }
        let inner = self.inner.take().expect("`into_std` consumes the listener");
        inner.settle();
        let Ok(mut listener) = Rc::try_unwrap(inner) else {
            return Err(io::Error::other("the kernel still holds the socket"));
        };
        let fd = listener.fd.take().expect("the descriptor is there until its object ends");
        listener.home.release(fd.as_fd());
        let parked = std::mem::take(&mut listener.accept.get_mut().parked);
        let parked = parked
            .into_iter()
            .map(|fd| sys::peer_addr(fd.as_fd()).map(|peer| (fd.into(), peer)))
            .collect::<io::Result<_>>()?;
        Ok((fd.into(), parked))
    }

    /// Waits for the next connection; gives it with the peer's address, in order of arrival.
    ///
    /// # Errors
    /// When descriptors or memory run out (EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM) one caller
    /// gets the error, and the listener pauses: 10 ms, then 20, 40, 80, 100 ms, ended at once when
    /// this runtime closes a descriptor. So a loop logs the error and goes on; it never spins, and
    /// the connection waits in the backlog. Errors of single connections (ECONNABORTED and the
    /// like) are not shown. `InvalidInput` if the socket was shut down.
    /// # Cancel safety
    /// Cancel safe: a connection that arrives for a dropped or forgotten `accept` is parked, and
    /// the next call gets it.
    /// # Kernel
    /// 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`. See accept(2).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        AcceptNext { listener: self.inner(), id: None, pause: None }.await
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.as_fd())
    }
}

/// The future of `accept`.
struct AcceptNext<'a> {
    listener: &'a Rc<Listener>,
    id: Option<WaiterId>,
    /// Runs while the listener pauses.
    pause: Option<Sleep>,
}

impl AcceptNext<'_> {
    /// The answer, if there is one.
    fn take(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let listener = self.listener;
        let mut accept = listener.accept.borrow_mut();
        let Some(fd) = accept.take() else {
            let errno = accept.passing.take().or(accept.refused)?;
            return Some(Err(error(errno)));
        };
        let rearm = accept.op == AcceptOp::Idle && accept.parked.len() == PARKED_MAX / 2;
        drop(accept);
        if rearm && context::check_home(&listener.home).is_ok() {
            listener.arm(); // what comes at once is parked
        }
        Some(
            sys::peer_addr(fd.as_fd())
                .map(|peer| (TcpStream::new(fd, listener.home.clone()), peer)),
        )
    }

    /// `waited`: a refusal that is noted already is an answer to this call, not to an earlier one.
    fn has_answer(&self, waited: bool) -> bool {
        let accept = self.listener.accept.borrow();
        !accept.parked.is_empty()
            || accept.passing.is_some()
            // Those who waited when it failed hear of it; a later call tries again first.
            || (accept.refused.is_some() && waited)
    }

    /// Waits out the listener's pause; `Ready` if there is none, or it is over.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let op = self.listener.accept.borrow().op;
        let AcceptOp::Paused { until, closed } = op else { return Poll::Ready(()) };
        if self.listener.home.closed_descriptors() != closed {
            return Poll::Ready(());
        }
        let pause = self.pause.get_or_insert_with(|| sleep_until(until));
        if pause.deadline() != until {
            pause.reset(until);
        }
        if Instant::now() < until && Pin::new(pause).poll(cx).is_pending() {
            self.listener.home.wake_at_close(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Future for AcceptNext<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waited = self.id.is_some();
        loop {
            if self.has_answer(waited) {
                ready!(context::spend(cx));
                if let Some(answer) = self.take() {
                    return Poll::Ready(answer);
                }
            }
            ready!(context::poll_home(&self.listener.home, cx))?;
            if self.listener.is_idle() && self.listener.arm() {
                waited = true;
                continue;
            }
            let waker = cx.waker().clone();
            let mut id = self.id;
            let replaced = self.listener.accept.borrow_mut().waiters.register(&mut id, waker);
            drop(replaced);
            self.id = id;
            if self.has_answer(waited) {
                cx.waker().wake_by_ref(); // it came while foreign code cloned the waker
                return Poll::Pending;
            }
            ready!(self.poll_pause(cx));
            if !self.listener.arm() {
                return Poll::Pending;
            }
            waited = true;
        }
    }
}

impl Drop for AcceptNext<'_> {
    fn drop(&mut self) {
        let waker = self.listener.accept.borrow_mut().waiters.remove(self.id);
        drop(waker);
    }
}

impl Drop for TcpListener {
    /// Stops listening now: the address is free for the next `bind` at once. Connections that
    /// nobody took are reset, as the kernel resets those in its backlog.
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if inner.home.is_forked_copy() {
            return;
        }
        inner.closed.set(true);
        inner.settle();
        let parked = std::mem::take(&mut inner.accept.borrow_mut().parked);
        parked.into_iter().for_each(reset);
        inner.home.descriptor_closed();
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accept = self.inner().accept.borrow();
        f.debug_struct("TcpListener")
            .field("local_addr", &self.local_addr().ok())
            .field("parked", &accept.parked.len())
            .finish_non_exhaustive()
    }
}
