//! The examples of the web as programs, on both engines, and programs that are nobody's of ours at the
//! other end: curl, wrk, h2load, openssl, Python. What is not installed here is skipped, with a word.

#[path = "../../common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::Command;

use common::PATIENCE;
use common::example::{self, serve};
use common::peer::{self, Folder, Peer, on_each_engine};

/// Runs a program to its end, which must be a good one: what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let (status, text) = Peer::start(command).end();
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text
}

/// An example to be run on this engine.
fn example_on(name: &str, engine: &str) -> Command {
    let mut command = example::command(name);
    command.env("TAMAM_BACKEND", engine);
    command
}

/// `https_server` with a certificate it has signed itself: the server, its URL without the last
/// slash, the certificate's path.
fn https_server(engine: &str, folder: &Folder) -> (Peer, String, String) {
    let cert = folder.file("cert.pem");
    let (server, url) = serve("https_server", &["--save-cert", &cert], engine);
    (server, url.trim_end_matches('/').to_owned(), cert)
}

fn port(url: &str) -> u16 {
    let (_, port) = url.trim_end_matches('/').rsplit_once(':').expect("a port");
    port.parse().expect("a number")
}

/// A certificate for `localhost` and its key: their paths.
fn signed(folder: &Folder) -> (String, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let cert = folder.write("signed.pem", signed.cert.pem());
    (cert, folder.write("signed.key", signed.signing_key.serialize_pem()))
}

// ---- the web server -----------------------------------------------------------------------------

/// Each version of HTTP over TLS, bodies both ways, and several requests on a connection.
#[test]
fn curl_is_served_over_tls() {
    if !peer::has(&["curl"]) {
        return;
    }
    on_each_engine("curl", |engine, folder| {
        let (_server, url, cert) = https_server(engine, folder);
        let body = common::pattern(3 << 20);
        let sent = folder.write("sent", &body);
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let curl = || {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--show-error", "--max-time", "60", option]);
                curl.args(["--cacert", &cert]);
                curl
            };
            let hello = run(curl().arg(format!("{url}/hello")));
            assert_eq!(
                hello,
                format!("hello, HTTP/{version}{}\n", ["", ".0"][usize::from(version == "2")])
            );
            // Three requests and one connection.
            let figures = "%{http_code} %{http_version} %{num_connects}\n";
            let (first, second) = (folder.file("first"), folder.file("second"));
            let text = run(curl()
                .args(["--write-out", figures, "--data-binary", &format!("@{sent}")])
                .args(["-o", &first, &format!("{url}/echo")])
                .args(["-o", &second, &format!("{url}/echo")])
                .args(["--next", "--silent", option, "--cacert", &cert, "--write-out", figures])
                .args(["-o", "/dev/null", &format!("{url}/nowhere")]));
            let lines: Vec<&str> = text.lines().collect();
            let codes = [("200", 1), ("200", 0), ("404", 0)];
            let expected = codes.map(|(code, connects)| format!("{code} {version} {connects}"));
            assert_eq!(lines, expected);
            for echoed in [first, second] {
                common::assert_same(&std::fs::read(echoed).expect("curl wrote it"), &body);
            }
            // Who does not trust the certificate does not get in.
            let (status, text) = Peer::start(Command::new("curl").args([
                "--silent",
                "--show-error",
                option,
                &format!("{url}/hello"),
            ]))
            .end();
            assert_eq!(status.code(), Some(60), "{text}");
        }
    });
}

