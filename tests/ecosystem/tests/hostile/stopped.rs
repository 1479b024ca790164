//! A peer whose process is stopped: the kernel still accepts for it, and takes what its buffers hold.

use std::thread;
use std::time::Duration;

use crate::common::example::{is_built, serve};
use crate::common::peer::{Peer, on_each_engine};
use crate::{does_not_spin, ends_soon, example_on};

#[test]
fn ws_client_and_a_stopped_server() {
    on_each_engine("hostile-ws-client-stopped", |engine, _| {
        let (server, url) = serve("ws_server", &["--every-ms", "20"], engine);
        let mut command = example_on("ws_client", engine);
        let limits = ["--open-ms", "300", "--quiet-ms", "300", "--delay-ms", "50"];
        let client = Peer::start(command.arg(&url).args(limits));
        client.wait_for("\"number\":2,");
        server.signal(libc::SIGSTOP);
        client.wait_for(&format!("{url}: no sign of life; again in"));
        client.wait_for(&format!("{url}: not open after 300ms; again in"));
        does_not_spin("is stopped", &client);
        assert!(ends_soon(client).0.success());
        server.signal(libc::SIGCONT);

        // With its own limits: told to end while nothing comes.
        let client = Peer::start(example_on("ws_client", engine).arg(&url));
        client.wait_for("\"number\":2,");
        server.signal(libc::SIGSTOP);
        thread::sleep(Duration::from_millis(100));
        assert!(ends_soon(client).0.success());
    });
}

#[test]
fn ws_server_and_a_stopped_client() {
    on_each_engine("hostile-ws-server-stopped", |engine, _| {
        for is_patient in [false, true] {
            let limits: &[&str] = if is_patient { &[] } else { &["--quiet-ms", "300"] };
            let (server, url) =
                serve("ws_server", &[&["--every-ms", "20"], limits].concat(), engine);
            let client = Peer::start(example_on("ws_client", engine).arg(&url));
            client.wait_for("\"number\":2,");
            client.signal(libc::SIGSTOP);
            if is_patient {
                thread::sleep(Duration::from_millis(100));
            } else {
                server.wait_for(": no sign of life");
                does_not_spin("is stopped", &server);
            }
            let (status, text) = ends_soon(server);
            assert!(status.success() && text.contains("goodbye"), "{status}: {text}");
        }
    });
}

#[test]
fn http_client_and_a_stopped_server() {
    on_each_engine("hostile-http-stopped", |engine, folder| {
        let cert = folder.file("cert.pem");
        let (server, url) = serve("https_server", &["--save-cert", &cert], engine);
        server.signal(libc::SIGSTOP);
        let mut command = example_on("http_client", engine);
        let (status, text) =
            Peer::start(command.args([&url, "--ca", &cert, "--step-ms", "300"])).end();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("{url}: no connection in 300ms")), "{text}");
        let client = Peer::start(example_on("http_client", engine).args([&url, "--ca", &cert]));
        thread::sleep(Duration::from_millis(200));
        does_not_spin("is stopped", &client);
        ends_soon(client);
    });
}

/// The client of a WebSocket is stopped behind the proxy: both sides of it are let go of.
#[test]
fn proxy_and_a_stopped_client() {
    if !is_built("proxy") {
        return;
    }
    on_each_engine("hostile-proxy-stopped", |engine, _| {
        let (_server, url) = serve("ws_server", &["--every-ms", "1000000"], engine);
        let to = url.trim_start_matches("ws://").trim_end_matches('/');
        let (proxy, addr) = serve("proxy", &["--to", to, "--quiet-ms", "300"], engine);
        let before = proxy.descriptors();
        let client = Peer::start(example_on("ws_client", engine).arg(format!("ws://{addr}/")));
        client.wait_for("\"number\":0,");
        client.signal(libc::SIGSTOP);
        proxy.wait_for(&format!(" to {to}: nothing moves for 300ms"));
        proxy.is_idle_again(before);
        let (status, text) = ends_soon(proxy);
        assert!(status.success(), "{status}: {text}");
    });
}
