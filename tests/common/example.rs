//! The examples as processes: built by cargo beside the tests, run as a user runs them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::peer::Peer;

/// An example, to be run.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(path(name));
    command.stdin(Stdio::null());
    command
}

/// Whether an example of another package is there; if not, the test says so and goes on without.
pub fn is_built(name: &str) -> bool {
    let is_there = place(name).is_file();
    if !is_there {
        println!("skipped: needs the example {name}: `cargo test --workspace` makes it");
    }
    is_there
}

/// `target/debug/examples/NAME`, beside this test's `target/debug/deps`.
fn place(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a binary");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("it is in a target folder");
    profile.join("examples").join(name)
}

fn path(name: &str) -> PathBuf {
    let path = place(name);
    assert!(
        path.is_file(),
        "{path:?} is missing; `cargo test --workspace` or `cargo build --workspace --examples` makes it"
    );
    path
}

/// The echo server in a process of its own, until it is dropped.
pub struct Echo {
    child: Child,
    pub addr: SocketAddr,
}

impl Echo {
    /// Starts it on a free port, and waits until it is ready.
    pub fn start(args: &[&str]) -> Echo {
        Echo::start_with(args, &[])
    }

    /// As `start`, with these variables in its environment.
    pub fn start_with(args: &[&str], env: &[(&str, &str)]) -> Echo {
        // Somebody else may take the port between our look and the server's bind.
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
            let addr = free.local_addr().expect("bound");
            drop(free);
            let mut child = command("echo")
                .args(["--port", &addr.port().to_string()])
                .args(args)
                .envs(env.iter().copied())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the example can be run");
            let mut line = String::new();
            let stdout = child.stdout.take().expect("it is piped");
            BufReader::new(stdout).read_line(&mut line).expect("it prints text");
            let server = Echo { child, addr };
            if line == "READY\n" {
                return server;
            }
        }
        panic!("the echo server does not start");
    }

    /// How many descriptors the server has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("the server lives").count()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It serves until it is killed; if it has ended before, there is nobody to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example that serves, on a port that it chooses: `--port 0`. It is ready, and this is the rest
/// of the line that said so.
pub fn serve(name: &str, args: &[&str], engine: &str) -> (Peer, String) {
    let mut command = command(name);
    command.args(["--port", "0"]).args(args).env("TAMAM_BACKEND", engine);
    let peer = Peer::start(&mut command);
    let line = peer.wait_for("READY");
    (peer, line.trim().to_owned())
}