/// Without TLS, too: HTTP/1.0, HTTP/1.1, and HTTP/2 at once; many connections side by side.
#[test]
fn curl_is_served_without_tls() {
    if !peer::has(&["curl"]) {
        return;
    }
    on_each_engine("plain", |engine, _| {
        let (server, url) = serve("https_server", &["--plain"], engine);
        for (option, version) in
            [("--http1.0", "1.0"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2.0")]
        {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--max-time", "60", option]);
            let hello = run(curl.arg(format!("{url}hello")));
            assert_eq!(hello, format!("hello, HTTP/{version}\n"));
        }
        let before = server.descriptors();
        let parallel = run(Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--http1.1"])
            .args(["--parallel", "--parallel-immediate", "--parallel-max", "50"])
            .arg(format!("{url}hello?[1-200]")));
        assert_eq!(parallel.matches("hello, HTTP/1.1\n").count(), 200, "{parallel}");
        server.is_idle_again(before);
    });
}

#[test]
fn wrk_finds_no_error() {
    if !peer::has(&["wrk"]) {
        return;
    }
    on_each_engine("wrk", |engine, _| {
        let (server, url) = serve("https_server", &["--plain"], engine);
        let before = server.descriptors();
        let text = run(Command::new("wrk")
            .args(["-t", "1", "-c", "50", "-d", "2s", "--timeout", "60s"])
            .arg(format!("http://127.0.0.1:{}/hello", port(&url))));
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
        let requests = requests.and_then(|(number, _)| number.parse::<u64>().ok());
        assert!(requests > Some(0), "{text}");
        println!("wrk, {engine}: {} requests", requests.unwrap_or_default());
        server.is_idle_again(before);
    });
}

#[test]
fn h2load_finds_no_error() {
    if !peer::has(&["h2load"]) {
        return;
    }
    on_each_engine("h2load", |engine, folder| {
        let (server, url, _) = https_server(engine, folder);
        let before = server.descriptors();
        for option in ["--npn-list=h2", "--h1"] {
            let text = run(Command::new("h2load")
                .args([
                    "--requests",
                    "1000",
                    "--clients",
                    "20",
                    "--max-concurrent-streams",
                    "10",
                    option,
                ])
                .arg(format!("https://127.0.0.1:{}/hello", port(&url))));
            let line = text.lines().find(|line| line.starts_with("requests: ")).expect(&text);
            let number = |what: &str| {
                let words: Vec<&str> = line.split([' ', ',']).collect();
                let at = words.iter().position(|word| *word == what).expect(line);
                words[at - 1].parse::<u64>().expect(line)
            };
            assert_eq!(["failed", "errored", "timeout"].map(number), [0, 0, 0], "{text}");
            assert_eq!(number("succeeded"), 1000, "{text}");
            assert!(text.contains("0 4xx, 0 5xx"), "{text}");
        }
        server.is_idle_again(before);
    });
}

/// A request that is under way when the server is to end is answered; who comes later finds nobody.
#[test]
fn the_server_ends_with_grace() {
    on_each_engine("grace", |engine, _| {
        let (server, url) = serve("https_server", &["--plain"], engine);
        let addr = SocketAddr::from(([127, 0, 0, 1], port(&url)));
        let connect = || {
            let stream = StdStream::connect(addr).expect("it listens");
            stream.set_read_timeout(Some(*PATIENCE)).expect("not zero");
            stream
        };
        let (mut idle, mut busy) = (connect(), connect());
        // One that is kept open, and asks for nothing.
        idle.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
        let mut buf = [0; 1024];
        assert!(idle.read(&mut buf).expect("an answer") > 0);
        let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\
                    Expect: 100-continue\r\n\r\n";
        busy.write_all(head.as_bytes()).expect("room");
        let mut go_on = [0; 25];
        busy.read_exact(&mut go_on).expect("the body is asked for");
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        busy.write_all(b"first").expect("room");
        server.signal(libc::SIGTERM);
        server.wait_for("ending");
        let refused = StdStream::connect(addr).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(idle.read(&mut buf).expect("an end, and no reset"), 0);
        busy.write_all(b"-then").expect("room");
        let mut answer = String::new();
        busy.read_to_string(&mut answer).expect("an answer, and an end");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nfirst-then"), "{answer}");
        let (status, text) = server.end();
        assert!(status.success() && !text.contains("panicked"), "{status}: {text}");
    });
}

/// The same over TLS, with curl's upload under way.
#[test]
fn the_server_ends_with_grace_over_tls() {
    if !peer::has(&["curl"]) {
        return;
    }
    on_each_engine("grace-tls", |engine, folder| {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let (server, url, cert) = https_server(engine, folder);
            let mut curl = Peer::start(
                Command::new("curl")
                    .args(["--verbose", "--silent", "--http1.1", "--max-time", "60"])
                    .args(["--no-buffer", "--cacert", &cert, "--expect100-timeout", "60"])
                    .args(["-X", "POST", "-T", "-", &format!("{url}/echo")]),
            );
            curl.write("first");
            curl.wait_for("100 Continue");
            server.signal(signal);
            server.wait_for("ending, 1 connections");
            curl.write("-then\n");
            curl.close_stdin();
            let (status, text) = curl.end();
            assert!(status.success() && text.contains("first-then"), "{status}: {text}");
            let (status, text) = server.end();
            assert!(status.success(), "{status}: {text}");
        }
    });
}

// ---- the client of the web ----------------------------------------------------------------------

/// HTTP as Python serves it, with TLS if it is given a certificate. `/big` is a mebibyte, `/cut` ends
/// in the middle.
const HTTP_SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]
    def do_GET(self):
        body = b"x" * (1 << 20) if self.path == "/big" else b"this is " + self.path.encode() + b"\n"
        self.send_response(200 if self.path != "/none" else 404)
        self.send_header("Content-Length", str(len(body) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or self.path == "/cut"
    def setup(self):
        super().setup()
        print("CONNECTED", flush=True)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("READY", server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
fn http_client_asks_python() {
    if !peer::has_python("ssl") {
        return;
    }
    on_each_engine("http_client", |engine, folder| {
        let (cert, key) = signed(folder);
        for (version, is_secure, connections) in
            [("HTTP/1.1", true, 1), ("HTTP/1.1", false, 1), ("HTTP/1.0", true, 4)]
        {
            let files: &[&str] = if is_secure { &[&cert, &key] } else { &[] };
            let server = Peer::start(&mut peer::python(HTTP_SERVER, &[&[version], files].concat()));
            let port = server.wait_for("READY ");
            let scheme = if is_secure { "https" } else { "http" };
            let url = |path: &str| format!("{scheme}://localhost:{port}{path}");
            let text = run(example_on("http_client", engine)
                .args([url("/a"), url("/none"), url("/big"), url("/b?c=d")])
                .args(["--ca", &cert]));
            let text = text.replace(&"x".repeat(1 << 20), "a mebibyte");
            for (path, status) in [("/a", "200 OK"), ("/none", "404 Not Found"), ("/big", "200 OK")]
            {
                assert!(text.contains(&format!("{}: {status} {version}\n", url(path))), "{text}");
            }
            for path in ["/a", "/none", "/b?c=d"] {
                assert!(text.contains(&format!("this is {path}\n")), "{text}");
            }
            assert!(text.contains("a mebibyte") && !text.contains("xx"));
            assert_eq!(server.text().matches("CONNECTED").count(), connections, "{version}");
            // A body that ends too early, and with TLS a server that is not trusted.
            let (status, text) = Peer::start(
                example_on("http_client", engine).args([url("/cut")]).args(["--ca", &cert]),
            )
            .end();
            assert_eq!(status.code(), Some(1), "{text}");
            assert!(text.contains("http_client: "), "{text}");
            if is_secure {
                let other = Folder::new(&format!("other-{engine}"));
                let (other, _) = signed(&other);
                let (status, text) = Peer::start(
                    example_on("http_client", engine).args([url("/a")]).args(["--ca", &other]),
                )
                .end();
                assert_eq!(status.code(), Some(1), "{text}");
                assert!(text.contains("TLS handshake failed"), "{text}");
            }
        }
        // HTTP/2, and somebody who does not listen.
        let (_server, url, cert) = https_server(engine, folder);
        let text =
            run(example_on("http_client", engine).args([&format!("{url}/hello"), "--ca", &cert]));
        assert!(text.contains("200 OK HTTP/2.0") && text.contains("hello, HTTP/2.0\n"), "{text}");
        let nobody = format!("http://{}/", peer::free_addr());
        let (status, text) = Peer::start(example_on("http_client", engine).arg(nobody)).end();
        assert_eq!(status.code(), Some(1));
        assert!(text.contains("refused"), "{text}");
    });
}

// ---- WebSocket: our client ----------------------------------------------------------------------

/// A WebSocket server. What it does with a client is in its name:
/// `count` sends numbers for ever; `bye` sends one, then says goodbye; `whole` sends a message of a
/// mebibyte, `huge` one of a byte more; `forbid` lets nobody in; `mixed` sends what is no JSON, too.
const WS_SERVER: &str = r#"
import asyncio, http, json, ssl, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
port, kind, files = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
async def handler(ws):
    print("CONNECTED", flush=True)
    try:
        if kind == "bye":
            await ws.send('{"number": 1}')
            await ws.close(4321, "come back")
        elif kind == "whole":
            await ws.send(json.dumps("x" * ((1 << 20) - 2)))
        elif kind == "huge":
            await ws.send(json.dumps("x" * ((1 << 20) - 1)))
        elif kind == "mixed":
            await ws.send("no JSON")
            await ws.send(b"\x00\x01")
            await ws.send('["JSON"]')
        number = 0
        while kind == "count":
            number += 1
            await ws.send(json.dumps({"number": number, "text": "häh"}))
            await asyncio.sleep(0.01)
        await ws.wait_closed()
    except ConnectionClosed:
        pass
    heard = ws.protocol.close_rcvd
    print("HEARD", heard.code if heard else "nothing", flush=True)
def forbid(connection, request):
    return connection.respond(http.HTTPStatus.FORBIDDEN, "no\n") if kind == "forbid" else None
async def main():
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    async with serve(handler, "127.0.0.1", port, ssl=context, process_request=forbid) as server:
        print("READY", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"#;

fn ws_server_of_python(port: u16, kind: &str, files: &[&str]) -> (Peer, u16) {
    let port = port.to_string();
    let server = Peer::start(&mut peer::python(WS_SERVER, &[&[&port, kind], files].concat()));
    let port = server.wait_for("READY ").parse().expect("a port");
    (server, port)
}

/// `ws_client` with short times.
fn ws_client(engine: &str, url: &str, args: &[&str]) -> Peer {
    let mut command = example_on("ws_client", engine);
    Peer::start(command.arg(url).args(["--delay-ms", "100"]).args(args))
}

/// Messages go to the callback, and when it has had enough the server hears a goodbye: with TLS and
/// without.
#[test]
fn ws_client_follows_python() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_client", |engine, folder| {
        let (cert, key) = signed(folder);
        for is_secure in [false, true] {
            let files: &[&str] = if is_secure { &[&cert, &key] } else { &[] };
            let scheme = if is_secure { "wss" } else { "ws" };
            let (server, port) = ws_server_of_python(0, "count", files);
            let url = format!("{scheme}://localhost:{port}/");
            let (status, text) = ws_client(engine, &url, &["--count", "5", "--ca", &cert]).end();
            assert!(status.success(), "{status}: {text}");
            for number in 1..=5 {
                let line = format!("{{\"number\":{number},\"text\":\"häh\"}}\n");
                assert!(text.contains(&line), "{text}");
            }
            assert_eq!(text.lines().count(), 5, "{text}");
            assert_eq!(server.wait_for("HEARD "), "1005"); // a goodbye without a reason
            // Ctrl-C is a goodbye, too.
            let client = ws_client(engine, &url, &["--ca", &cert]);
            client.wait_for_nth("\"number\"", 3);
            client.signal(libc::SIGINT);
            let (status, text) = client.end();
            assert!(status.success(), "{status}: {text}");
            assert_eq!(server.wait_for_nth("HEARD ", 2), "1005");
            // Who is not trusted is not asked again.
            if is_secure {
                let other = Folder::new(&format!("ws-other-{engine}"));
                let (status, text) = ws_client(engine, &url, &["--ca", &signed(&other).0]).end();
                assert_eq!(status.code(), Some(1), "{text}");
                assert!(text.contains("TLS handshake failed"), "{text}");
            }
        }
        let (_server, port) = ws_server_of_python(0, "forbid", &[]);
        let (status, text) = ws_client(engine, &format!("ws://127.0.0.1:{port}/"), &[]).end();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains("the server says 403"), "{text}");
    });
}

