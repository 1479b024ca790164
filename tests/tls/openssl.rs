//! The first words with a stranger: openssl as a client and as a server.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::{TlsAcceptor, TlsConnector};

use crate::common::PATIENCE;
use crate::common::peer::Folder;
use crate::keys::{KEYS, NAME};
use crate::{client_config, common, receive_all, server_config};

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is an openssl to talk to.
fn has_openssl() -> bool {
    let found =
        Command::new("openssl").arg("version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: there is no openssl on the PATH");
    }
    found
}

fn openssl(folder: &Folder, args: &[&str]) -> Running {
    let child = Command::new("openssl")
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Running(child.expect("it is there"))
}

#[test]
fn openssl_is_served() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new("s_client");
    folder.write("root.pem", &KEYS.root_pem);
    common::with_both(Runtime::builder(), || async {
        for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports");
            let addr = listener.local_addr().expect("bound").to_string();
            let args = [
                "s_client",
                "-connect",
                &addr,
                option,
                "-CAfile",
                "root.pem",
                "-servername",
                NAME,
                "-verify_hostname",
                NAME,
                "-verify_return_error",
                "-alpn",
                "tamam",
            ];
            let mut client = openssl(&folder, &args);
            let mut config = server_config(version);
            config.alpn_protocols = vec![b"tamam".to_vec()];
            let (tcp, _) = listener.accept().await.expect("it connects");
            let stream = TlsAcceptor::from(config).accept(tcp).await.expect("it speaks TLS");
            assert_eq!(stream.info().version(), version.version);
            assert_eq!(stream.info().alpn(), Some(&b"tamam"[..]));
            assert_eq!(stream.info().server_name(), Some(NAME));
            let mut input = client.0.stdin.take().expect("piped");
            input.write_all(b"one\n").expect("it reads");
            let line = stream.read_exact(Vec::with_capacity(4), 4).await.expect("a line");
            assert_eq!(line, b"one\n");
            // A line of its own that asks for new keys, in both directions.
            if option == "-tls1_3" {
                input.write_all(b"K\n").expect("it reads");
                sleep(Duration::from_millis(200)).await;
            }
            input.write_all(b"two\n").expect("it reads");
            let line = stream.read_exact(Vec::with_capacity(4), 4).await.expect("a line");
            assert_eq!(line, b"two\n");
            let mut big = common::pattern(200_000);
            big.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
            big.extend(b"\nthe last line\n");
            let output = client.0.stdout.take().expect("piped");
            let reading = std::thread::spawn(move || {
                let mut text = Vec::new();
                BufReader::new(output).read_to_end(&mut text).map(|_| text)
            });
            let sent = big.clone();
            stream.send_all(sent).await.expect("it reads");
            stream.shutdown().await.expect("it is there");
            let text = common::join(reading).await.expect("it is read");
            drop(input); // without which it would have left early
            let found = text.windows(big.len()).any(|window| window == &big[..]);
            assert!(found, "all of it arrives, in one piece");
            // It ends with a word too.
            assert!(receive_all(&stream).await.expect("a clean end").is_empty());
        }
    });
}

#[test]
fn openssl_serves() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new("s_server");
    folder.write("cert.pem", KEYS.server.certificate_pem);
    folder.write("key.pem", KEYS.server.key_pem);
    common::with_both(Runtime::builder(), || async {
        for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
            let addr = StdListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .expect("loopback has ports");
            let text = addr.to_string();
            // Turns each line around.
            let args = [
                "s_server", "-accept", &text, option, "-cert", "cert.pem", "-key", "key.pem",
                "-rev",
            ];
            let _server = openssl(&folder, &args);
            let connector = TlsConnector::from(client_config(version));
            for round in 0..2 {
                let tcp = timeout(*PATIENCE, async {
                    loop {
                        match TcpStream::connect(addr).await {
                            Ok(tcp) => break tcp,
                            Err(_) => sleep(Duration::from_millis(10)).await,
                        }
                    }
                });
                let tcp = tcp.await.expect("it listens some day");
                let stream = connector.connect(NAME, tcp).await.expect("it speaks TLS");
                assert_eq!(stream.info().version(), version.version);
                assert_eq!(stream.info().is_resumed(), round > 0);
                for word in ["one", "three"] {
                    let turned: String = word.chars().rev().collect();
                    stream.send_all(format!("{word}\n")).await.expect("it reads");
                    let len = word.len() + 1;
                    let line = stream.read_exact(Vec::with_capacity(len), len).await;
                    assert_eq!(line.expect("a line"), format!("{turned}\n").into_bytes());
                }
                stream.shutdown().await.expect("it is there");
            }
        }
    });
}
