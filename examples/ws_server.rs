//! A WebSocket server: sends each client numbered JSON messages, and echoes what it is sent.
//!
//!     cargo run --release -p tamam-ecosystem --example ws_server -- --port 7001
//!     cargo run --release -p tamam-ecosystem --example ws_server -- --port 7001 --every-ms 200 --tls cert.pem key.pem
//!
//! Prints `READY ws://127.0.0.1:7001/` once it listens. Try it with `ws_client`, or with Python:
//! `python3 -m websockets ws://127.0.0.1:7001/`. A line that is quiet for 20 s (`--quiet-ms`) is asked
//! for a sign of life, and given up after another 20 s, as is one that takes no message for so long;
//! messages are at most 1 MiB. Who speaks HTTP and wants no WebSocket is told so. Ctrl-C or SIGTERM stops
//! accepting, says goodbye to every client, and ends after half a second at most; the second of them at
//! once.

#[path = "shared/mod.rs"]
mod shared;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error, Message};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, SinkExt, StreamExt};
use shared::causes;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::tls::{self, TlsAcceptor};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: ws_server [--port P] [--every-ms MS] [--tls CERT.pem KEY.pem]
                 [--open-ms MS]: how long a client may take to open a connection
                 [--quiet-ms MS]: when to ask for a sign of life, and how long to wait for it";

const MESSAGE_MAX: usize = 1 << 20;
/// How long clients have for their goodbye when the server ends.
const GOODBYE: Duration = Duration::from_millis(500);
/// To who speaks HTTP, and wants something else.
const REFUSAL: &str = "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\
                       content-type: text/plain\r\ncontent-length: 23\r\n\r\nonly WebSockets, sorry\n";

struct Options {
    port: u16,
    tls: Option<(String, String)>,
    times: Times,
}

#[derive(Clone, Copy)]
struct Times {
    /// Between the messages.
    every: Duration,
    /// How long a client may take to open a connection.
    open: Duration,
    /// How long a line may be quiet, and how long it then has for a sign of life.
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
    match tamam::run(serve(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ws_server: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let times = Times {
        every: Duration::from_secs(1),
        open: Duration::from_secs(10),
        quiet: Duration::from_secs(20),
    };
    let mut options = Options { port: 7001, tls: None, times };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--port" => options.port = number(&value()?)?,
            "--every-ms" => options.times.every = Duration::from_millis(number(&value()?)?),
            "--open-ms" => options.times.open = Duration::from_millis(number(&value()?)?),
            "--quiet-ms" => options.times.quiet = Duration::from_millis(number(&value()?)?),
            "--tls" => options.tls = Some((value()?, value()?)),
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: no number, or too large"))
}

async fn serve(Options { port, tls, times }: Options) -> io::Result<()> {
    let acceptor = match &tls {
        Some((certs, key)) => {
            let config = tls::server_config(tls::load_certs(certs)?, tls::load_key(key)?)?;
            Some(TlsAcceptor::from(config))
        }
        None => None,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // From here on: who reads `READY` may ask for the end at once.
    let stop = shared::stop()?;
    let scheme = if acceptor.is_some() { "wss" } else { "ws" };
    println!("READY {scheme}://{}/", listener.local_addr()?);
    io::stdout().flush()?;

    let acceptor = Rc::new(acceptor);
    let mut clients = Vec::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let client = client(stream, peer, acceptor.clone(), times, stop.clone());
                clients.retain(|client: &tamam::JoinHandle<()>| !client.is_finished());
                clients.push(tamam::spawn(client));
            }
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
    drop(listener);
    for client in clients {
        // A client that panicked has said so already.
        let _ = client.await;
    }
    println!("goodbye");
    Ok(())
}

/// One client, from its first byte to its last. What goes wrong concerns nobody else.
async fn client(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Rc<Option<TlsAcceptor>>,
    times: Times,
    stop: CancellationToken,
) {
    let ended = match &*acceptor {
        Some(acceptor) => {
            let acceptor = acceptor.clone().handshake_timeout(Some(times.open));
            match stop.run_until_cancelled(acceptor.accept(stream)).await {
                Some(Ok(stream)) => converse(stream, times, stop).await,
                Some(Err(error)) => Err(Error::Io(error)),
                None => Ok(()),
            }
        }
        None => converse(stream, times, stop).await,
    };
    match ended {
        Ok(()) | Err(Error::ConnectionClosed) => println!("{peer}: closed"),
        Err(Error::Io(error)) => println!("{peer}: {}", causes(&error)),
        Err(error) => println!("{peer}: {}", causes(&error)),
    }
}

async fn converse<S>(mut stream: S, times: Times, stop: CancellationToken) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let handshake = async_tungstenite::accept_async_with_config(&mut stream, Some(config));
    let opened = match stop.run_until_cancelled(timeout(times.open, handshake)).await {
        Some(opened) => opened.unwrap_or_else(|_| Err(timed_out("no WebSocket, for too long"))),
        None => return Ok(()),
    };
    let error = match opened {
        Ok(mut socket) => {
            return match stop.run_until_cancelled(talk(&mut socket, times)).await {
                Some(ended) => ended,
                None => leave(socket).await,
            };
        }
        Err(error) => error,
    };
    if let Error::Protocol(_) = error {
        let refusing = timeout(times.open, refuse(stream));
        let _ = stop.run_until_cancelled(refusing).await;
    }
    Err(error)
}

/// Sends numbers, echoes what comes. Everything in here may be dropped at any time.
async fn talk<S>(socket: &mut WebSocketStream<S>, times: Times) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let quiet = times.quiet;
    let mut ticks = tamam::time::interval(times.every);
    let (mut number, mut heard, mut pinged) = (0u64, Instant::now(), None::<Instant>);
    loop {
        // Any sign of life will do; with none, a ping asks for one.
        let patience = pinged.unwrap_or(heard) + quiet;
        tokio::select! {
            message = socket.next() => {
                (heard, pinged) = (Instant::now(), None);
                match message {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        within(quiet, socket.send(message)).await?
                    }
                    // Our goodbye goes out with the next read; the end of TLS, if there is one, follows.
                    Some(Ok(Message::Close(_))) => {
                        let ending = async {
                            while socket.next().await.is_some() {
                                tamam::task::consume_budget().await;
                            }
                            socket.get_mut().close().await
                        };
                        return Ok(timeout(quiet, ending).await.map_err(io::Error::from)??);
                    }
                    None => return Ok(()),
                    // Pings are answered by the protocol, with the next read or write.
                    Some(Ok(_)) => within(quiet, socket.flush()).await?,
                    Some(Err(error)) => return Err(give_up(socket, quiet, error).await),
                }
            }
            _ = ticks.tick() => {
                let text = serde_json::json!({ "number": number, "text": "hello" }).to_string();
                within(quiet, socket.send(Message::text(text))).await?;
                number += 1;
            }
            () = tamam::time::sleep_until(patience) => match pinged {
                None => {
                    within(quiet, socket.send(Message::Ping(Bytes::new()))).await?;
                    pinged = Some(Instant::now());
                }
                Some(_) => return Err(timed_out("no sign of life")),
            },
        }
    }
}