/// Nobody listens at first; then the server is killed, started again, frozen, and goes on.
#[test]
fn ws_client_comes_back() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_client_back", |engine, _| {
        let port = peer::free_addr().port();
        let url = format!("ws://127.0.0.1:{port}/");
        let client = ws_client(engine, &url, &["--quiet-ms", "300"]);
        client.wait_for_nth("refused", 2);
        let (server, _) = ws_server_of_python(port, "count", &[]);
        client.wait_for("\"number\":2,");
        server.signal(libc::SIGKILL);
        assert!(!server.end().0.success());
        client.wait_for_nth("again in", 3);
        let before = client.text().matches("\"number\":2,").count();
        let (server, _) = ws_server_of_python(port, "count", &[]);
        client.wait_for_nth("\"number\":2,", before + 1);
        server.signal(libc::SIGSTOP);
        client.wait_for("no sign of life; again in");
        server.signal(libc::SIGCONT);
        client.wait_for_nth("\"number\":2,", before + 2);
        client.signal(libc::SIGINT);
        let (status, text) = client.end();
        assert!(status.success() && !text.contains("panicked"), "{status}: {text}");
        // The delays grow.
        let delays: Vec<u64> = text
            .lines()
            .filter_map(|line| line.strip_suffix(" ms")?.rsplit_once("again in "))
            .map(|(_, number)| number.parse().expect("a number"))
            .collect();
        assert!(delays[0] <= 100 && (40..=162).contains(&delays[1]), "{delays:?}");
    });
}

