//! `Resolver`, the trait of what turns host names into addresses.
//!
//! Only the trait is here, so that a runtime can keep a resolver and not know sockets. Read next:
//! `resolve.rs`, which has the system's resolver.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// The future of [`Resolver::resolve`].
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + 'a>>;

/// Turns host names into addresses, instead of the system: a DNS client of your own, a cache, a
/// table for tests. Set it with [`Builder::resolver`](crate::Builder::resolver).
///
/// [`lookup_host`](crate::net::lookup_host) and
/// [`TcpStream::connect`](crate::net::TcpStream::connect) ask it for names only; text that is an IP
/// address does not get here. Its future runs in the task that asks, and is dropped with it. It may
/// use the runtime, and need not be `Send`.
///
/// # Examples
/// ```
/// use std::net::{IpAddr, Ipv4Addr};
/// use tamam::net::{Resolver, Resolving, SystemResolver, TcpListener, TcpStream};
///
/// /// Knows one name itself, and asks the system for the others.
/// struct Table;
///
/// impl Resolver for Table {
///     fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
///         Box::pin(async move {
///             match host {
///                 "here.test" => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
///                 _ => SystemResolver.resolve(host).await,
///             }
///         })
///     }
/// }
///
/// let runtime = tamam::Runtime::builder().resolver(Table).build()?;
/// runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let port = listener.local_addr()?.port();
///     let stream = TcpStream::connect(("here.test", port)).await?;
///     assert_eq!(stream.peer_addr()?, listener.local_addr()?);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Resolver {
    /// The addresses of `host`, those to try first at the head.
    ///
    /// # Errors
    /// `NotFound` for a name that does not exist; any other kind for other causes. Callers add the
    /// name to the text of the error. An empty list counts as `NotFound`.
    /// # Cancel safety
    /// The future is dropped when the call that asked is dropped.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// A resolver in the form that builders and runtimes keep.
#[derive(Clone)]
pub(crate) struct SharedResolver(pub(crate) Arc<dyn Resolver + Send + Sync>);

impl fmt::Debug for SharedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
