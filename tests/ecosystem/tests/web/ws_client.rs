//! `ws_client`: servers in Python send, end, freeze and die.

use crate::common::peer::{self, Folder, Peer, on_each_engine};
use crate::{example_on, signed};

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
