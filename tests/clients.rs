//! Clients that know nothing of us: the echo example as a process, driven by python's asyncio, by
//! `nc`, by plain threads, and by processes that are killed in the midst of a message.

mod common;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::example::Echo;
use common::{PATIENCE, Random, child};
use tamam::Runtime;

/// The server on each engine.
fn on_both(args: &[&str], test: impl Fn(Echo)) {
    for (name, _) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        test(Echo::start_with(args, &[("TAMAM_BACKEND", name)]));
    }
}

/// A plain client.
fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(*PATIENCE)).expect("not zero");
    stream
}

fn random_bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Sends a message and reads it back.
fn echoes(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the server reads");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    assert!(answer == message, "{} bytes came back wrong", message.len());
}

/// Whether a program can be run; says so if not.
fn has(program: &str, args: &[&str]) -> bool {
    let found = Command::new(program).args(args).stdin(Stdio::null()).output().is_ok();
    if !found {
        println!("skipped: no {program}");
    }
    found
}

/// 200 connections of python's asyncio, all of them open before the first byte is sent; messages
/// of many sizes; each half-closes at its end and sees the server close.
#[test]
fn python_asyncio() {
    const PROGRAM: &str = r#"
import asyncio, random, sys

PORT, CLIENTS, ROUNDS = int(sys.argv[1]), 200, 20

async def client(number, connected, start):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    connected.append(number)
    if len(connected) == CLIENTS:
        start.set()
    await start.wait()
    source = random.Random(number)
    verified = 0
    for _ in range(ROUNDS):
        message = source.randbytes(source.randint(1, 6000))
        writer.write(message)
        await writer.drain()
        answer = await reader.readexactly(len(message))
        assert answer == message, f"client {number}: wrong bytes"
        verified += len(answer)
    writer.write_eof()
    assert await reader.read() == b"", f"client {number}: bytes after the end"
    writer.close()
    await writer.wait_closed()
    return verified

async def main():
    connected, start = [], asyncio.Event()
    clients = (client(number, connected, start) for number in range(CLIENTS))
    verified = await asyncio.wait_for(asyncio.gather(*clients), 50)
    print("verified", len(verified), sum(verified))

asyncio.run(main())
"#;
    if !has("python3", &["--version"]) {
        return;
    }
    on_both(&[], |server| {
        let output = Command::new("python3")
            .args(["-c", PROGRAM, &server.addr.port().to_string()])
            .stdin(Stdio::null())
            .output()
            .expect("just tried");
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{stderr}");
        assert!(stdout.starts_with("verified 200 "), "{stdout}{stderr}");
    });
}

/// `nc -N` sends what it reads, then half-closes: it gets all of it back, and then the end, for it
/// does not go before.
#[test]
fn nc_half_closes() {
    if !has("nc", &["-h"]) {
        return;
    }
    let usage = Command::new("nc").arg("-h").stdin(Stdio::null()).output().expect("just tried");
    if !String::from_utf8_lossy(&[usage.stdout, usage.stderr].concat()).contains("OpenBSD") {
        println!("skipped: no nc of OpenBSD, others have no -N");
        return;
    }
    let _watchdog = common::Watchdog::start();
    on_both(&[], nc_half_closes_at);
}

