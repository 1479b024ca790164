//! Names over UDP: a small server of addresses, and a client that asks one (RFC 1035).
//!
//!     cargo run --release --example dns -- --serve 5300 host.test=192.0.2.7 host.test=2001:db8::7
//!     dig @127.0.0.1 -p 5300 host.test AAAA
//!     cargo run --release --example dns -- --ask host.test --at 127.0.0.1:5300
//!
//! The server answers A and AAAA from the names on its command line, says NXDOMAIN for others, and
//! FORMERR or NOTIMP for what it does not understand; it prints `READY` and its port once it is bound, and
//! ends by Ctrl-C or SIGTERM. The client asks for both kinds at once, asks again after a second, twice,
//! and takes answers only from the server, to the question that it has asked.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tamam::net::UdpSocket;
use tamam::time::timeout_at;

const USAGE: &str = "usage: dns --serve PORT NAME=IP ... | --ask NAME --at IP:PORT";

/// The types of records that are known here.
const A: u16 = 1;
const AAAA: u16 = 28;
/// The class of the internet.
const IN: u16 = 1;
/// How long an answer may be kept, in seconds.
const TTL: u32 = 60;
/// A message over UDP is no longer.
const MESSAGE_MAX: usize = 512;

/// How long an answer may take, and how often is asked.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 3;

enum Task {
    Serve { port: u16, names: Names },
    Ask { name: String, at: SocketAddr },
}

/// Addresses by name, in lower case.
type Names = HashMap<String, Vec<IpAddr>>;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let task = match parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let ended = tamam::run(async {
        match task {
            Task::Serve { port, names } => serve(port, &names).await,
            Task::Ask { name, at } => ask(&name, at).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Task, String> {
    let (mut port, mut asked, mut at, mut names) = (None, None, None, Names::new());
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--serve" => port = Some(value()?.parse().map_err(|_| "--serve: no port")?),
            "--ask" => asked = Some(value()?),
            "--at" => at = Some(value()?.parse().map_err(|_| "--at: no address with a port")?),
            pair => {
                let (name, ip) = pair.split_once('=').ok_or(format!("unknown argument: {pair}"))?;
                let ip = ip.parse().map_err(|_| format!("{pair}: no IP address"))?;
                names.entry(name.to_lowercase()).or_default().push(ip);
            }
        }
    }
    match (port, asked, at) {
        (Some(port), None, None) => Ok(Task::Serve { port, names }),
        (None, Some(name), Some(at)) => Ok(Task::Ask { name, at }),
        _ => Err("either --serve, or --ask and --at".into()),
    }
}

// ---- the server ---------------------------------------------------------------------------------

async fn serve(port: u16, names: &Names) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("READY {}", socket.local_addr()?.port());
    io::stdout().flush()?;
    let stopped = tamam::signal::shutdown();
    tokio::select! {
        never = answer_all(&socket, names) => match never {},
        stopped = stopped => stopped.map(drop),
    }
}

async fn answer_all(socket: &UdpSocket, names: &Names) -> std::convert::Infallible {
    loop {
        let result = match socket.recv().await {
            Ok(question) => match answer(&question.chunk, names) {
                Some(message) => {
                    let sent = socket.send_to(message, question.from).await;
                    sent.map(drop).map_err(io::Error::from)
                }
                None => continue, // not even a header, or an answer: nobody waits for ours
            },
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            eprintln!("dns: {error}");
        }
    }
}

/// The answer to a message; `None` if there must be none.
fn answer(question: &[u8], names: &Names) -> Option<Vec<u8>> {
    let header: [u8; 12] = question.get(..12)?.try_into().ok()?;
    if header[2] & 0x80 != 0 {
        return None; // it is an answer
    }
    let asked =
        if header[2] >> 3 & 15 != 0 { Err(Refusal::NotImplemented) } else { read(question) };
    let (code, records, end) = match &asked {
        Err(refusal) => (*refusal as u8, Vec::new(), 12),
        Ok(asked) => match names.get(&asked.name) {
            None => (Refusal::NoName as u8, Vec::new(), asked.end),
            Some(ips) => {
                let wanted = |ip: &&IpAddr| asked.class == IN && asked.kind == kind_of(ip);
                (0, ips.iter().filter(wanted).collect(), asked.end)
            }
        },
    };
    let mut message = question[..end].to_vec();
    message[2] = 0x84 | header[2] & 1; // an answer of the one who knows; recursion as it was asked
    message[3] = code;
    let count = |number: usize| (number as u16).to_be_bytes();
    message[4..6].copy_from_slice(&count(asked.is_ok().into()));
    message[6..8].copy_from_slice(&count(records.len()));
    message[8..12].fill(0);
    for ip in records {
        message.extend([0xc0, 12]); // the name in the question
        message.extend(kind_of(ip).to_be_bytes());
        message.extend(IN.to_be_bytes());
        message.extend(TTL.to_be_bytes());
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        message.extend(count(bytes.len()));
        message.extend(bytes);
    }
    if message.len() > MESSAGE_MAX {
        message.truncate(end);
        message[2] |= 2; // cut: ask by TCP, which is not here
        message[6..8].fill(0);
    }
    Some(message)
}

