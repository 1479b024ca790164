//! A chat over a Unix socket, in which files are passed on as descriptors.
//!
//!     cargo run --release --example unix_chat -- --serve /tmp/chat
//!     nc -U /tmp/chat
//!     cargo run --release --example unix_chat -- --join /tmp/chat --say "see this" --file Cargo.toml
//!     cargo run --release --example unix_chat -- --join /tmp/chat
//!
//! The server hands each line on to all others, with the process and the user that it came from, which
//! the kernel tells. A descriptor that comes with a line goes on with it: whoever joins with this
//! program gets the file opened, though it may not open it by itself, and prints how long it is. `nc`
//! sees the lines alone. A client that does not read is dropped when too much waits for it. The server
//! prints `READY` once it listens; Ctrl-C or SIGTERM ends it, and its file goes with it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tamam::AbortHandle;
use tamam::io::Lines;
use tamam::net::{UnixListener, UnixStream, UnlinkOnDrop};
use tamam::time::timeout;

const USAGE: &str = "usage: unix_chat --serve PATH | --join PATH [--say TEXT [--file FILE]]";

/// How many descriptors a client may send with a line.
const FILES_MAX: usize = 4;
/// How long a line may be.
const LINE_MAX: usize = 4096;
/// How long a client may take for a line before it counts as gone.
const SEND_MAX: Duration = Duration::from_secs(1);

enum Task {
    Serve(String),
    Listen(String),
    Say { path: String, text: String, file: Option<String> },
}

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
            Task::Serve(path) => serve(&path).await,
            Task::Listen(path) => listen(&path).await,
            Task::Say { path, text, file } => say(&path, &text, file.as_deref()).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unix_chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Task, String> {
    let (mut serve, mut join, mut say, mut file) = (None, None, None, None);
    while let Some(name) = args.next() {
        let place = match name.as_str() {
            "--serve" => &mut serve,
            "--join" => &mut join,
            "--say" => &mut say,
            "--file" => &mut file,
            _ => return Err(format!("unknown argument: {name}")),
        };
        *place = Some(args.next().ok_or(format!("{name} needs a value"))?);
    }
    match (serve, join, say, file) {
        (Some(path), None, None, None) => Ok(Task::Serve(path)),
        (None, Some(path), None, None) => Ok(Task::Listen(path)),
        (None, Some(path), Some(text), file) => Ok(Task::Say { path, text, file }),
        (None, Some(_), None, Some(_)) => Err("--file goes with a text: --say".into()),
        _ => Err("either --serve or --join".into()),
    }
}

// ---- the server ---------------------------------------------------------------------------------

/// Those who are here.
type Room = RefCell<Vec<Member>>;

/// Each has a number, so that its own lines do not come back.
struct Member {
    number: u64,
    stream: Rc<UnixStream>,
    task: AbortHandle,
}

async fn serve(path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let _unlink = UnlinkOnDrop::new(path)?;
    println!("READY {path}");
    io::stdout().flush()?;
    let stopped = tamam::signal::shutdown();
    tokio::select! {
        never = accept(&listener) => match never {},
        stopped = stopped => stopped.map(drop),
    }
}

async fn accept(listener: &UnixListener) -> std::convert::Infallible {
    let room = Rc::new(Room::default());
    for number in 1.. {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stream = Rc::new(stream);
                let task = tamam::spawn(member(number, stream.clone(), room.clone()));
                let task = task.abort_handle();
                room.borrow_mut().push(Member { number, stream, task });
            }
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
    unreachable!("there are not so many numbers")
}

/// One client, until it goes.
async fn member(number: u64, stream: Rc<UnixStream>, room: Rc<Room>) {
    if let Err(error) = talk(number, &stream, &room).await {
        eprintln!("client {number}: {error}");
    }
    room.borrow_mut().retain(|member| member.number != number);
}

async fn talk(number: u64, stream: &UnixStream, room: &Room) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    stream.accept_fds(FILES_MAX)?;
    let (mut line, mut files) = (Vec::new(), Vec::new());
    while let Some((chunk, descriptors)) = stream.recv_fds().await? {
        files.extend(descriptors);
        for byte in chunk.iter() {
            line.push(*byte);
            if *byte == b'\n' {
                let head = format!("[{} of {}] ", peer.pid, peer.uid).into_bytes();
                let line = [head, std::mem::take(&mut line)].concat();
                tell_others(number, line, std::mem::take(&mut files), room).await;
            }
        }
        if line.len() > LINE_MAX || files.len() > FILES_MAX {
            return Err(io::Error::other("a line without an end"));
        }
    }
    Ok(())
}

/// Sends a line to everybody else, with the files. Those who do not take it in time are dropped.
async fn tell_others(number: u64, line: Vec<u8>, files: Vec<OwnedFd>, room: &Room) {
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let others: Vec<_> = (room.borrow().iter())
        .filter(|member| member.number != number)
        .map(|member| (member.number, member.stream.clone()))
        .collect();
    let told = others.iter().map(async |(other, stream)| {
        match timeout(SEND_MAX, stream.send_fds(line.clone(), &files)).await {
            Ok(Ok(_)) => None,
            Ok(Err(_)) | Err(_) => Some(*other),
        }
    });
    let gone: Vec<u64> = join_all(told).await.into_iter().flatten().collect();
    room.borrow_mut().retain(|member| {
        let stays = !gone.contains(&member.number);
        if !stays {
            member.task.abort(); // it drops the stream
        }
        stays
    });
}

// ---- a client -----------------------------------------------------------------------------------

async fn say(path: &str, text: &str, file: Option<&str>) -> io::Result<()> {
    let stream = UnixStream::connect(path).await?;
    let line = format!("{text}\n");
    match file {
        Some(name) => {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
            let file = File::open(name).map_err(named)?;
            stream.send_fds(line, &[file.as_fd()]).await?;
        }
        None => drop(stream.send_all(line).await?),
    }
    Ok(())
}

/// Prints what is said, until the server goes.
async fn listen(path: &str) -> io::Result<()> {
    let stream = UnixStream::connect(path).await?;
    stream.accept_fds(FILES_MAX)?;
    println!("READY {path}");
    io::stdout().flush()?;
    while let Some((chunk, files)) = stream.recv_fds().await? {
        stream.unread(chunk);
        let Some(line) = Lines::new(&stream).limit(2 * LINE_MAX).next_line().await? else { break };
        println!("{}", line.escape_debug()); // it may hold anything, and this is a terminal
        for file in files {
            println!("  with a file of {} bytes", File::from(file).metadata()?.len());
        }
        io::stdout().flush()?;
    }
    Ok(())
}
