//! Every example does what its first comment says: how it is run, and what it prints.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::example::{self, Echo};

/// How a run of an example ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn run(name: &str, args: &[&str]) -> Ended {
    run_in(name, args, &[])
}

/// With variables of the environment.
fn run_in(name: &str, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let start = Instant::now();
    let mut command = example::command(name);
    command.args(args).envs(variables.iter().copied());
    let output = command.output().expect("the example can be run");
    let took = start.elapsed();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it prints text"));
    println!("-- {name} {args:?}\n{stdout}{stderr}");
    Ended { code: output.status.code(), stdout, stderr, took }
}

/// The indented blocks of the comment that an example starts with.
fn blocks(source: &str) -> Vec<Vec<&str>> {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
    let mut blocks = vec![Vec::new()];
    for line in comment {
        match line.strip_prefix("     ") {
            Some(code) => blocks.last_mut().expect("there is one").push(code),
            None => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// Seconds with a decimal, as the examples print them.
fn seconds(word: &str) -> Option<f64> {
    word.contains('.').then(|| word.parse().ok())?
}

/// Lines with their times left out, which differ from run to run.
fn timeless<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let word = |word: &'a str| if seconds(word).is_some() { "_" } else { word };
    lines.into_iter().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// Every example is here, says how it is run, and is run by a test: of this file, of `tests/unix`, of
/// `tests/ecosystem/tests/web`, or of one that has its name.
#[test]
fn every_example_is_known() {
    const KNOWN: [&str; 10] = [
        "cat",
        "compare",
        "dns",
        "doctor",
        "echo",
        "proxy",
        "staggered",
        "tasks",
        "udp_echo",
        "unix_chat",
    ];
    // Run by `web` of `tests/ecosystem`; `tls_echo` by `tests/tls_peers.rs`.
    const WEB: [&str; 5] = ["http_client", "https_server", "tls_echo", "ws_client", "ws_server"];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !sources.exists() {
        // The binary was carried to another machine (`ci/kernels`).
        println!("skipped: the sources are not here: {sources:?}");
        return;
    }
    let folder = sources.join("examples");
    let files = std::fs::read_dir(&folder).expect("the examples are there");
    // `shared` is what several of them need.
    let names: BTreeSet<String> = files
        .map(|file| file.expect("it can be read").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "shared")
        .collect();
    assert!(
        names.iter().eq(&BTreeSet::from_iter(KNOWN.into_iter().chain(WEB))),
        "a test for each of {names:?}, please"
    );
    for name in names {
        let (file, main) = (folder.join(format!("{name}.rs")), folder.join(&name).join("main.rs"));
        let source = if file.exists() { file } else { main };
        let source = std::fs::read_to_string(source).expect("it is text");
        let blocks = blocks(&source);
        let usage = &blocks.first().expect("it says how it is run")[0];
        let runs = usage.split(' ').collect::<Vec<_>>();
        assert_eq!(runs[..2], ["cargo", "run"], "{name}");
        assert!(usage.contains(&format!("--example {name}")), "{name}: {usage}");
        let of_member = usage.contains("-p tamam-ecosystem");
        assert_eq!(of_member, WEB.contains(&name.as_str()), "{name}: whose is it? {usage}");
    }
}

/// Both directions at once and one after the other, whichever thread has the connection; a reset is
/// a reset, and nobody at the other side is none.
#[test]
fn a_proxy_passes_on_bytes_and_ends() {
    let server = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let to = server.local_addr().expect("bound").to_string();
    for engine in common::peer::engines() {
        println!("-- {engine}");
        let args = ["--to", &to, "--threads", "2"];
        let (proxy, addr) = example::serve("proxy", &args, engine);
        for round in 0..8 {
            let client = TcpStream::connect(&addr).expect("it listens");
            let (upstream, _) = server.accept().expect("it connects");
            let sent: Vec<u8> = (0..1 << 20).map(|at| (at * 31 + round) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| pass(&client, &upstream, &sent));
                if round % 2 == 0 {
                    scope.spawn(|| pass(&upstream, &client, &sent));
                }
            });
            if round % 2 == 1 {
                pass(&upstream, &client, &sent); // the other direction has ended
            }
        }
        let mut client = TcpStream::connect(&addr).expect("it listens");
        let (upstream, _) = server.accept().expect("it connects");
        (&upstream).write_all(b"x").expect("connected");
        client.read_exact(&mut [0]).expect("it comes through");
        common::reset(upstream);
        let error = client.read(&mut [0]).expect_err("it is no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        proxy.signal(libc::SIGTERM);
        assert_eq!(proxy.end().0.code(), Some(0));
    }
    drop(server);
    let (_proxy, addr) = example::serve("proxy", &["--to", &to], "auto");
    let error = TcpStream::connect(&addr).expect("it listens").read(&mut [0]);
    assert_eq!(error.expect_err("nobody is there").kind(), ErrorKind::ConnectionReset);
    let wrong = run("proxy", &["--to", &to, "--port", "1", "--threads", "0"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("usage: proxy"), "{}", wrong.stderr);
}

/// Sends all of it one way, and then an end.
fn pass(mut from: &TcpStream, to: &TcpStream, sent: &[u8]) {
    thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut got = Vec::new();
            let mut to = to;
            to.read_to_end(&mut got).expect("an end");
            got
        });
        from.write_all(sent).expect("connected");
        from.shutdown(std::net::Shutdown::Write).expect("connected");
        assert!(read.join().expect("no panic") == sent, "other bytes came");
    });
}

