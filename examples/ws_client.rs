//! A WebSocket client that stays connected: JSON messages go to a callback, whatever the network does.
//!
//!     cargo run --release -p tamam-ecosystem --example ws_client -- ws://127.0.0.1:7001/
//!     cargo run --release -p tamam-ecosystem --example ws_client -- wss://localhost:7001/ --ca cert.pem --count 3
//!
//! It opens within 10 s or gives up, asks a line that is quiet for 20 s for a sign of life and drops it
//! after another 20 s, and connects again whenever the connection is refused, lost, half dead or
//! closed, or the name is not found: after a random part of a second at first (`--delay-ms`), then ever
//! later, at most a minute. What cannot get better (a URL that is none, a certificate that is not
//! trusted, a server that says no) ends it. `--count N` ends after N messages, with a proper goodbye;
//! so does Ctrl-C.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::http::Uri;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error, Message};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, SinkExt, StreamExt};
use serde_json::Value;
use tamam::net::TcpStream;
use tamam::time::{sleep, timeout};
use tamam::tls::{self, TlsConnector};

const USAGE: &str = "usage: ws_client URL [--ca CERT.pem] [--count N] [--delay-ms MS]
                 [--quiet-ms MS]: when to ask for a sign of life, and how long to wait for it";

/// What Python's `websockets` has, too.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_MAX: usize = 1 << 20;
const DELAY_MAX: Duration = Duration::from_secs(60);
const DELAY_GROWTH: f64 = 1.618;

