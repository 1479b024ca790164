//! `ws_server`: clients in Python, good and bad.

use crate::common::example::serve;
use crate::common::peer::{self, Peer, on_each_engine};
use crate::signed;

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