fn nc_half_closes_at(server: Echo) {
    for len in [0, 1, 4096, 4097, 100_000, 8 << 20] {
        let message = common::pattern(len);
        let mut nc = Command::new("nc")
            .args(["-N", "127.0.0.1", &server.addr.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("just tried");
        let mut stdin = nc.stdin.take().expect("it is piped");
        let output = thread::scope(|scope| {
            let writer = scope.spawn(|| stdin.write_all(&message).map(|()| drop(stdin)));
            let output = nc.wait_with_output().expect("it ends");
            writer.join().expect("no panic").expect("nc reads all of it");
            output
        });
        assert!(output.status.success(), "{len} bytes: {}", output.status);
        common::assert_same(&output.stdout, &message);
    }
}

/// Fifty threads with plain sockets and messages of random sizes, against receive buffers of
/// several sizes: every byte is verified.
#[test]
fn fifty_threads() {
    for (size, len_max) in [("1", 40), ("16", 2000), ("4096", 60_000), ("65536", 60_000)] {
        eprintln!("-- buffers of {size} bytes");
        on_both(&["--size", size], |server| {
            let addr = server.addr;
            let clients: Vec<_> = (1..=50)
                .map(|seed| {
                    thread::spawn(move || {
                        let mut random = Random(seed);
                        let mut stream = connect(addr);
                        stream.set_nodelay(seed % 2 == 0).expect("a TCP socket");
                        for _ in 0..20 {
                            let len = 1 + random.below(len_max) as usize;
                            echoes(&mut stream, &random_bytes(&mut random, len));
                        }
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().expect("every byte comes back"));
        });
    }
}

/// A client that writes for long before it reads, and half-closes while most of it is on its way:
/// it gets every byte, then the end.
#[test]
fn half_close_with_much_on_its_way() {
    const LEN: usize = 32 << 20;
    let _watchdog = common::Watchdog::start();
    on_both(&[], |server| {
        let mut stream = connect(server.addr);
        let mut sender = stream.try_clone().expect("it can be cloned");
        let writer = thread::spawn(move || {
            sender.write_all(&common::pattern(LEN))?;
            sender.shutdown(Shutdown::Write)
        });
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("everything, then the end");
        writer.join().expect("no panic").expect("the server reads");
        common::assert_same(&bytes, &common::pattern(LEN));
    });
}

/// In the mode for load tests nothing is answered, and the end is.
#[test]
fn sink_answers_nothing() {
    on_both(&["--mode", "sink"], |server| {
        let mut stream = connect(server.addr);
        stream.write_all(&common::pattern(1 << 20)).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("connected");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the end");
        assert_eq!(bytes, []);
    });
}

/// The test whose processes are killed.
const NAME: &str = "client_is_killed_in_mid_message";
/// Where they find the server.
const PORT: &str = "TAMAM_TEST_PORT";

/// 1 a client process has sent half a message, or has sent without reading until nothing went any
/// more; 2 it is killed, so that its kernel resets or finishes the connection; 3 the server serves
/// the others, and has let go of the socket.
#[test]
fn client_is_killed_in_mid_message() {
    if let Some(part) = child::part(NAME) {
        let port = std::env::var(PORT).expect("it is given");
        let port = port.parse().expect("a number");
        victim(&part, SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let _watchdog = common::Watchdog::start();
    on_both(&[], clients_are_killed);
}

fn clients_are_killed(mut server: Echo) {
    let mut bystander = connect(server.addr);
    echoes(&mut bystander, b"before");
    let descriptors = server.descriptors();
    for round in 0..5 {
        let mut victims: Vec<_> = ["half", "answered", "stalled"]
            .into_iter()
            .map(|part| {
                let mut victim = child::command(NAME, part, &[])
                    .env(PORT, server.addr.port().to_string())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("the test's own binary can be run");
                // Something else may be printed before.
                let mut lines = BufReader::new(victim.stdout.take().expect("it is piped")).lines();
                let ready = lines.any(|line| line.is_ok_and(|line| line.ends_with("KILL ME")));
                assert!(ready, "the victim, {part}, ended by itself");
                victim
            })
            .collect();
        echoes(&mut bystander, format!("beside them, {round}").as_bytes());
        for victim in &mut victims {
            victim.kill().expect("it lives"); // SIGKILL
            victim.wait().expect("it is our child");
        }
        echoes(&mut bystander, format!("after them, {round}").as_bytes());
        echoes(&mut connect(server.addr), b"a new one");
        let until = Instant::now() + *PATIENCE / 2;
        while server.descriptors() != descriptors && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.descriptors(), descriptors, "the server still holds dead connections");
    }
    assert!(server.is_running());
}

/// A client that gets itself into a state, says so, and waits to be killed.
fn victim(part: &str, addr: SocketAddr) -> ! {
    let mut stream = connect(addr);
    match part {
        // Its answer will be unread: the kernel resets.
        "half" => stream.write_all(&[7; 100]).expect("the server reads"),
        // Nothing is unread: the kernel finishes.
        "answered" => echoes(&mut stream, &[7; 100]),
        // The server's send has stalled in the midst of a chunk.
        "stalled" => {
            stream.set_write_timeout(Some(Duration::from_millis(300))).expect("not zero");
            let error = loop {
                if let Err(error) = stream.write_all(&[7; 65536]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        part => unreachable!("no such part: {part}"),
    }
    println!("\nKILL ME");
    loop {
        thread::park();
    }
}

/// SY5. 1 a server that listens is killed; 2 its port is free at once under epoll, and soon under the
/// ring, whose kernel closes it after the process.
#[test]
fn sy5_a_killed_server_leaves_its_port() {
    on_both(&[], |server| {
        let addr = server.addr;
        let client = connect(addr);
        drop(server); // killed, and waited for
        let begin = Instant::now();
        let bind = || async { tamam::net::TcpListener::bind(addr)?.local_addr() };
        let bound = loop {
            match common::build(Runtime::builder()).block_on(bind()) {
                Ok(bound) => break bound,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
            }
            assert!(begin.elapsed() < *PATIENCE, "the port is never free");
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(bound, addr);
        drop(client);
    });
}
