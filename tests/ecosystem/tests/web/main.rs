//! The examples of the web as programs, on both engines, and programs that are nobody's of ours at the
//! other end: curl, wrk, h2load, openssl, Python. What is not installed here is skipped, with a word.

#[path = "../../../common/mod.rs"]
mod common;

mod server;
mod http_client;
mod ws_client;
mod ws_server;

use std::process::Command;

use common::example::{self, serve};
use common::peer::{Folder, Peer};

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
