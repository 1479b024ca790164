//! Host names: `lookup_host`, and the system's resolver.
//!
//! How a connect tries the addresses is not here. Read next: `tcp/race.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::addr::{Destination, ToSocketAddrs};
use super::resolver::{Resolver, Resolving, SharedResolver};
use crate::blocking;
use crate::context;
use crate::io::CallError;
use crate::sys;

/// The addresses of a host: `"example.org:443"`, `("example.org", 443)`, and all that
/// [`ToSocketAddrs`] is implemented for.
///
/// An address is returned at once, without a lookup. Names go to the [`Resolver`] of this thread's
/// runtime, or to the system. The order is that of the resolver: the addresses to try first come
/// first.
///
/// # Errors
/// `NotFound` (no such name); `InvalidInput` (not of the form `host:port`); others as the resolver
/// reports them. The text contains the name.
/// # Cancel safety
/// Cancel safe. A lookup that waits for a thread is given up; one that runs ends in the background.
/// # Kernel
/// getaddrinfo(3), on a thread that is made for such calls; at most 4 at once in a process.
/// # Examples
/// ```
/// use tamam::net::lookup_host;
///
/// tamam::run(async {
///     for addr in lookup_host("localhost:80").await? {
///         assert!(addr.ip().is_loopback() && addr.port() == 80);
///     }
///     assert_eq!(lookup_host(("::1", 5)).await?, ["[::1]:5".parse().expect("an address")]);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn lookup_host(host: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    match destination_of(host).await? {
        Destination::Addrs(addrs) => {
            context::ready_at_once().await;
            Ok(addrs)
        }
        Destination::Name(host, port) => {
            let resolver = context::current().and_then(|handle| handle.resolver.clone());
            lookup_name(resolver, host, port).await
        }
    }
}

/// What `addr` means. An error takes a unit of the task's budget, as an answer that is ready at once.
pub(super) async fn destination_of(addr: impl ToSocketAddrs) -> io::Result<Destination> {
    let destination = addr.destination();
    if destination.is_err() {
        context::ready_at_once().await;
    }
    destination
}

/// The addresses of a name, all with `port`; at least one. `resolver`: who is asked; `None` is the
/// system. The error names the host.
pub(super) async fn lookup_name(
    resolver: Option<SharedResolver>,
    host: String,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    // `fe80::1%eth0` is an address, and only the system can number its interface.
    let found = match resolver.filter(|_| !host.contains('%')) {
        // An `IpAddr` would lose the number of the interface, which is in the socket address.
        None => ask_system(&host, port).await,
        Some(SharedResolver(resolver)) => resolver.resolve(&host).await.map(|ips| {
            let with_port = |ip: IpAddr| SocketAddr::new(ip, port);
            ips.into_iter().map(with_port).collect()
        }),
    };
    context::ready_at_once().await; // a resolver may have known it, or there was no thread to ask on
    let cause = match found {
        Ok(addrs) if !addrs.is_empty() => return Ok(addrs),
        Ok(_) => io::Error::new(io::ErrorKind::NotFound, "it has no address"),
        Err(error) => error,
    };
    Err(CallError::wrap("resolve", host, cause))
}

/// Asks getaddrinfo(3), on another thread. The list may be empty.
async fn ask_system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    let lookup = blocking::lookup(move || sys::resolve::lookup(&host, port))?;
    lookup.await.map_err(io::Error::from)?
}

/// The resolver of the system: getaddrinfo(3), on a thread for calls that block. It follows
/// nsswitch.conf(5), /etc/hosts, the search list and the local name services. Nothing is cached.
///
/// It is the default, and a [`Resolver`] of your own can call it.
///
/// # Examples
/// ```
/// use tamam::net::{Resolver, SystemResolver};
///
/// let ips = tamam::run(async { SystemResolver.resolve("localhost").await })?;
/// assert!(ips.iter().all(|ip| ip.is_loopback()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let addrs = ask_system(host, 0).await?;
            Ok(addrs.into_iter().map(|addr| addr.ip()).collect())
        })
    }
}
