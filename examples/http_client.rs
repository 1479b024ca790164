//! Asks web servers: HTTP/1.1 or HTTP/2 as they agree by ALPN, over TLS or without.
//!
//!     cargo run --release -p tamam-ecosystem --example http_client -- https://localhost:8443/hello --ca cert.pem
//!     cargo run --release -p tamam-ecosystem --example http_client -- http://localhost:8000/ http://localhost:8000/b
//!
//! Prints the status and the version of each answer to stderr and its body to stdout; requests to one
//! server share a connection. A request has 10 s for each of its steps (`--step-ms`), and ten minutes in
//! all (`--whole-ms`). Redirects are not followed: where they point to is printed. Ctrl-C ends it.

#[path = "shared/mod.rs"]
mod shared;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::LOCATION;
use hyper::rt::{Read, Write as HyperWrite};
use hyper::{Request, Response, Uri};
use shared::{Site, causes, printable};
use tamam::hyper::{Executor, Timer};
use tamam::net::TcpStream;
use tamam::time::timeout;
use tamam::tls::{TlsConnector, rustls::ClientConfig};

const USAGE: &str = "usage: http_client URL... [--ca CERT.pem] [--step-ms MS] [--whole-ms MS]";

type Failure = Box<dyn std::error::Error>;

struct Options {
    targets: Vec<(Site, Uri)>,
    ca: Option<String>,
    /// How long a step may take.
    step: Duration,
    /// How long a request may take, from its connection to the end of its answer.
    whole: Duration,
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
    match tamam::run(ask_all(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (step, whole) = (Duration::from_secs(10), Duration::from_secs(600));
    let mut options = Options { targets: Vec::new(), ca: None, step, whole };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{name} {text}: no number"));
        match name.as_str() {
            "--ca" => options.ca = Some(value()?),
            "--step-ms" => options.step = Duration::from_millis(number(value()?)?),
            "--whole-ms" => options.whole = Duration::from_millis(number(value()?)?),
            _ if name.starts_with('-') => return Err(format!("unknown argument: {name}")),
            url => options.targets.push(Site::of(url, "http", "https")?),
        }
    }
    if options.targets.is_empty() { Err("which URL?".into()) } else { Ok(options) }
}

async fn ask_all(options: &Options) -> Result<(), String> {
    let tls = match options.targets.iter().any(|(site, _)| site.is_secure) {
        true => Some(config(options.ca.as_deref()).map_err(|error| causes(&error))?),
        false => None,
    };
    let mut servers = HashMap::new();
    for (site, uri) in &options.targets {
        let known = servers.remove(site);
        let asking = ask(site, uri, known, tls.clone(), options.step);
        let asked = timeout(options.whole, asking).await;
        let sender = asked
            .unwrap_or_else(|_| Err(format!("not all of it after {:?}", options.whole).into()))
            .map_err(|error| format!("{uri}: {}", causes(&*error)))?;
        servers.insert(site, sender);
    }
    Ok(())
}

/// One request, over a connection that is known or a new one. Gives back the connection.
async fn ask(
    site: &Site,
    uri: &Uri,
    known: Option<Sender>,
    tls: Option<Arc<ClientConfig>>,
    step: Duration,
) -> Result<Sender, Failure> {
    let mut ready = None;
    if let Some(mut sender) = known {
        if within(step, "the last answer has no end", sender.is_ready()).await? {
            ready = Some(sender);
        }
    }
    let mut sender = match ready {
        Some(sender) => sender,
        None => within(step, "no connection", connect(site, tls)).await??,
    };
    let response = within(step, "no answer", sender.ask(uri)).await??;
    let place = response.headers().get(LOCATION);
    let place = place.map(|place| format!(", at {}", String::from_utf8_lossy(place.as_bytes())));
    let place = printable(&place.unwrap_or_default());
    eprintln!("{uri}: {} {:?}{place}", response.status(), response.version());
    let mut body = response.into_body();
    let mut stdout = io::stdout().lock();
    while let Some(frame) = within(step, "the answer goes on no more", body.frame()).await? {
        let Ok(data) = frame?.into_data() else { continue };
        // To a file as it is, to a terminal only what does it no harm.
        match stdout.is_terminal() {
            true => {
                for line in String::from_utf8_lossy(&data).split_inclusive('\n') {
                    let text = line.strip_suffix('\n');
                    stdout.write_all(printable(text.unwrap_or(line)).as_bytes())?;
                    stdout.write_all(if text.is_some() { b"\n" } else { b"" })?;
                }
            }
            false => stdout.write_all(&data)?,
        }
    }
    stdout.flush()?;
    Ok(sender)
}

/// A step that must come to its end.
async fn within<T>(
    step: Duration,
    otherwise: &str,
    work: impl Future<Output = T>,
) -> Result<T, String> {
    timeout(step, work).await.map_err(|_| format!("{otherwise} in {step:?}"))
}

async fn connect(site: &Site, tls: Option<Arc<ClientConfig>>) -> Result<Sender, Failure> {
    let stream = TcpStream::connect((site.host.as_str(), site.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls.filter(|_| site.is_secure) else { return handshake(stream, false).await };
    let stream = TlsConnector::from(tls).connect(&site.host, stream).await?;
    let is_http2 = stream.info().alpn() == Some(b"h2");
    handshake(stream, is_http2).await
}

fn config(ca: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let mut config = shared::client_config(ca)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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
