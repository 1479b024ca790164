//! A WebSocket client that stays connected: JSON messages go to a callback, whatever the network does.
//!
//!     cargo run --release -p tamam-ecosystem --example ws_client -- ws://127.0.0.1:7001/
//!     cargo run --release -p tamam-ecosystem --example ws_client -- wss://localhost:7001/ --ca cert.pem --count 3
//!
//! It opens within 10 s or gives up, asks a line that is quiet for 20 s for a sign of life and drops it
//! after another 20 s, and connects again whenever the connection is refused, lost, half dead or
//! closed, the name is not found, or the server says that it has too much to do: after a random part of
//! a second at first (`--delay-ms`), then ever later, at most a minute. Only a connection that has
//! lasted for ten times the first delay starts that anew.
//!
//! What cannot get better (a URL that is none, a certificate that is not trusted, a server that says no)
//! ends it. `--count N` ends after N messages, with a proper goodbye; so do Ctrl-C and SIGTERM, for which
//! the server has half a second; the second of them ends it at once.

#[path = "shared/mod.rs"]
mod shared;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::http::{StatusCode, header::LOCATION};
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error, Message};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, SinkExt, StreamExt};
use serde_json::Value;
use shared::{Site, causes, printable};
use tamam::net::TcpStream;
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::{self, AlertDescription, ClientConfig};
use tamam::tls::{TlsConnector, TlsError};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: ws_client URL [--ca CERT.pem] [--count N] [--delay-ms MS]
                 [--open-ms MS]: how long a connection may take to open
                 [--quiet-ms MS]: when to ask for a sign of life, and how long to wait for it";

const MESSAGE_MAX: usize = 1 << 20;
const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(60);
const DELAY_GROWTH: f64 = 1.618;
/// How long a server has for its goodbye when we are told to stop.
const GOODBYE: Duration = Duration::from_millis(500);

struct Options {
    url: String,
    site: Site,
    ca: Option<String>,
    count: Option<u64>,
    first_delay: Duration,
    open: Duration,
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
    let mut left = options.count;
    let print = |message: Value| {
        left = left.map(|left| left.saturating_sub(1));
        // Who reads no more wants no more.
        match writeln!(io::stdout(), "{}", printable(&message.to_string())) {
            Ok(()) if left != Some(0) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
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
    let (mut url, mut ca, mut count) = (None, None, None);
    let mut first_delay = Duration::from_secs(1);
    let (mut open, mut quiet) = (Duration::from_secs(10), Duration::from_secs(20));
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--ca" => ca = Some(value()?),
            "--count" => count = Some(number(&value()?)?),
            "--delay-ms" => first_delay = Duration::from_millis(number(&value()?)?),
            "--open-ms" => open = Duration::from_millis(number(&value()?)?),
            "--quiet-ms" => quiet = Duration::from_millis(number(&value()?)?),
            _ if !name.starts_with('-') && url.is_none() => url = Some(name),
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    let url = url.ok_or("which URL?")?;
    let (site, _) = Site::of(&url, "ws", "wss")?;
    Ok(Options { url, site, ca, count, first_delay, open, quiet })
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
        let answer = match error {
            Error::Io(error) => return End::from(error),
            Error::Http(answer) => answer,
            error => return End::Passing(causes(&error)),
        };
        let status = answer.status();
        let place = answer.headers().get(LOCATION);
        let place =
            place.map(|place| format!(", at {}", String::from_utf8_lossy(place.as_bytes())));
        let text = format!("the server says {status}{}", place.unwrap_or_default());
        // Of a server with a bad day, or with too much to do. Others mean us.
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                End::Passing(text)
            }
            status if status.is_server_error() => End::Passing(text),
            _ => End::Fatal(printable(&text)),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        use AlertDescription as Alert;
        let text = causes(&error);
        match TlsError::of(&error).map(TlsError::cause) {
            // A certificate nobody vouches for; no language in common; or it does not want us.
            Some(
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::AlertReceived(
                    Alert::HandshakeFailure
                    | Alert::ProtocolVersion
                    | Alert::UnrecognisedName
                    | Alert::CertificateRequired
                    | Alert::AccessDenied,
                ),
            ) => End::Fatal(text),
            _ if error.kind() == io::ErrorKind::InvalidInput => End::Fatal(text),
            _ => End::Passing(text),
        }
    }
}

/// When to come back.
struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    fn new(first: Duration) -> Backoff {
        let first = first.max(DELAY_MIN);
        Backoff { first, next: first.mul_f64(random()) }
    }

    /// After a connection that was open for so long: a short one does not show that the server is well.
    fn delay(&mut self, lasted: Duration) -> Duration {
        if lasted > self.first * 10 {
            *self = Backoff::new(self.first);
        }
        let delay = self.next;
        self.next = delay.max(self.first / 4).mul_f64(DELAY_GROWTH).min(DELAY_MAX);
        delay
    }
}

/// From 0 to 1: so that a thousand clients do not come back at the same moment.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

