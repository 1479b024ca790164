//! A web server: hyper over TLS, HTTP/1.1 and HTTP/2 by what the client offers, a graceful end.
//!
//!     cargo run --release -p tamam-ecosystem --example https_server -- --port 8443 --save-cert cert.pem
//!     curl --cacert cert.pem https://localhost:8443/hello
//!     curl --cacert cert.pem --http1.1 --data-binary @Cargo.toml https://localhost:8443/echo
//!
//! Without `--tls CERT.pem KEY.pem` it signs a certificate for `localhost` itself, and `--save-cert`
//! says where to put it. `--plain` serves HTTP without TLS. Prints `READY` and its URL once it listens.
//! Ctrl-C or SIGTERM stops accepting, lets requests under way end within 10 s (`--grace-ms`), and ends; the
//! second of them ends it at once. A connection ends after 30 s without a request (`--quiet-ms`), and
//! after five minutes in any case; what a client sends or takes has no other limit but these.

#[path = "shared/mod.rs"]
mod shared;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::server::conn::auto;
use shared::causes;
use tamam::hyper::{Executor, Timer};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::tls::{self, TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

const USAGE: &str =
    "usage: https_server [--port P] [--tls CERT.pem KEY.pem | --save-cert CERT.pem | --plain]
                    [--grace-ms MS]: how long requests under way have when the server ends
                    [--quiet-ms MS]: how long a client has for a handshake, and for a request";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A handshake has less time than a request.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a connection lasts, and what is under way then has some grace.
const AGE_MAX: Duration = Duration::from_secs(300);
/// The longest body that is echoed.
const BODY_MAX: usize = 16 << 20;

struct Options {
    port: u16,
    tls: Option<(String, String)>,
    save_cert: Option<String>,
    plain: bool,
    times: Times,
}

#[derive(Clone, Copy)]
struct Times {
    /// How long requests under way have when their connection is to end.
    grace: Duration,
    /// How long a client has for a handshake, the head of a request, or its body.
    quiet: Duration,
}

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tamam::run(serve(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("https_server: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let times = Times { grace: Duration::from_secs(10), quiet: Duration::from_secs(30) };
    let mut options = Options { port: 8443, tls: None, save_cert: None, plain: false, times };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{name} {text}: no number"));
        match name.as_str() {
            "--port" => options.port = value()?.parse().map_err(|_| "--port: no port")?,
            "--tls" => options.tls = Some((value()?, value()?)),
            "--save-cert" => options.save_cert = Some(value()?),
            "--plain" => options.plain = true,
            "--grace-ms" => options.times.grace = Duration::from_millis(number(value()?)?),
            "--quiet-ms" => options.times.quiet = Duration::from_millis(number(value()?)?),
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

async fn serve(options: &Options) -> io::Result<()> {
    let acceptor = if options.plain { None } else { Some(acceptor(options)?) };
    let listener = TcpListener::bind(("127.0.0.1", options.port))?;
    // From here on: who reads `READY` may ask for the end at once.
    let stop = shared::stop()?;
    let scheme = if options.plain { "http" } else { "https" };
    println!("READY {scheme}://localhost:{}/", listener.local_addr()?.port());
    io::stdout().flush()?;

    let acceptor = Rc::new(acceptor);
    let mut clients: Vec<tamam::JoinHandle<()>> = Vec::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                clients.retain(|client| !client.is_finished());
                let client = client(stream, peer, acceptor.clone(), options.times, stop.clone());
                clients.push(tamam::spawn(client));
            }
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
    drop(listener);
    println!(
        "ending, {} connections",
        clients.iter().filter(|client| !client.is_finished()).count()
    );
    for client in clients {
        // Each ends by itself, with grace. A client that panicked has said so already.
        let _ = client.await;
    }
    Ok(())
}

fn acceptor(options: &Options) -> io::Result<TlsAcceptor> {
    let (certs, key) = match &options.tls {
        Some((certs, key)) => (tls::load_certs(certs)?, tls::load_key(key)?),
        None => {
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let signed = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
            if let Some(path) = &options.save_cert {
                std::fs::write(path, signed.cert.pem())?;
            }
            let key = tls::rustls::pki_types::PrivatePkcs8KeyDer::from(
                signed.signing_key.serialize_der(),
            );
            (vec![signed.cert.der().clone()], key.into())
        }
    };
    let mut config: ServerConfig = tls::server_config(certs, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(config).handshake_timeout(Some(options.times.quiet.min(HANDSHAKE_MAX))))
}

/// One client. The handshake is done here, so that a slow one holds up nobody.
async fn client(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Rc<Option<TlsAcceptor>>,
    times: Times,
    stop: CancellationToken,
) {
    let ended = match &*acceptor {
        None => converse(stream, times, stop).await,
        Some(acceptor) => match stop.run_until_cancelled(acceptor.accept(stream)).await {
            Some(Ok(stream)) => converse(stream, times, stop).await,
            Some(Err(error)) => Err(error.into()),
            None => Ok(()),
        },
    };
    if let Err(error) = ended {
        eprintln!("{peer}: {}", causes(&*error));
    }
}

async fn converse<S>(stream: S, times: Times, stop: CancellationToken) -> Result<(), Failure>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let Times { grace, quiet } = times;
    let mut builder = auto::Builder::new(Executor::new());
    builder.http1().timer(Timer::new()).header_read_timeout(quiet);
    builder.http2().timer(Timer::new()).keep_alive_interval(quiet).keep_alive_timeout(quiet);
    let has_asked = Rc::new(Cell::new(false));
    let asked = has_asked.clone();
    let service = service_fn(move |request| {
        asked.set(true);
        answer(request, quiet)
    });
    let mut connection = pin!(builder.serve_connection(stream, service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        () = sleep(AGE_MAX) => {}
        () = async {
            sleep(quiet).await;
            if has_asked.get() {
                std::future::pending().await
            }
        } => return Err(format!("no request in {quiet:?}").into()),
    }
    connection.as_mut().graceful_shutdown();
    match timeout(grace, connection).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("not at an end {grace:?} after it was told to").into()),
    }
}

async fn answer(
    request: Request<Incoming>,
    quiet: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // HEAD is GET without the body: HTTP/2 allows none, and what it says of its length stays.
    let is_head = parts.method == Method::HEAD;
    let method = if is_head { &Method::GET } else { &parts.method };
    let (status, text) = match (method, parts.uri.path()) {
        (&Method::GET, "/") => (StatusCode::OK, "try /hello, or POST to /echo\n".into()),
        (&Method::GET, "/hello") => {
            (StatusCode::OK, format!("hello, {:?}\n", parts.version).into())
        }
        (&Method::POST, "/echo") => {
            let body = http_body_util::Limited::new(body, BODY_MAX).collect();
            match timeout(quiet, body).await {
                Ok(Ok(body)) => (StatusCode::OK, body.to_bytes()),
                Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n").into()),
                Err(_) => (StatusCode::REQUEST_TIMEOUT, "too slow\n".into()),
            }
        }
        _ => (StatusCode::NOT_FOUND, "not found\n".into()),
    };
    let len = HeaderValue::from(text.len());
    let mut response = Response::new(Full::new(if is_head { Bytes::new() } else { text }));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, len);
    Ok(response)
}