struct Options {
    url: String,
    ca: Option<String>,
    count: Option<u64>,
    first_delay: Duration,
    ping_interval: Duration,
    ping_timeout: Duration,
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
    let mut left = options.count;
    let print = |message: Value| {
        println!("{message}");
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match tamam::run(follow(&options, print)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("ws_client: {fatal}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        url: String::new(),
        ca: None,
        count: None,
        first_delay: Duration::from_secs(1),
        ping_interval: Duration::from_secs(20),
        ping_timeout: Duration::from_secs(20),
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--ca" => options.ca = Some(value()?),
            "--count" => options.count = Some(number(&value()?)?),
            "--delay-ms" => options.first_delay = Duration::from_millis(number(&value()?)?),
            "--quiet-ms" => {
                let quiet = Duration::from_millis(number(&value()?)?);
                (options.ping_interval, options.ping_timeout) = (quiet, quiet);
            }
            url if !url.starts_with('-') && options.url.is_empty() => options.url = name,
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    if options.url.is_empty() { Err("which URL?".into()) } else { Ok(options) }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: no number, or too large"))
}

/// Why a connection ended.
enum End {
    /// The callback, or the user, has had enough.
    Done,
    /// It may be better next time.
    Passing(String),
    /// It will be the same next time.
    Fatal(String),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        match error {
            Error::Io(error) => End::from(error),
            // 5xx: the server has a bad day. Others: it means us.
            Error::Http(answer) if !answer.status().is_server_error() => {
                End::Fatal(format!("the server says {}", answer.status()))
            }
            Error::Http(answer) => End::Passing(format!("the server says {}", answer.status())),
            Error::Url(error) => End::Fatal(error.to_string()),
            error => End::Passing(error.to_string()),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            // A certificate nobody vouches for, say.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                End::Fatal(error.to_string())
            }
            _ => End::Passing(error.to_string()),
        }
    }
}

/// Connects, again and again, and hands every message to `on_message`, until that breaks.
async fn follow(
    options: &Options,
    mut on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), String> {
    let mut delay = options.first_delay.mul_f64(random());
    let mut stop = std::pin::pin!(tamam::signal::ctrl_c());
    loop {
        let mut heard = false;
        let hear = |message| {
            heard = true;
            on_message(message)
        };
        match connection(options, stop.as_mut(), hear).await {
            End::Done => return Ok(()),
            End::Fatal(text) => return Err(text),
            End::Passing(text) => {
                if heard {
                    delay = options.first_delay.mul_f64(random());
                }
                eprintln!("{text}; again in {} ms", delay.as_millis());
                tokio::select! {
                    () = sleep(delay) => {}
                    stopped = &mut stop => return stopped.map_err(|error| error.to_string()),
                }
                delay = delay.max(options.first_delay / 4).mul_f64(DELAY_GROWTH).min(DELAY_MAX);
            }
        }
    }
}

/// One connection, from the name to the close.
async fn connection(
    options: &Options,
    stop: impl Future<Output = io::Result<()>> + Unpin,
    on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> End {
    let Ok(url) = options.url.parse::<Uri>() else {
        return End::Fatal(format!("{}: not a URL", options.url));
    };
    let Some(host) = url.host() else { return End::Fatal(format!("{url}: whose URL?")) };
    let secure = match url.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return End::Fatal(format!("{url}: neither ws:// nor wss://")),
    };
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connect = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    let stream = match timeout(OPEN_TIMEOUT, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return End::Passing(error.to_string()),
        Err(_) => return End::Passing(format!("{url}: no answer in {OPEN_TIMEOUT:?}")),
    };
    let ended = if secure {
        let config = match trusting(options.ca.as_deref()) {
            Ok(config) => config,
            Err(error) => return End::Fatal(error.to_string()),
        };
        match TlsConnector::from(Arc::new(config)).connect(host, stream).await {
            Ok(stream) => converse(options, stream, stop, on_message).await,
            Err(error) => Err(End::from(error)),
        }
    } else {
        converse(options, stream, stop, on_message).await
    };
    ended.err().unwrap_or(End::Done)
}

/// Trust in one certificate, or in what the system trusts.
fn trusting(ca: Option<&str>) -> io::Result<tls::rustls::ClientConfig> {
    let roots = match ca {
        Some(path) => {
            let mut roots = tls::rustls::RootCertStore::empty();
            for cert in tls::load_certs(path)? {
                roots.add(cert).map_err(io::Error::other)?;
            }
            roots
        }
        None => tls::native_roots()?,
    };
    tls::client_config(roots)
}

async fn converse<S>(
    options: &Options,
    stream: S,
    mut stop: impl Future<Output = io::Result<()>> + Unpin,
    mut on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let opening = async_tungstenite::client_async_with_config(&options.url, stream, Some(config));
    let (mut socket, _) = match timeout(OPEN_TIMEOUT, opening).await {
        Ok(opened) => opened?,
        Err(_) => return Err(End::Passing(format!("no WebSocket in {OPEN_TIMEOUT:?}"))),
    };
    let mut pinged = false;
    loop {
        let patience = if pinged { options.ping_timeout } else { options.ping_interval };
        let message = tokio::select! {
            message = timeout(patience, socket.next()) => message,
            stopped = &mut stop => {
                stopped.map_err(|error| End::Fatal(error.to_string()))?;
                return leave(socket).await;
            }
        };
        match message {
            Err(_) if pinged => return Err(End::Passing("no sign of life".into())),
            Err(_) => {
                // A server that reads nothing may keep us from sending it.
                match timeout(options.ping_timeout, socket.send(Message::Ping(Bytes::new()))).await
                {
                    Ok(sent) => sent?,
                    Err(_) => return Err(End::Passing("no sign of life".into())),
                }
                pinged = true;
                continue;
            }
            Ok(None) => return Err(End::Passing("the connection is closed".into())),
            Ok(Some(Err(error))) => return Err(give_up(socket, error).await),
            Ok(Some(Ok(message))) => match message {
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(value) => {
                        if on_message(value).is_break() {
                            return leave(socket).await;
                        }
                    }
                    Err(error) => {
                        let begin: String = text.chars().take(80).collect();
                        eprintln!("not JSON: {error}: {begin}");
                    }
                },
                Message::Close(frame) => {
                    let why = frame.map_or(String::new(), |frame| format!(": {frame}"));
                    // Our goodbye, and their end of the connection.
                    let _ =
                        timeout(CLOSE_TIMEOUT, async { while socket.next().await.is_some() {} })
                            .await;
                    return Err(End::Passing(format!("the server says goodbye{why}")));
                }
                // A ping of theirs is answered with the next flush.
                _ => socket.flush().await?,
            },
        }
        pinged = false;
    }
}

/// The close handshake. That it failed does not matter: we leave.
async fn leave<S>(mut socket: WebSocketStream<S>) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closing = async {
        socket.close(None).await?;
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<_, Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    Ok(())
}

/// A message that breaks the rules, by its size say, ends the connection; the server is told why.
async fn give_up<S>(mut socket: WebSocketStream<S>, error: Error) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let code = match &error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Protocol(_) => CloseCode::Protocol,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => return End::from(error), // there is nobody to tell
    };
    let telling = async {
        socket.close(Some(CloseFrame { code, reason: "".into() })).await?;
        // What is still on its way is thrown away: an end before it came would be a reset, and the
        // server would not hear why.
        let (mut stream, mut buf) = (socket.into_inner(), vec![0; 16 * 1024]);
        while stream.read(&mut buf).await? > 0 {}
        Ok::<_, Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, telling).await;
    End::from(error)
}

/// From 0 to 1: so that a thousand clients do not come back at the same moment.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
