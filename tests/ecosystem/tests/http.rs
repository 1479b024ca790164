//! hyper and what is built on it run unmodified: http1 and http2, server and client, hyper-util's
//! automatic server, an axum router, h2 by itself, upgrades to WebSocket, timeouts.

#[path = "../../common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tamam::JoinHandle;
use tamam::hyper::{Executor, Timer, Upgradeable};
use tamam::net::{TcpListener, TcpStream};

type Body = Full<Bytes>;

/// Answers with the method, the path and the length of the body; `/echo` with the body.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let answer = match parts.uri.path() {
        "/echo" => body,
        path => format!("{} {path} {}", parts.method, body.len()).into(),
    };
    Ok(Response::new(Full::new(answer)))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}"))
        .header("host", "localhost")
        .body(Body::default())
        .expect("a request")
}

/// A connection over HTTP/1.1, and the task that drives it.
async fn http1(addr: SocketAddr) -> (http1::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(addr).await.expect("it listens");
    let (sender, connection) = http1::handshake(stream).await.expect("a connection");
    (sender, tamam::spawn(connection))
}

/// The same over HTTP/2.
async fn http2(addr: SocketAddr) -> (http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(addr).await.expect("it listens");
    let mut builder = http2::Builder::new(Executor::new());
    let handshake = builder.timer(Timer::new()).handshake(stream);
    let (sender, connection) = handshake.await.expect("a connection");
    (sender, tamam::spawn(connection))
}

async fn text(response: Response<Incoming>) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[test]
fn hyper_http1_serves_and_asks() {
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            hyper::server::conn::http1::Builder::new()
                .timer(Timer::new())
                .serve_connection(stream, service_fn(answer))
                .await
        });
        let (mut sender, driving) = http1(addr).await;
        for number in 0..100 {
            let path = format!("/{number}");
            let response = sender.send_request(get(&path)).await.expect("an answer");
            assert_eq!(text(response).await, format!("GET {path} 0"));
        }
        // A body of many segments, both ways.
        let large = common::pattern(300_000);
        let request = Request::post("/echo").body(Full::from(large.clone())).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let back = response.into_body().collect().await.expect("a body").to_bytes();
        common::assert_same(&back, &large);
        drop(sender);
        driving.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic").expect("a clean end");
    });
}

#[test]
fn hyper_http2_serves_and_asks_at_once() {
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            hyper::server::conn::http2::Builder::new(Executor::new())
                .timer(Timer::new())
                .keep_alive_interval(Duration::from_secs(5))
                .serve_connection(stream, service_fn(answer))
                .await
        });
        let (sender, driving) = http2(addr).await;
        let asking: Vec<_> = (0..50)
            .map(|number| {
                let mut sender = sender.clone();
                tamam::spawn(async move {
                    let path = format!("/{number}");
                    let response = sender.send_request(get(&path)).await.expect("an answer");
                    assert_eq!(text(response).await, format!("GET {path} 0"));
                })
            })
            .collect();
        for one in asking {
            one.await.expect("answered");
        }
        let large = common::pattern(300_000);
        let request =
            Request::post("http://localhost/echo").body(Full::from(large.clone())).expect("one");
        let response = sender.clone().send_request(request).await.expect("an answer");
        let back = response.into_body().collect().await.expect("a body").to_bytes();
        common::assert_same(&back, &large);
        drop(sender);
        driving.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic").expect("a clean end");
    });
}

/// A server whose body comes piece by piece, by a timer: each piece is with the client before the
/// next is made.
#[test]
fn a_body_streams() {
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let slow = async |_: Request<Incoming>| {
                let pieces = futures_util::stream::unfold(0, |number| async move {
                    tamam::time::sleep(Duration::from_millis(1)).await;
                    let piece = Frame::data(Bytes::from(format!("{number} ")));
                    (number < 20).then_some((Ok::<_, Infallible>(piece), number + 1))
                });
                Ok::<_, Infallible>(Response::new(StreamBody::new(pieces)))
            };
            hyper::server::conn::http1::Builder::new()
                .serve_connection(stream, service_fn(slow))
                .await
                .expect("a clean end");
        });
        let (mut sender, driving) = http1(addr).await;
        let mut body = sender.send_request(get("/")).await.expect("an answer").into_body();
        let mut got = String::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.expect("a piece").into_data().expect("data");
            got.push_str(std::str::from_utf8(&piece).expect("text"));
        }
        assert_eq!(got, (0..20).map(|number| format!("{number} ")).collect::<String>());
        drop((body, sender));
        driving.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic");
    });
}

/// hyper's own timeouts run on our timers: a client that sends half a request is let go.
#[test]
fn a_slow_client_is_let_go() {
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            hyper::server::conn::http1::Builder::new()
                .timer(Timer::new())
                .header_read_timeout(Duration::from_millis(30))
                .serve_connection(stream, service_fn(answer))
                .await
        });
        let mut peer = std::net::TcpStream::connect(addr).expect("it listens");
        peer.write_all(b"GET / HTTP/1.1\r\nhost:").expect("open");
        let begin = Instant::now();
        let error = server.await.expect("no panic").expect_err("half a request");
        assert!(error.is_timeout() && begin.elapsed() >= Duration::from_millis(20), "{error:?}");
        let mut rest = Vec::new();
        common::join(std::thread::spawn(move || peer.read_to_end(&mut rest)))
            .await
            .expect("closed");
    });
}

