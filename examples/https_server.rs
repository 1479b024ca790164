//! A web server: hyper over TLS, HTTP/1.1 and HTTP/2 by what the client offers, a graceful end.
//!
//!     cargo run --release -p tamam-ecosystem --example https_server -- --port 8443 --save-cert cert.pem
//!     curl --cacert cert.pem https://localhost:8443/hello
//!     curl --cacert cert.pem --http1.1 --data-binary @Cargo.toml https://localhost:8443/echo
//!
//! Without `--tls CERT.pem KEY.pem` it signs a certificate for `localhost` itself, and `--save-cert`
//! says where to put it. `--plain` serves HTTP without TLS. Prints `READY` and its URL once it listens.
//! Ctrl-C or SIGTERM stops accepting, lets requests under way end within 10 s, and ends.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::server::conn::auto;
use tamam::hyper::{Executor, Timer};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::tls::{self, TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

const USAGE: &str =
    "usage: https_server [--port P] [--tls CERT.pem KEY.pem | --save-cert CERT.pem | --plain]";

/// How long requests under way have when the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// The longest body that is echoed.
const BODY_MAX: usize = 16 << 20;

#[derive(Default)]
struct Options {
    port: u16,
    tls: Option<(String, String)>,
    save_cert: Option<String>,
    plain: bool,
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
            eprintln!("https_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { port: 8443, ..Options::default() };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--port" => options.port = value()?.parse().map_err(|_| "--port: no port")?,
            "--tls" => options.tls = Some((value()?, value()?)),
            "--save-cert" => options.save_cert = Some(value()?),
            "--plain" => options.plain = true,
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

async fn serve(options: &Options) -> io::Result<()> {
    let acceptor = if options.plain { None } else { Some(acceptor(options)?) };
    let listener = TcpListener::bind(("127.0.0.1", options.port))?;
    // From here on: who reads `READY` may ask for the end at once.
    let mut interrupted = pin!(tamam::signal::ctrl_c());
    let mut terminated = pin!(tamam::signal::terminate());
    let scheme = if options.plain { "http" } else { "https" };
    println!("READY {scheme}://localhost:{}/", listener.local_addr()?.port());
    io::stdout().flush()?;

    let (acceptor, goodbye) = (Rc::new(acceptor), CancellationToken::new());
    let mut clients: Vec<tamam::JoinHandle<()>> = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    clients.retain(|client| !client.is_finished());
                    let client = client(stream, peer, acceptor.clone(), goodbye.clone());
                    clients.push(tamam::spawn(client));
                }
                // Out of descriptors, say: the listener pauses by itself, clients wait.
                Err(error) => eprintln!("accept: {error}"),
            },
            stopped = &mut interrupted => break stopped?,
            stopped = &mut terminated => break stopped?,
        }
    }
    drop(listener);
    println!(
        "ending, {} connections",
        clients.iter().filter(|client| !client.is_finished()).count()
    );
    goodbye.cancel();
    let all = async {
        for client in &mut clients {
            // A client that panicked has said so already.
            let _ = client.await;
        }
    };
    if timeout(GRACE, all).await.is_err() {
        eprintln!("some did not end within {GRACE:?}");
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
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// One client. The handshake is done here, so that a slow one holds up nobody.
async fn client(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Rc<Option<TlsAcceptor>>,
    goodbye: CancellationToken,
) {
    let ended = match &*acceptor {
        None => converse(stream, goodbye).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => converse(stream, goodbye).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = ended {
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        eprintln!("{peer}: {error}{cause}");
    }
}

async fn converse<S>(
    stream: S,
    goodbye: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let mut builder = auto::Builder::new(Executor::new());
    builder.http1().timer(Timer::new()).header_read_timeout(Duration::from_secs(30));
    builder.http2().timer(Timer::new()).keep_alive_interval(Duration::from_secs(20));
    let mut connection = pin!(builder.serve_connection(stream, service_fn(answer)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = goodbye.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let (status, text) = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/") => (StatusCode::OK, "try /hello, or POST to /echo\n".into()),
        (&Method::GET, "/hello") => {
            (StatusCode::OK, format!("hello, {:?}\n", parts.version).into())
        }
        (&Method::POST, "/echo") => {
            match http_body_util::Limited::new(body, BODY_MAX).collect().await {
                Ok(body) => (StatusCode::OK, body.to_bytes()),
                Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n").into()),
            }
        }
        _ => (StatusCode::NOT_FOUND, "not found\n".into()),
    };
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    Ok(response)
}