/// Two naps of a second take one second: both start before either is over.
#[test]
fn tasks_run_together() {
    let ended = run("tasks", &[]);
    assert_eq!(ended.code, Some(0));
    let promised = &blocks(include_str!("../examples/tasks.rs"))[1];
    assert_eq!(timeless(ended.stdout.lines()), timeless(promised.iter().copied()));
    assert!(ended.stderr.contains("three has no good morning"), "the panic's own message");
    assert!(ended.took >= Duration::from_secs(1), "{:?}", ended.took);
    // One second on a machine with nothing else to do.
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
}

/// Each visit has waited for its time, and none for another's end.
#[test]
fn staggered_connects_in_turn() {
    let ended = run("staggered", &[]);
    assert_eq!(ended.code, Some(0));
    let promised = &blocks(include_str!("../examples/staggered.rs"))[1];
    assert_eq!(timeless(ended.stdout.lines()), timeless(promised.iter().copied()));
    for (i, line) in ended.stdout.lines().enumerate() {
        let at = line.split(' ').next().and_then(seconds).expect("a time comes first");
        assert!(at > 0.4 * i as f64 - 0.06, "{line}: too early"); // rounded to a tenth
    }
    assert!(ended.took >= Duration::from_millis(1600), "{:?}", ended.took);
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_eq!(ended.stderr, "");
}

/// The self-test serves for two seconds, verifies, and prints what it has measured.
#[test]
fn echo_tests_itself() {
    let ended = run("echo", &["--self-test"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.took >= Duration::from_secs(2), "{:?}", ended.took);
    let mut lines = ended.stdout.lines();
    let head = lines.next().expect("a line about the load");
    assert!(head.starts_with("50 connections, 64 B each way, "), "{head}");
    for figure in ["requests/s", "system calls/request", "completions/enter", "bytes verified"] {
        let line = lines.next().unwrap_or_default();
        let number = line.strip_prefix(figure).map(str::trim).map(str::parse::<f64>);
        assert!(matches!(number, Some(Ok(number)) if number > 0.0), "{figure}: {line:?}");
    }
    // Its runtime makes no choice, as this one.
    let runtime = tamam::Runtime::new().expect("one of the engines works on every machine");
    let capabilities = runtime.capabilities();
    let native = capabilities.features().iter().filter(|it| it.support == tamam::Support::Native);
    let native = match native.map(|feature| feature.name).collect::<Vec<_>>().join(", ") {
        list if list.is_empty() => "none".to_owned(), // epoll before 5.11
        list => list,
    };
    let engine = capabilities.backend().to_string();
    for (text, expected) in [("engine", engine), ("native features", native)] {
        let line = lines.next().unwrap_or_default();
        assert_eq!(line.strip_prefix(text).map(str::trim), Some(expected.as_str()), "{line:?}");
    }
    assert_eq!(lines.next(), None);
}

/// Whether a signal, such as that of a child that ends, came before the answer.
fn is_interrupted<T>(received: &std::io::Result<T>) -> bool {
    received.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted)
}