/// A client that reads nothing keeps us from sending: it is not waited for without end.
async fn within(
    quiet: Duration,
    sending: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    timeout(quiet, sending).await.unwrap_or_else(|_| Err(timed_out("no sign of life")))
}

fn timed_out(text: &str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// An answer to a request that is for no WebSocket. Whoever calls it sets the limit.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.write_all(REFUSAL.as_bytes()).await?;
    let_read(&mut stream).await
}

/// Ends our direction, and throws away what is still on its way: closing before it came would be a
/// reset, and the client would not see our last words.
async fn let_read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.close().await?;
    let mut buf = vec![0; 16 * 1024];
    while stream.read(&mut buf).await? > 0 {}
    Ok(())
}

/// A message that breaks the rules, by its size say, ends the connection; the client is told why.
async fn give_up<S>(socket: &mut WebSocketStream<S>, quiet: Duration, error: Error) -> Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let code = match &error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Protocol(_) => CloseCode::Protocol,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => return error, // there is nobody to tell
    };
    let telling = async {
        socket.close(Some(CloseFrame { code, reason: "".into() })).await?;
        Ok::<_, Error>(let_read(socket.get_mut()).await?)
    };
    let _ = timeout(quiet, telling).await;
    error
}

/// The close handshake: our close, then whatever is under way, then theirs.
async fn leave<S>(mut socket: WebSocketStream<S>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code: CloseCode::Away, reason: "the server stops".into() };
    let closing = async {
        socket.close(Some(frame)).await?;
        while let Some(message) = socket.next().await {
            message?;
            tamam::task::consume_budget().await; // of a flood, hundreds are there at once: the clock has its turn
        }
        Ok(socket.get_mut().close().await?)
    };
    timeout(GOODBYE, closing).await.unwrap_or_else(|_| Err(timed_out("no goodbye")))
}
