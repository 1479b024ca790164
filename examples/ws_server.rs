//! A WebSocket server: sends each client numbered JSON messages, and echoes what it is sent.
//!
//!     cargo run --release -p tamam-ecosystem --example ws_server -- --port 7001
//!     cargo run --release -p tamam-ecosystem --example ws_server -- --port 7001 --every-ms 200 --tls cert.pem key.pem
//!
//! Prints `READY ws://127.0.0.1:7001/` once it listens. Try it with `ws_client`, or with Python:
//! `python3 -m websockets ws://127.0.0.1:7001/`. A line that is quiet for 20 s (`--quiet-ms`) is asked
//! for a sign of life, and given up after another 20 s, as is one that takes no message for so long;
//! messages are at most 1 MiB. Ctrl-C stops accepting, says goodbye to every client, and ends.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error, Message};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, SinkExt, StreamExt};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::tls::{self, TlsAcceptor};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: ws_server [--port P] [--every-ms MS] [--tls CERT.pem KEY.pem]
                 [--quiet-ms MS]: when to ask for a sign of life, and how long to wait for it";

const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_MAX: usize = 1 << 20;

struct Options {
    port: u16,
    every: Duration,
    /// How long a line may be quiet, and how long it then has for a sign of life.
    quiet: Duration,
    tls: Option<(String, String)>,
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
            eprintln!("ws_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        port: 7001,
        every: Duration::from_secs(1),
        quiet: Duration::from_secs(20),
        tls: None,
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--port" => options.port = number(&value()?)?,
            "--every-ms" => options.every = Duration::from_millis(number(&value()?)?),
            "--quiet-ms" => options.quiet = Duration::from_millis(number(&value()?)?),
            "--tls" => options.tls = Some((value()?, value()?)),
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: no number, or too large"))
}

async fn serve(options: Options) -> io::Result<()> {
    let Options { port, every, quiet, tls } = options;
    let acceptor = match &tls {
        Some((certs, key)) => {
            let config = tls::server_config(tls::load_certs(certs)?, tls::load_key(key)?)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
        None => None,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // From here on: who reads `READY` may ask for the end at once.
    let mut stop = std::pin::pin!(tamam::signal::ctrl_c());
    let scheme = if acceptor.is_some() { "wss" } else { "ws" };
    println!("READY {scheme}://{}/", listener.local_addr()?);
    io::stdout().flush()?;

    let (acceptor, goodbye) = (Rc::new(acceptor), CancellationToken::new());
    let mut clients = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let client = client(stream, peer, acceptor.clone(), (every, quiet), goodbye.clone());
                    clients.retain(|client: &tamam::JoinHandle<()>| !client.is_finished());
                    clients.push(tamam::spawn(client));
                }
                // Out of descriptors, say: the listener pauses by itself, clients wait.
                Err(error) => eprintln!("accept: {error}"),
            },
            stopped = &mut stop => {
                stopped?;
                break;
            }
        }
    }
    drop(listener);
    goodbye.cancel();
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
    times: (Duration, Duration),
    goodbye: CancellationToken,
) {
    let ended = match &*acceptor {
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => converse(stream, times, goodbye).await,
            Err(error) => Err(Error::Io(error)),
        },
        None => converse(stream, times, goodbye).await,
    };
    match ended {
        Ok(()) | Err(Error::ConnectionClosed) => println!("{peer}: closed"),
        Err(error) => println!("{peer}: {error}"),
    }
}

async fn converse<S>(
    stream: S,
    (every, quiet): (Duration, Duration),
    goodbye: CancellationToken,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let handshake = async_tungstenite::accept_async_with_config(stream, Some(config));
    let mut socket = timeout(OPEN_TIMEOUT, handshake).await.map_err(io::Error::from)??;
    let mut ticks = tamam::time::interval(every);
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
                    // Our goodbye goes out with the next read.
                    Some(Ok(Message::Close(_))) => {
                        let ending = async { while socket.next().await.is_some() {} };
                        return Ok(timeout(CLOSE_TIMEOUT, ending).await.map_err(io::Error::from)?);
                    }
                    None => return Ok(()),
                    // Pings are answered by the protocol, with the next read or write.
                    Some(Ok(_)) => within(quiet, socket.flush()).await?,
                    Some(Err(error)) => return Err(give_up(socket, error).await),
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
                Some(_) => return Err(no_sign_of_life()),
            },
            () = goodbye.cancelled() => return leave(socket).await,
        }
    }
}

/// A client that reads nothing keeps us from sending: it is not waited for without end.
async fn within(
    quiet: Duration,
    sending: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    timeout(quiet, sending).await.unwrap_or_else(|_| Err(no_sign_of_life()))
}

fn no_sign_of_life() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no sign of life"))
}

/// A message that breaks the rules, by its size say, ends the connection; the client is told why.
async fn give_up<S>(mut socket: WebSocketStream<S>, error: Error) -> Error
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
        // What is still on its way is thrown away: closing before it came would be a reset, and the
        // client would not hear why.
        let (mut stream, mut buf) = (socket.into_inner(), vec![0; 16 * 1024]);
        stream.close().await?;
        while stream.read(&mut buf).await? > 0 {}
        Ok::<_, Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, telling).await;
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
        }
        Ok(())
    };
    timeout(CLOSE_TIMEOUT, closing).await.map_err(io::Error::from)?
}
