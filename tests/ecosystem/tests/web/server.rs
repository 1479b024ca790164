//! `https_server`: curl, wrk and h2load are served; it ends with grace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::Command;

use crate::common::PATIENCE;
use crate::common::example::serve;
use crate::common::peer::{self, Peer, on_each_engine};
use crate::{common, https_server, port, run};

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
            // HEAD has the length of what GET has, and no body: HTTP/2 makes one an error.
            for (path, status, len) in [("hello", " 200", hello.len()), ("nowhere", " 404", 10)] {
                let head = run(curl().args(["--head", &format!("{url}/{path}")]));
                assert!(head.lines().next().expect("a status").contains(status), "{head}");
                let len = format!("content-length: {len}\r\n");
                assert!(head.contains(&len) && head.ends_with("\r\n\r\n"), "{head}");
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