/// A name that nobody can have; goodbyes of the server's; and what is no JSON.
#[test]
fn ws_client_outlives_what_passes() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_client_passes", |engine, _| {
        // A label is at most 63 bytes long, so nobody is asked.
        let nobody = format!("ws://{}.test:1/", "a".repeat(64));
        let client = ws_client(engine, &nobody, &[]);
        client.wait_for_nth("again in", 2);
        client.signal(libc::SIGINT);
        let (status, text) = client.end();
        assert!(status.success(), "{status}: {text}");

        let (server, port) = ws_server_of_python(0, "bye", &[]);
        let url = format!("ws://127.0.0.1:{port}/");
        let (status, text) = ws_client(engine, &url, &["--count", "3"]).end();
        assert!(status.success(), "{status}: {text}");
        assert_eq!(text.matches("{\"number\":1}\n").count(), 3, "{text}");
        assert_eq!(text.matches("the server says goodbye: come back (4321)").count(), 2, "{text}");
        // The goodbye was answered, each time.
        for nth in 1..=2 {
            assert_eq!(server.wait_for_nth("HEARD ", nth), "4321");
        }

        let (_server, port) = ws_server_of_python(0, "mixed", &[]);
        let url = format!("ws://127.0.0.1:{port}/");
        let (status, text) = ws_client(engine, &url, &["--count", "1"]).end();
        assert!(status.success(), "{status}: {text}");
        assert!(text.contains("not JSON: ") && text.contains("[\"JSON\"]\n"), "{text}");
    });
}