/// The self-test of the datagrams likewise; and the server sends back what it gets, merged or not,
/// and ends when it is asked to.
#[test]
fn udp_echo_sends_datagrams_back() {
    let ended = run("udp_echo", &["--self-test"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let mut lines = ended.stdout.lines();
    assert_eq!(lines.next(), Some("50 clients, 64 B each way, 2.0 s"));
    for figure in ["datagrams/s", "system calls/datagram", "datagrams verified", "datagrams lost"] {
        let line = lines.next().unwrap_or_default();
        let number = line.strip_prefix(figure).map(str::trim).map(str::parse::<f64>);
        assert!(matches!(number, Some(Ok(number)) if number >= 0.0), "{figure}: {line:?}");
    }
    for (engine, args) in common::peer::engines()
        .into_iter()
        .flat_map(|engine| [(engine, &[][..]), (engine, &["--gro"][..])])
    {
        let (server, port) = example::serve("udp_echo", args, engine);
        let client = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        client.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
        client.connect(format!("127.0.0.1:{port}")).expect("a route");
        for number in 0..100u8 {
            client.send(&[number; 300]).expect("room");
        }
        let mut buf = [0; 301];
        for number in 0..100u8 {
            let len = std::iter::repeat_with(|| client.recv(&mut buf))
                .find(|received| !is_interrupted(received))
                .expect("it goes on for ever");
            assert_eq!(len.expect("an answer"), 300);
            assert_eq!(buf[..300], [number; 300]);
        }
        let mut echoed = 100;
        if common::peer::has(&["socat"]) {
            let to = format!("UDP:127.0.0.1:{port}");
            let mut socat = Command::new("socat");
            socat.args(["-t9", "-", &to]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut socat = socat.spawn().expect("it can be run");
            let mut stdin = socat.stdin.take().expect("it is piped");
            let mut stdout = socat.stdout.take().expect("it is piped");
            stdin.write_all(b"hello").expect("room");
            let mut answer = [0; 5];
            stdout.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"hello");
            socat.kill().and_then(|()| socat.wait()).expect("it runs");
            echoed += 1;
        }
        server.signal(libc::SIGTERM);
        let (status, output) = server.end();
        assert_eq!(status.code(), Some(0));
        assert!(output.contains(&format!("{echoed} datagrams echoed")), "{output}");
    }
    let wrong = run("udp_echo", &["--port", "70000"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("usage: udp_echo"), "{}", wrong.stderr);
}

/// Copies what `cat` does, to a pipe and to a file; the kinds of streams are in `tests/standard`.
#[test]
fn cat_copies() {
    for engine in common::peer::engines() {
        let cat = |args: &[&str]| {
            let mut command = example::command("cat");
            command.args(args).env("TAMAM_BACKEND", engine);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let feed = |child: &mut Child, bytes: Vec<u8>| {
            let mut stdin = child.stdin.take().expect("it is piped");
            thread::spawn(move || stdin.write_all(&bytes))
        };
        let mut child = cat(&[]).spawn().expect("it can be run");
        let feeding = feed(&mut child, common::pattern(1 << 20));
        let ended = child.wait_with_output().expect("it ends");
        feeding.join().expect("no panic").expect("it is read");
        common::assert_same(&ended.stdout, &common::pattern(1 << 20));
        assert!(ended.status.success() && ended.stderr.is_empty());

        let mut child = cat(&["-n"]).spawn().expect("it can be run");
        feed(&mut child, b"one\ntwo".to_vec()).join().expect("no panic").expect("room");
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.stdout, b"     1\tone\n     2\ttwo\n");

        // A reader that has gone is no failure.
        let mut child = cat(&[]).spawn().expect("it can be run");
        drop(child.stdout.take());
        let feeding = feed(&mut child, common::pattern(1 << 20));
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!((ended.status.code(), &ended.stderr[..]), (Some(0), &b""[..]));
        assert_eq!(feeding.join().expect("no panic").unwrap_err().kind(), ErrorKind::BrokenPipe);

        let full = File::options().write(true).open("/dev/full").expect("it is there");
        let mut child = cat(&[]).stdout(full).spawn().expect("it can be run");
        feed(&mut child, b"lost".to_vec()).join().expect("no panic").expect("room");
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            (ended.status.code(), &*said),
            (Some(1), "cat: No space left on device (os error 28)\n")
        );

        // SIGTERM while nothing comes.
        let mut child = cat(&[]).spawn().expect("it can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        let mut stdout = child.stdout.take().expect("it is piped");
        stdin.write_all(b"begun").expect("room");
        let mut begun = [0; 5];
        stdout.read_exact(&mut begun).expect("it is copied");
        // SAFETY: takes no pointers. The child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
        assert!(child.wait().expect("it ends").success());
    }
}

/// The server of names answers `dig`, its own client, and messages that are none; the client ends when
/// nobody answers.
#[test]
fn dns_answers() {
    for engine in common::peer::engines() {
        let args = ["host.test=192.0.2.7", "HOST.test=192.0.2.8", "host.test=2001:db8::7"];
        let mut command = example::command("dns");
        command.args(["--serve", "0"]).args(args).env("TAMAM_BACKEND", engine);
        let server = common::peer::Peer::start(&mut command);
        let port = server.wait_for("READY").trim().to_owned();
        let at = format!("127.0.0.1:{port}");
        let ask =
            |name: &str| run_in("dns", &["--ask", name, "--at", &at], &[("TAMAM_BACKEND", engine)]);
        let found = ask("Host.Test");
        assert_eq!((found.code, &*found.stdout), (Some(0), "192.0.2.7\n192.0.2.8\n2001:db8::7\n"));
        let missing = ask("other.test");
        assert_eq!((missing.code, &*missing.stderr), (Some(1), "dns: other.test: no such name\n"));

        // What is no question.
        let client = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        client.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
        client.connect(&at).expect("a route");
        let header = |flags: u8, questions: u8| [9, 9, flags, 0, 0, questions, 0, 0, 0, 0, 0, 0];
        for silent in [&b""[..], b"short", &header(0x80, 1)] {
            client.send(silent).expect("room");
        }
        let mut buf = [0; 512];
        for (message, code) in [
            (&header(0, 0)[..], 1),
            (&header(0, 1)[..], 1),
            (&[&header(0, 1)[..], &[70; 71]].concat()[..], 1),
            (&header(0x10, 1)[..], 4),
        ] {
            client.send(message).expect("room");
            let len = client.recv(&mut buf).expect("an answer");
            assert_eq!((len, &buf[..2], buf[3]), (12, &[9, 9][..], code), "{message:?}");
        }
        if common::peer::has(&["dig"]) {
            let dig = |name: &str, kind: &str| {
                let args = ["@127.0.0.1", "-p", &port, name, kind, "+short", "+tries=1"];
                let output = std::process::Command::new("dig").args(args).output();
                String::from_utf8(output.expect("it can be run").stdout).expect("it prints text")
            };
            assert_eq!(dig("host.test", "AAAA"), "2001:db8::7\n");
            assert_eq!(dig("host.test", "A").lines().count(), 2);
            assert_eq!(dig("host.test", "MX"), "");
            assert_eq!(dig("other.test", "A"), "");
        }
        server.signal(libc::SIGTERM);
        assert!(server.end().0.success());
    }
    // Nobody is there: the kernel tells. Somebody who does not answer: three seconds.
    let closed = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports").local_addr();
    let closed = closed.expect("bound").to_string();
    let refused = run("dns", &["--ask", "host.test", "--at", &closed]);
    assert!(refused.stderr.contains("Connection refused"), "{}", refused.stderr);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let at = silent.local_addr().expect("bound").to_string();
    let ended = run("dns", &["--ask", "host.test", "--at", &at]);
    assert!(ended.stderr.contains("says nothing of host.test in 3s"), "{}", ended.stderr);
    let wrong = run("dns", &["--ask", "a..b", "--at", &at]);
    assert!(wrong.stderr.contains("\"a..b\" is no name"), "{}", wrong.stderr);
}

/// What makes no sense is refused with the usage and code 2; what the system refuses, with its
/// reason and code 1. Nothing is printed where a script would look for `READY`.
#[test]
fn echo_refuses() {
    let nonsense: [&[&str]; 9] = [
        &["--port"],
        &["--port", "x"],
        &["--port", "65536"],
        &["--port", "-1"],
        &["--size", "4k"],
        &["--size", "99999999999999999999"],
        &["--mode", "loud"],
        &["--what"],
        &["extra"],
    ];
    for args in nonsense {
        let ended = run("echo", args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        let (reason, usage) = ended.stderr.split_once('\n').expect("two lines");
        let wrong = args.last().expect("there is one");
        assert!(reason.contains(wrong), "{args:?}: {reason}");
        assert!(usage.starts_with("usage: echo "), "{args:?}: {usage}");
    }
    let taken = Echo::start(&[]);
    let taken = taken.addr.port().to_string();
    for (args, reason) in [(["--size", "0"], "buffer"), (["--port", taken.as_str()], "in use")] {
        let ended = run("echo", &args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(ended.stderr.starts_with("echo: ") && ended.stderr.contains(reason), "{args:?}");
    }
}

/// The rows that `compare` has when nothing else is asked for.
const COMPARED: [&str; 4] =
    ["echo, 1 connection", "echo, 50 connections", "echo, 500 connections", "1000 tasks"];

/// Whether this machine can compare anything.
fn has_ring() -> bool {
    let ring = tamam::Runtime::builder().backend(tamam::Backend::Ring).build();
    if let Err(error) = &ring {
        println!("skipped: needs io_uring: {error}");
    }
    ring.is_ok()
}

/// The figures of a line of the table behind its first word; what cannot be told is `-`.
fn figures(line: &str) -> Vec<Option<f64>> {
    let words = line.split_whitespace().skip(1);
    words.map(|word| (word != "-").then(|| word.parse().expect(word))).collect()
}

/// A line of the table: all figures are there, and what must be more than nothing is.
fn assert_figures(line: &str) {
    let figures = figures(line);
    let [rate, cpu, _, _, calls, _, p50, p99] = figures[..] else { panic!("{line}") };
    for figure in [rate, cpu, calls, p50, p99] {
        assert!(figure.is_some_and(|figure| figure >= 0.0), "{line}");
    }
    assert!(rate > Some(0.0) && cpu > Some(0.0) && p99 >= p50, "{line}");
}

/// So many bytes, every one of which was compared.
fn assert_verified(stdout: &str) {
    let line = stdout.lines().find(|line| line.contains("bytes came back")).expect("it says so");
    let bytes: u64 = line.split(' ').next().and_then(|word| word.parse().ok()).expect(line);
    // Each row of the echo answers each connection once in each window, at the least.
    assert!(bytes >= (1 + 50 + 500) * 64 * 12 && bytes % 64 == 0, "{line}");
    assert!(line.ends_with("all verified."), "{line}");
}

/// Every row has both engines and a verdict, whatever the verdict of a busy machine may be.
#[test]
fn compare_prints_every_row() {
    if !has_ring() {
        return;
    }
    let ended = run("compare", &["--seconds", "2"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.lines().all(|line| line.len() <= 100), "wider than 100 columns");
    for row in COMPARED {
        let mut lines = ended.stdout.lines().skip_while(|line| !line.starts_with(row));
        let ring = lines.next().and_then(|line| line.strip_prefix(row)).expect(row);
        assert!(ring.trim_start().starts_with("ring "), "{ring}");
        assert_figures(ring);
        let epoll = lines.next().expect("the other engine");
        assert!(epoll.trim_start().starts_with("epoll "), "{epoll}");
        assert_figures(epoll);
        // The row is judged by its own noise.
        let noise = lines.next().expect("how a server differs from its twin");
        assert!(noise.trim_start().starts_with("noise ") && noise.contains("(95 %: "), "{noise}");
        let judged = !noise.ends_with("  too much");
        assert_eq!(judged, noise.contains("  up to ") && noise.ends_with(" %"), "{noise}");
        let ratio = lines.next().expect("what they differ");
        assert!(ratio.trim_start().starts_with("ratio ") && ratio.contains("(95 %: "), "{ratio}");
        let (_, verdict) = ratio.rsplit_once("  ").expect("a verdict");
        match verdict {
            "too noisy to tell" => {}
            "no difference" => assert!(judged, "{ratio}"),
            cheaper => assert!(judged && cheaper.ends_with(" % cheaper"), "{ratio}"),
        }
    }
    assert_verified(&ended.stdout);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("it is Linux");
    assert!(ended.stdout.contains(&format!("kernel {}, ", release.trim())));
    assert!(ended.stdout.contains("--example compare -- --seconds 2"), "its own command");
    // No terminal: a line for each part, as it begins.
    let progress: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(progress.len(), 2 * COMPARED.len(), "{progress:?}");
    for (lines, row) in progress.chunks(2).zip(COMPARED) {
        assert!(lines[0].ends_with(&format!("{row}, ring against ring")), "{lines:?}");
        assert!(lines[1].ends_with(row), "{lines:?}");
    }
    assert!(ended.took < Duration::from_secs(90), "{:?}", ended.took);
}

/// Without a ring it gives the reason, the figures of epoll, and no verdict.
#[test]
fn compare_goes_without_a_ring() {
    let ended = run_in("compare", &["--seconds", "2"], &[("TAMAM_PRETEND_KERNEL", "5.4")]);
    assert_eq!(ended.code, Some(0));
    let reason = ended.stdout.lines().next().unwrap_or_default();
    assert!(reason.starts_with("No ring here: ") && reason.contains("too old"), "{reason}");
    for row in COMPARED {
        let line = ended.stdout.lines().find_map(|line| line.strip_prefix(row)).expect(row);
        assert!(line.trim_start().starts_with("epoll "), "{line}");
        assert_figures(line);
    }
    assert!(!ended.stdout.contains("cheaper") && !ended.stdout.contains("95 %"));
    assert_verified(&ended.stdout);
}

/// For programs: a JSON object on each line, and nothing else; sizes and rows as asked for.
#[test]
fn compare_speaks_json() {
    if !has_ring() {
        return;
    }
    let args = ["--seconds", "1", "--connections", "3", "--size", "5000", "--json"];
    let ended = run("compare", &args);
    assert_eq!(ended.code, Some(0));
    for line in ended.stdout.lines() {
        assert!(line.starts_with("{\"") && line.ends_with('}'), "{line}");
        assert!(line.matches('"').count() % 2 == 0 && !line.contains("NaN"), "{line}");
    }
    let rows = |part: &str| ended.stdout.lines().filter(|line| line.contains(part)).count();
    assert_eq!((rows("\"ring_refused\": null"), rows("\"row\": \"noise\"")), (1, 2));
    for row in ["echo, 3 connections", "1000 tasks"] {
        let row = format!("{{\"row\": \"{row}\", ");
        assert_eq!(rows(&format!("{row}\"engine\": \"ring\"")), 1, "{row}");
        assert_eq!(rows(&format!("{row}\"engine\": \"epoll\"")), 1, "{row}");
        assert_eq!(rows(&format!("{row}\"rate_ratio\"")), 1, "{row}");
        let noise = row.replace("{\"row\": ", "{\"row\": \"noise\", \"work\": ");
        assert_eq!(rows(&noise), 1, "{noise}");
    }
    let bytes = ended.stdout.lines().last().expect("a last line");
    let bytes = bytes.trim_start_matches("{\"bytes_verified\": ").trim_end_matches('}');
    let bytes: u64 = bytes.parse().expect(bytes);
    assert!(bytes > 0 && bytes % 5000 == 0, "{bytes}");
}

#[test]
fn compare_refuses() {
    let nonsense: [&[&str]; 8] = [
        &["--seconds"],
        &["--seconds", "0"],
        &["--seconds", "x"],
        &["--connections", "1,,2"],
        &["--connections", "0"],
        &["--size", "0"],
        &["--size", "4k"],
        &["--what"],
    ];
    for args in nonsense {
        let ended = run("compare", args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        let (reason, usage) = ended.stderr.split_once('\n').expect("two lines");
        assert!(reason.starts_with(args[0]) || reason.ends_with(args[0]), "{args:?}: {reason}");
        assert!(usage.starts_with("usage: compare "), "{args:?}: {usage}");
    }
}