/// hyper-util's automatic server tells http1 from http2 by the first bytes; an axum router is a
/// service like any other.
#[test]
fn an_axum_router_over_the_automatic_server() {
    common::everywhere(|| async {
        use axum::{Router, extract::Path, routing::get as on_get};
        let router = Router::new().route(
            "/hello/{name}",
            on_get(async |Path(name): Path<String>| format!("hello {name}")),
        );
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.expect("a client");
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                hyper_util::server::conn::auto::Builder::new(Executor::new())
                    .serve_connection(stream, service)
                    .await
                    .expect("a clean end");
            }
        });
        let (mut one, driving) = http1(addr).await;
        assert_eq!(
            text(one.send_request(get("/hello/one")).await.expect("one")).await,
            "hello one"
        );
        drop(one);
        driving.await.expect("no panic").expect("a clean end");
        let (mut two, driving) = http2(addr).await;
        assert_eq!(
            text(two.send_request(get("/hello/two")).await.expect("two")).await,
            "hello two"
        );
        drop(two);
        driving.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic");
    });
}

/// The h2 crate by itself, over the traits of tokio.
#[test]
fn h2_speaks_over_a_stream() {
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut connection = h2::server::handshake(stream).await.expect("a preface");
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request.expect("a request");
                let response = Response::builder().status(200).body(()).expect("a response");
                let mut body = respond.send_response(response, false).expect("open");
                let path = request.uri().path().to_owned();
                body.send_data(Bytes::from(path), true).expect("open");
            }
        });
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (client, connection) = h2::client::handshake(stream).await.expect("a connection");
        let driving = tamam::spawn(connection);
        let mut client = client.ready().await.expect("open");
        let request = Request::get("http://localhost/path").body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("open");
        let mut body = response.await.expect("an answer").into_body();
        let data = body.data().await.expect("data").expect("no error");
        assert_eq!(&data[..], b"/path");
        drop((client, body));
        driving.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic");
    });
}

/// fastwebsockets over hyper's upgrade, which asks for `Send`.
#[test]
fn fastwebsockets_upgrades_a_hyper_connection() {
    use fastwebsockets::{FragmentCollector, Frame as Message, OpCode, Payload};
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let echoing = RefCell::new(None);
            let upgrade = async |mut request: Request<Incoming>| {
                let (response, socket) =
                    fastwebsockets::upgrade::upgrade(&mut request).expect("an upgrade");
                let echo = tamam::spawn(async move {
                    let mut socket = FragmentCollector::new(socket.await.expect("upgraded"));
                    loop {
                        let message = socket.read_frame().await.expect("a message");
                        match message.opcode {
                            OpCode::Close => break,
                            OpCode::Text | OpCode::Binary => {
                                socket.write_frame(message).await.expect("open")
                            }
                            _ => {}
                        }
                    }
                });
                echoing.replace(Some(echo));
                Ok::<_, Infallible>(response)
            };
            hyper::server::conn::http1::Builder::new()
                .serve_connection(Upgradeable::new(stream), service_fn(upgrade))
                .with_upgrades()
                .await
                .expect("a clean end");
            let echo = echoing.take().expect("it was upgraded");
            echo.await.expect("no panic");
        });
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let request = Request::get("/")
            .header("host", "localhost")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-key", fastwebsockets::handshake::generate_key())
            .header("sec-websocket-version", "13")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let stream = hyper_util::rt::TokioIo::new(Upgradeable::new(stream));
        let executor = Executor::new();
        let client = fastwebsockets::handshake::client(&executor, request, stream);
        let (mut socket, _) = client.await.expect("upgraded");
        for len in [0, 1, 125, 126, 70_000] {
            let text = vec![b'x'; len];
            socket.write_frame(Message::text(Payload::Borrowed(&text))).await.expect("open");
            let echo = socket.read_frame().await.expect("an echo");
            assert_eq!((echo.opcode, echo.payload.len()), (OpCode::Text, len));
        }
        socket.write_frame(Message::close(1000, b"")).await.expect("open");
        server.await.expect("no panic");
    });
}

/// curl asks over HTTP/1.1 and HTTP/2, with a body each way.
#[test]
fn curl_asks() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: needs curl");
        return;
    }
    common::everywhere(|| async {
        let (listener, addr) = listener();
        let server = tamam::spawn(async move {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.expect("a client");
                hyper_util::server::conn::auto::Builder::new(Executor::new())
                    .serve_connection(stream, service_fn(answer))
                    .await
                    .expect("a clean end");
            }
        });
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let curl = move || {
                let body = "x".repeat(100_000);
                let mut curl = Command::new("curl")
                    .args(["--silent", "--show-error", "--max-time", "60", version])
                    .args(["--data-binary", "@-", &format!("http://{addr}/echo")])
                    .stdin(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::piped())
                    .spawn()
                    .expect("curl runs");
                let mut input = curl.stdin.take().expect("piped");
                input.write_all(body.as_bytes()).expect("curl reads");
                drop(input);
                let output = curl.wait_with_output().expect("curl ends");
                (output.status.success(), output.stdout == body.as_bytes())
            };
            assert_eq!(common::join(std::thread::spawn(curl)).await, (true, true), "{version}");
        }
        server.await.expect("no panic");
    });
}

/// A stream that may be upgraded is bound to its thread: elsewhere it says so, and is not dropped.
#[test]
fn an_upgradeable_stream_stays_at_home() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let wrapped = Upgradeable::new(stream);
        let elsewhere = std::thread::spawn(move || {
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                hyper::rt::Write::is_write_vectored(&wrapped)
            }));
            (refused.is_err(), wrapped)
        });
        let (refused, wrapped) = common::join(elsewhere).await;
        assert!(refused);
        let stream = wrapped.into_inner();
        stream.send_all("home").await.expect("open");
        let mut got = [0; 4];
        peer.read_exact(&mut got).expect("it comes");
        assert_eq!(&got, b"home");
    });
}