/// A mebibyte is a message, and a byte more is not: the server hears why it loses the client.
#[test]
fn ws_client_takes_no_more_than_a_mebibyte() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_client_huge", |engine, _| {
        let (_server, port) = ws_server_of_python(0, "whole", &[]);
        let url = format!("ws://127.0.0.1:{port}/");
        let (status, text) = ws_client(engine, &url, &["--count", "1"]).end();
        assert!(status.success(), "{status}");
        assert!(text.len() == (1 << 20) + 1, "{}", text.len());
        let (server, port) = ws_server_of_python(0, "huge", &[]);
        let client = ws_client(engine, &format!("ws://127.0.0.1:{port}/"), &[]);
        assert_eq!(server.wait_for("HEARD "), "1009");
        client.wait_for("again in");
        client.signal(libc::SIGINT);
        assert!(client.end().0.success());
    });
}

// ---- WebSocket: our server ----------------------------------------------------------------------

/// A WebSocket client. `talk` has everything echoed, `huge` sends too much, `wait` says when it has
/// the first message and then does nothing but listen, `flood` sends and never listens.
const WS_CLIENT: &str = r#"
import asyncio, json, ssl, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
url, kind, files = sys.argv[1], sys.argv[2], sys.argv[3:]
async def echoed(ws, message):
    await ws.send(message)
    while True:
        answer = await ws.recv()
        if answer == message:
            return
        assert "number" in json.loads(answer), answer
