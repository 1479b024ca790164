//! An echo server over TLS, in the shape of `echo`: accept, spawn, handshake, receive, send.
//!
//!     cargo run --release -p tamam-ecosystem --example tls_echo -- --port 7443 --save-cert cert.pem
//!     openssl s_client -connect localhost:7443 -CAfile cert.pem -quiet
//!
//! Without `--tls CERT.pem KEY.pem` it signs a certificate for `localhost` itself, and `--save-cert`
//! says where to put it. Prints `READY` and its address once it listens, and serves until Ctrl-C or SIGTERM
//! ends it, as they end any program that does not ask for them. A client that neither sends nor takes
//! anything for a minute is let go of (`--quiet-ms`).

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::tls::{self, TlsAcceptor};

const USAGE: &str =
    "usage: tls_echo [--port P] [--tls CERT.pem KEY.pem | --save-cert CERT.pem] [--quiet-ms MS]";

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (mut port, mut tls, mut save_cert) = (7443, None, None);
    let mut quiet = Duration::from_secs(60);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match name.as_str() {
            "--port" => match value().parse() {
                Ok(number) => port = number,
                Err(_) => return usage("--port: no port"),
            },
            "--tls" => tls = Some((value(), value())),
            "--save-cert" => save_cert = Some(value()),
            "--quiet-ms" => match value().parse() {
                Ok(number) => quiet = Duration::from_millis(number),
                Err(_) => return usage("--quiet-ms: no number"),
            },
            _ => return usage(&format!("unknown argument: {name}")),
        }
    }
    match tamam::run(serve(port, tls, save_cert, quiet)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &str) -> ExitCode {
    eprintln!("{error}\n{USAGE}");
    ExitCode::from(2)
}

async fn serve(
    port: u16,
    files: Option<(String, String)>,
    save_cert: Option<String>,
    quiet: Duration,
) -> io::Result<()> {
    let (certs, key) = match files {
        Some((certs, key)) => (tls::load_certs(certs)?, tls::load_key(key)?),
        None => {
            let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])
                .map_err(io::Error::other)?;
            if let Some(path) = save_cert {
                std::fs::write(path, signed.cert.pem())?;
            }
            let key = tls::rustls::pki_types::PrivatePkcs8KeyDer::from(
                signed.signing_key.serialize_der(),
            );
            (vec![signed.cert.der().clone()], key.into())
        }
    };
    let acceptor = TlsAcceptor::from(tls::server_config(certs, key)?)
        .handshake_timeout(Some(quiet.min(HANDSHAKE_MAX)));
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("READY {}", listener.local_addr()?);
    io::stdout().flush()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let acceptor = acceptor.clone();
                tamam::spawn(async move {
                    if let Err(error) = echo(stream, acceptor, quiet).await {
                        eprintln!("{peer}: {error}");
                    }
                });
            }
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor, quiet: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    while let Some(chunk) = within(quiet, stream.recv()).await?? {
        within(quiet, stream.send_all(chunk)).await??;
    }
    // The end of TLS, so that the peer knows it has all.
    within(quiet, stream.shutdown()).await?
}

async fn within<T>(quiet: Duration, work: impl Future<Output = T>) -> io::Result<T> {
    let too_long =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing moves for {quiet:?}"));
    timeout(quiet, work).await.map_err(too_long)
}