fn kind_of(ip: &IpAddr) -> u16 {
    if ip.is_ipv4() { A } else { AAAA }
}

#[derive(Clone, Copy)]
enum Refusal {
    Malformed = 1,
    NoName = 3,
    NotImplemented = 4,
}

/// What a message asks.
struct Asked {
    name: String,
    kind: u16,
    class: u16,
    /// Where the question ends.
    end: usize,
}

/// Reads the one question of a message.
fn read(message: &[u8]) -> Result<Asked, Refusal> {
    if message.get(4..6) != Some(&[0, 1]) {
        return Err(Refusal::Malformed);
    }
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let len = usize::from(*message.get(at).ok_or(Refusal::Malformed)?);
        at += 1;
        if len == 0 {
            break;
        }
        // Pointers do not occur in the first name of a message.
        let label = message.get(at..at + len).filter(|_| len < 64).ok_or(Refusal::Malformed)?;
        let label = std::str::from_utf8(label).map_err(|_| Refusal::Malformed)?;
        if !name.is_empty() {
            name.push('.');
        }
        name += &label.to_lowercase();
        at += len;
    }
    let number = |at: usize| -> Result<u16, Refusal> {
        let bytes = message.get(at..at + 2).ok_or(Refusal::Malformed)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    Ok(Asked { name, kind: number(at)?, class: number(at + 2)?, end: at + 4 })
}

// ---- the client ---------------------------------------------------------------------------------

async fn ask(name: &str, at: SocketAddr) -> io::Result<()> {
    let local = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local)?;
    socket.connect(at).await?; // then the kernel drops what others send, and tells of a closed port
    let mut open = vec![question(name, A)?, question(name, AAAA)?];
    let mut ips = Vec::new();
    for _ in 0..ATTEMPTS {
        for question in &open {
            socket.send(question.clone()).await?;
        }
        let until = Instant::now() + ANSWER_MAX;
        while let Ok(answer) = timeout_at(until, socket.recv()).await {
            let answer = answer?.chunk;
            let Some(asked) = open.iter().position(|question| is_answer(&answer, question)) else {
                continue; // to nothing that was asked
            };
            let end = open.remove(asked).len();
            ips.extend(addresses(&answer, end).map_err(|text| refused(name, text))?);
            if open.is_empty() {
                break;
            }
        }
        if open.is_empty() {
            if ips.is_empty() {
                return Err(refused(name, "no address"));
            }
            ips.iter().for_each(|ip| println!("{ip}"));
            return Ok(());
        }
    }
    let text = format!("{at} says nothing of {name} in {:?}", ANSWER_MAX * ATTEMPTS as u32);
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

fn refused(name: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: {text}"))
}

/// A message that asks for one kind of address.
fn question(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    // The kind tells the two questions of this program apart, the rest of the number its neighbours'.
    let id = (std::process::id() as u16 & 0xff00 | kind).to_be_bytes();
    let mut message = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat(); // recursion is wanted
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len));
        let text = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name"));
        message.push(len.ok_or_else(text)?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    Ok(message)
}

/// Whether it has the number of the question, and repeats what was asked.
fn is_answer(answer: &[u8], question: &[u8]) -> bool {
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let repeats = answer.get(12..question.len()) == Some(&question[12..]);
    is_answer && answer[..2] == question[..2] && (repeats || answer.len() == 12)
}

/// The addresses in an answer, whose records begin at `at`. `Err`: why there are none.
fn addresses(answer: &[u8], at: usize) -> Result<Vec<IpAddr>, &'static str> {
    match answer[3] & 15 {
        0 => {}
        3 => return Err("no such name"),
        _ => return Err("the server refuses"),
    }
    let broken = "the answer is broken";
    let number = |at: usize| -> Result<usize, &'static str> {
        let bytes = answer.get(at..at + 2).ok_or(broken)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]).into())
    };
    let (mut at, mut ips) = (at, Vec::new());
    for _ in 0..number(6)? {
        // The name: labels, up to a pointer or the root.
        loop {
            match *answer.get(at).ok_or(broken)? {
                0 => break at += 1,
                len if len >= 0xc0 => break at += 2,
                len => at += 1 + usize::from(len),
            }
        }
        let len = number(at + 8)?;
        let data = answer.get(at + 10..at + 10 + len).ok_or(broken)?;
        match (number(at)? as u16, data) {
            (A, _) => ips.push(IpAddr::from(<[u8; 4]>::try_from(data).map_err(|_| broken)?)),
            (AAAA, _) => ips.push(IpAddr::from(<[u8; 16]>::try_from(data).map_err(|_| broken)?)),
            _ => {} // an alias, say
        }
        at += 10 + len;
    }
    Ok(ips)
}