async def main():
    context = ssl.create_default_context(cafile=files[0]) if files else None
    # The test has a patience of its own. With a full queue it reads no more, not even the answer to a
    # close; and that is all that keeps a flood from reading.
    queue = 16 if kind == "flood" else None
    ws = await connect(url, ssl=context, compression=None, ping_interval=None, max_queue=queue,
                       open_timeout=None, close_timeout=None)
    try:
        if kind == "talk":
            for number in range(3):
                assert json.loads(await ws.recv())["number"] == number
            await echoed(ws, "text: häh")
            await echoed(ws, bytes(range(256)) * 400)
            await echoed(ws, "x" * (1 << 20))
            await echoed(ws, "")
            await ws.send(["in ", "three ", "pieces"])
            while await ws.recv() != "in three pieces":
                pass
            await (await ws.ping("are you there"))
            print("ECHOED", flush=True)
            await ws.close(4000, "enough")
        elif kind == "huge":
            await ws.send("x" * ((1 << 20) + 1))
            while True:
                await ws.recv()
        elif kind == "wait":
            print("GOT", await ws.recv(), flush=True)
            while True:
                await ws.recv()
        elif kind == "flood":
            while True:
                await ws.send("x" * (1 << 20))
    except ConnectionClosed:
        pass
    heard = ws.protocol.close_rcvd
    print("HEARD", f"{heard.code} {heard.reason}" if heard else "nothing", flush=True)
asyncio.run(main())
"#;

fn ws_client_of_python(url: &str, kind: &str, files: &[&str]) -> Peer {
    Peer::start(&mut peer::python(WS_CLIENT, &[&[url, kind], files].concat()))
}

/// Text, bytes, nothing, pieces, pings, a mebibyte, and a goodbye that is answered; with TLS too.
#[test]
fn ws_server_serves_python() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_server", |engine, folder| {
        let (cert, key) = signed(folder);
        for is_secure in [false, true] {
            let mut args = vec!["--every-ms", "20"];
            if is_secure {
                args.extend(["--tls", &cert, &key]);
            }
            let (server, url) = serve("ws_server", &args, engine);
            let before = server.descriptors();
            let files: &[&str] = if is_secure { &[&cert] } else { &[] };
            let clients: Vec<_> =
                (0..3).map(|_| ws_client_of_python(&url, "talk", files)).collect();
            for client in clients {
                let (status, text) = client.end();
                assert!(status.success() && text.contains("ECHOED"), "{status}: {text}");
                assert!(text.contains("HEARD 4000 enough"), "{text}");
            }
            // Too much for one message: the client hears why.
            let (status, text) = ws_client_of_python(&url, "huge", files).end();
            assert!(status.success() && text.contains("HEARD 1009"), "{status}: {text}");
            server.is_idle_again(before);
            // A goodbye to those who are there.
            let client = ws_client_of_python(&url, "wait", files);
            client.wait_for("GOT ");
            server.signal(libc::SIGINT);
            let (status, text) = client.end();
            assert!(status.success() && text.contains("HEARD 1001 the server stops"), "{text}");
            let (status, text) = server.end();
            assert!(status.success() && text.contains("goodbye"), "{status}: {text}");
            assert!(!text.contains("panicked"), "{text}");
        }
    });
}

/// Clients that are killed, freeze, or never listen cost nothing but their own connection.
#[test]
fn ws_server_outlives_bad_clients() {
    if !peer::has_python("websockets.asyncio.server") {
        return;
    }
    on_each_engine("ws_server_bad", |engine, _| {
        let args = ["--every-ms", "20", "--quiet-ms", "2000"];
        let (server, url) = serve("ws_server", &args, engine);
        let [killed, frozen, good] = [(); 3].map(|()| ws_client_of_python(&url, "wait", &[]));
        let flooding = ws_client_of_python(&url, "flood", &[]);
        for client in [&killed, &frozen, &good] {
            client.wait_for("GOT ");
        }
        killed.signal(libc::SIGKILL);
        frozen.signal(libc::SIGSTOP);
        server.wait_for_nth("no sign of life", 2);
        let (status, text) = flooding.end();
        assert!(text.contains("HEARD"), "{status}: {text}");
        assert!(!killed.end().0.success());
        // The good one never noticed.
        assert!(!good.has_printed("HEARD"), "{}", good.text());
        server.signal(libc::SIGINT);
        let (status, text) = good.end();
        assert!(status.success() && text.contains("HEARD 1001"), "{status}: {text}");
        let (status, text) = server.end();
        assert!(status.success() && !text.contains("panicked"), "{status}: {text}");
    });
}