/// Connects, again and again, and hands every message to `on_message`, until that breaks.
async fn follow(
    options: &Options,
    mut on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), String> {
    let stop = shared::stop().map_err(|error| error.to_string())?;
    let config = match options.site.is_secure {
        true => Some(shared::client_config(options.ca.as_deref()).map_err(|error| causes(&error))?),
        false => None,
    };
    let config = config.map(Arc::new);
    let mut backoff = Backoff::new(options.first_delay);
    loop {
        let opening = timeout(options.open, open(options, config.clone()));
        let opened = match stop.run_until_cancelled(opening).await {
            None => return Ok(()),
            Some(Ok(opened)) => opened,
            Some(Err(_)) => Err(End::Passing(format!("not open after {:?}", options.open))),
        };
        let begin = Instant::now();
        let (end, lasted) = match opened {
            Ok(socket) => {
                (converse(options, socket, &stop, &mut on_message).await, begin.elapsed())
            }
            Err(end) => (end, Duration::ZERO),
        };
        match end {
            End::Done => return Ok(()),
            End::Fatal(why) => return Err(format!("{}: {why}", options.url)),
            End::Passing(why) => {
                let delay = backoff.delay(lasted);
                eprintln!("{}: {why}; again in {} ms", options.url, delay.as_millis());
                if stop.run_until_cancelled(sleep(delay)).await.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// TCP, or TLS over it.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

type Socket = WebSocketStream<Box<dyn Duplex>>;

/// A connection, from the name to the WebSocket. Whoever calls it sets the limit.
async fn open(options: &Options, tls: Option<Arc<ClientConfig>>) -> Result<Socket, End> {
    let Site { host, port, .. } = &options.site;
    let tcp = TcpStream::connect((host.as_str(), *port)).await?;
    tcp.set_nodelay(true)?;
    let stream: Box<dyn Duplex> = match tls {
        Some(config) => Box::new(TlsConnector::from(config).connect(host, tcp).await?),
        None => Box::new(tcp),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let opening = async_tungstenite::client_async_with_config(&options.url, stream, Some(config));
    Ok(opening.await?.0)
}

/// A connection that is open, up to its close.
async fn converse(
    options: &Options,
    mut socket: Socket,
    stop: &CancellationToken,
    on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> End {
    let listening = listen(&mut socket, options.quiet, on_message);
    if let Some(Err(end)) = stop.run_until_cancelled(listening).await {
        return end;
    }
    // Enough. That the close handshake fails does not matter: we leave.
    let no_longer = async {
        stop.cancelled().await;
        sleep(GOODBYE).await;
    };
    tokio::select! {
        _ = timeout(options.quiet, leave(&mut socket)) => {}
        () = no_longer => {}
    }
    End::Done
}

/// Hands on what comes, until the callback has had enough. Everything in here may be dropped at any time.
async fn listen(
    socket: &mut Socket,
    quiet: Duration,
    mut on_message: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), End> {
    let mut pinged = false;
    loop {
        let message = match timeout(quiet, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(give_up(socket, quiet, error).await),
            Ok(None) => return Err(End::Passing("the connection is closed".into())),
            Err(_) if pinged => return Err(no_sign_of_life()),
            Err(_) => {
                within(quiet, socket.send(Message::Ping(Bytes::new()))).await?;
                pinged = true;
                continue;
            }
        };
        pinged = false;
        // Of a flood, hundreds are there at once: the clock and the signal have their turn.
        tamam::task::consume_budget().await;
        match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(value) => {
                    if on_message(value).is_break() {
                        return Ok(());
                    }
                }
                Err(error) => {
                    let begin: String = text.chars().take(80).collect();
                    eprintln!("not JSON: {error}: {}", printable(&begin));
                }
            },
            Message::Close(frame) => {
                let why = frame.map_or(String::new(), |frame| format!(": {frame}"));
                // Our goodbye, and their end of the connection.
                let ending = async {
                    while socket.next().await.is_some() {
                        tamam::task::consume_budget().await;
                    }
                };
                let _ = timeout(quiet, ending).await;
                return Err(End::Passing(printable(&format!("the server says goodbye{why}"))));
            }
            // A ping of theirs is answered with the next flush.
            _ => within(quiet, socket.flush()).await?,
        }
    }
}

/// A server that reads nothing keeps us from sending: it is not waited for without end.
async fn within(
    quiet: Duration,
    sending: impl Future<Output = Result<(), Error>>,
) -> Result<(), End> {
    Ok(timeout(quiet, sending).await.map_err(|_| no_sign_of_life())??)
}

fn no_sign_of_life() -> End {
    End::Passing("no sign of life".into())
}

/// The close handshake.
async fn leave(socket: &mut Socket) -> Result<(), Error> {
    socket.close(None).await?;
    while let Some(message) = socket.next().await {
        message?;
        tamam::task::consume_budget().await;
    }
    Ok(socket.get_mut().close().await?)
}

/// A message that breaks the rules, by its size say, ends the connection; the server is told why.
async fn give_up(socket: &mut Socket, quiet: Duration, error: Error) -> End {
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
        let (stream, mut buf) = (socket.get_mut(), vec![0; 16 * 1024]);
        while stream.read(&mut buf).await? > 0 {}
        Ok::<_, Error>(())
    };
    let _ = timeout(quiet, telling).await;
    End::from(error)
}
