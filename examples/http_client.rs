//! Asks web servers: HTTP/1.1 or HTTP/2 as they agree by ALPN, over TLS or without.
//!
//!     cargo run --release -p tamam-ecosystem --example http_client -- https://localhost:8443/hello --ca cert.pem
//!     cargo run --release -p tamam-ecosystem --example http_client -- http://localhost:8000/ http://localhost:8000/b
//!
//! Prints the status and the version of each answer to stderr and its body to stdout; requests to one
//! server share a connection. A request has 10 s for each of its steps.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write as HyperWrite};
use hyper::{Request, Response, Uri};
use tamam::hyper::{Executor, Timer};
use tamam::net::TcpStream;
use tamam::time::timeout;
use tamam::tls::{self, TlsConnector, rustls::ClientConfig};

const USAGE: &str = "usage: http_client URL... [--ca CERT.pem]";
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (mut urls, mut ca, mut args) = (Vec::new(), None, std::env::args().skip(1));
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--ca" => ca = args.next(),
            _ if argument.starts_with('-') => {
                eprintln!("unknown argument: {argument}\n{USAGE}");
                return ExitCode::from(2);
            }
            _ => urls.push(argument),
        }
    }
    if urls.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match tamam::run(ask_all(urls, ca)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http_client: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn ask_all(urls: Vec<String>, ca: Option<String>) -> Result<(), Failure> {
    let mut servers: HashMap<String, Sender> = HashMap::new();
    for url in urls {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let server = format!(
            "{}://{}",
            uri.scheme_str().ok_or_else(|| format!("{url}: http or https?"))?,
            uri.authority().ok_or_else(|| format!("{url}: whose URL?"))?,
        );
        let mut known = servers.remove(&server);
        if let Some(sender) = &mut known {
            if !timeout(PATIENCE, sender.is_ready()).await? {
                known = None;
            }
        }
        let mut sender = match known {
            Some(sender) => sender,
            None => connect(&uri, ca.as_deref()).await?,
        };
        let response = timeout(PATIENCE, sender.ask(&uri)).await??;
        servers.insert(server, sender);
        eprintln!("{url}: {} {:?}", response.status(), response.version());
        let mut body = response.into_body();
        let mut stdout = io::stdout().lock();
        while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
            if let Ok(data) = frame?.into_data() {
                stdout.write_all(&data)?;
            }
        }
        stdout.flush()?;
    }
    Ok(())
}

async fn connect(uri: &Uri, ca: Option<&str>) -> Result<Sender, Failure> {
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(format!("{uri}: http or https?").into()),
    };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = timeout(PATIENCE, TcpStream::connect((host, port))).await??;
    stream.set_nodelay(true)?;
    if !secure {
        return handshake(stream, false).await;
    }
    let stream = TlsConnector::from(Arc::new(config(ca)?)).connect(host, stream).await?;
    let is_http2 = stream.info().alpn() == Some(b"h2");
    handshake(stream, is_http2).await
}

/// Trust in one certificate, or in what the system trusts.
fn config(ca: Option<&str>) -> Result<ClientConfig, Failure> {
    let roots = match ca {
        Some(path) => {
            let mut roots = tls::rustls::RootCertStore::empty();
            for cert in tls::load_certs(path)? {
                roots.add(cert)?;
            }
            roots
        }
        None => tls::native_roots()?,
    };
    let mut config = tls::client_config(roots)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn handshake<S>(stream: S, is_http2: bool) -> Result<Sender, Failure>
where
    S: Read + HyperWrite + Unpin + 'static,
{
    Ok(if is_http2 {
        let mut builder = http2::Builder::new(Executor::new());
        let (sender, connection) = builder.timer(Timer::new()).handshake(stream).await?;
        tamam::spawn(connection);
        Sender::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(stream).await?;
        tamam::spawn(connection);
        Sender::One(sender)
    })
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    /// Whether the connection takes another request: many servers close theirs after an answer.
    async fn is_ready(&mut self) -> bool {
        match self {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn ask(&mut self, uri: &Uri) -> hyper::Result<Response<Incoming>> {
        let authority = uri.authority().expect("it was connected to").as_str();
        match self {
            // HTTP/1.1 names the server in a header, HTTP/2 in the URI.
            Sender::One(sender) => {
                sender.ready().await?;
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let request = Request::get(path).header("host", authority).body(Empty::new());
                sender.send_request(request.expect("the parts are of a URI")).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                let request = Request::get(uri.clone()).body(Empty::new());
                sender.send_request(request.expect("the parts are of a URI")).await
            }
        }
    }
}
