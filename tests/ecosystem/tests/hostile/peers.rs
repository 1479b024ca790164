//! Peers that misbehave, on plain threads: what they speak over, how they stop in the middle, frames and
//! keys.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tamam::tls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use tamam::tls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use tamam::tls::{self};

use crate::common;
use crate::common::peer::Folder;

/// Longer than any limit that the examples are given here. Who holds a connection lets go of it then.
const HELD: Duration = Duration::from_secs(30);
/// Between the bytes of who drips.
const DRIP: Duration = Duration::from_millis(100);

/// What a hostile peer does with its connection.
pub type Act = fn(&mut Wire) -> io::Result<()>;

/// A connection, with TLS or without, at the hostile end.
pub struct Wire {
    layer: Layer,
    /// Told once it stops in the middle, so that the other end waits from now on.
    reached: mpsc::Sender<()>,
    /// For who speaks TLS by hand.
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

enum Layer {
    Plain(TcpStream),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn new(tcp: TcpStream, keys: &Keys, reached: mpsc::Sender<()>) -> io::Result<Wire> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(HELD))?;
        tcp.set_write_timeout(Some(HELD))?;
        let (server, client) = (keys.good.clone(), keys.client.clone());
        Ok(Wire { layer: Layer::Plain(tcp), reached, server, client })
    }

    pub fn tcp(&self) -> &TcpStream {
        match &self.layer {
            Layer::Plain(tcp) => tcp,
            Layer::Server(tls) => &tls.sock,
            Layer::Client(tls) => &tls.sock,
        }
    }

    /// Does the server's part of a TLS handshake.
    fn secured(self, config: Arc<ServerConfig>) -> io::Result<Wire> {
        let Layer::Plain(mut tcp) = self.layer else { panic!("it is secure already") };
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Wire { layer: Layer::Server(Box::new(StreamOwned::new(tls, tcp))), ..self })
    }

    /// Does the client's part.
    pub fn secure(&mut self) -> io::Result<()> {
        let mut tcp = self.tcp().try_clone()?;
        let mut tls = self.hello();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        self.layer = Layer::Client(Box::new(StreamOwned::new(tls, tcp)));
        Ok(())
    }

    /// A client that has not said anything yet.
    pub fn hello(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(self.client.clone(), name).expect("a config that fits")
    }

    /// What a server says first, when it has heard the client's hello.
    pub fn flight(&mut self) -> io::Result<Vec<u8>> {
        let mut tls = ServerConnection::new(self.server.clone()).map_err(io::Error::other)?;
        let (mut tcp, mut flight) = (self.tcp(), Vec::new());
        while !tls.wants_write() {
            tls.read_tls(&mut tcp)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        Ok(flight)
    }

    /// Neither sends nor reads from now on, but keeps the connection.
    pub fn hold(&mut self) -> io::Result<()> {
        self.here();
        thread::sleep(HELD);
        Ok(())
    }

    /// The other end waits from now on.
    pub fn here(&mut self) {
        let _ = self.reached.send(()); // not every test waits for it
    }

    /// Makes its end, which is to follow, a reset.
    pub fn reset(&mut self) -> io::Result<()> {
        common::reset(self.tcp().try_clone()?);
        Ok(())
    }

    /// A byte, and a while later the next.
    pub fn drip(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.here();
        for byte in bytes {
            self.write_all(&[*byte])?;
            self.flush()?;
            thread::sleep(DRIP);
        }
        Ok(())
    }

    /// The same, for as long as somebody takes it.
    pub fn flood(&mut self, bytes: &[u8]) -> io::Result<()> {
        let many = bytes.repeat(64 * 1024 / bytes.len() + 1);
        self.here();
        loop {
            self.write_all(&many)?;
        }
    }

    /// Everything up to an empty line.
    pub fn head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.write_all(text.as_bytes())?;
        self.flush()
    }

    /// Reads until the other end has said all.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.here();
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// The server's part of a WebSocket's opening.
    pub fn upgrade(&mut self) -> io::Result<()> {
        let answer = switch(&self.head()?);
        self.say(&answer)
    }

    /// The client's part.
    pub fn ask_upgrade(&mut self) -> io::Result<()> {
        self.say(UPGRADE)?;
        self.head().map(|_| ())
    }

    pub fn frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.write_all(&frame(first, payload))?;
        self.flush()
    }

    pub fn masked(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.write_all(&masked(first, payload))?;
        self.flush()
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain(tcp) => tcp.read(buf),
            Layer::Server(tls) => tls.read(buf),
            Layer::Client(tls) => tls.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain(tcp) => tcp.write(buf),
            Layer::Server(tls) => tls.write(buf),
            Layer::Client(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain(tcp) => tcp.flush(),
            Layer::Server(tls) => tls.flush(),
            Layer::Client(tls) => tls.flush(),
        }
    }
}

/// What asks for a WebSocket.
pub const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The answer to such a request.
pub fn switch(request: &str) -> String {
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A frame as a server sends it. `first`: 0x81 is text, 0x88 a close, 0x89 a ping.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(len as u8),
        len => {
            bytes.push(126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// As a client sends it, with a mask that changes nothing.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(first, payload);
    let at = bytes.len() - payload.len();
    bytes[1] |= 0x80;
    bytes.splice(at..at, [0; 4]);
    bytes
}

/// Whom a hostile server pretends to be.
#[derive(Clone, Copy)]
pub enum Cert {
    Good,
    WrongName,
    Expired,
    Untrusted,
}

/// What there is at an address.
#[derive(Clone, Copy)]
pub enum Place {
    /// Nobody listens.
    Nobody,
    /// Somebody listens, and never accepts.
    Backlog,
    Plain,
    /// TLS is expected here, and what comes is made by hand.
    Raw,
    Tls(Cert),
}

impl Place {
    pub fn is_secure(self) -> bool {
        matches!(self, Place::Raw | Place::Tls(_))
    }

    /// Whether connections are accepted, and counted.
    pub fn is_served(self) -> bool {
        !matches!(self, Place::Nobody | Place::Backlog)
    }
}

/// A hostile server. It listens until the process ends.
pub struct Server {
    pub addr: SocketAddr,
    pub reached: mpsc::Receiver<()>,
    pub connections: Arc<AtomicUsize>,
    _backlog: Option<TcpListener>,
}

impl Server {
    pub fn start(place: Place, act: Act, keys: &Arc<Keys>) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let addr = listener.local_addr().expect("bound");
        let (told, reached) = mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let config = match place {
            Place::Nobody => return Server { addr, reached, connections, _backlog: None },
            Place::Backlog => {
                return Server { addr, reached, connections, _backlog: Some(listener) };
            }
            Place::Plain | Place::Raw => None,
            Place::Tls(cert) => Some(keys.config(cert)),
        };
        let (keys, count) = (keys.clone(), connections.clone());
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let (keys, told, config) = (keys.clone(), told.clone(), config.clone());
                thread::spawn(move || {
                    let mut wire = Wire::new(tcp, &keys, told)?;
                    if let Some(config) = config {
                        wire = wire.secured(config)?;
                    }
                    act(&mut wire)
                });
            }
        });
        Server { addr, reached, connections, _backlog: None }
    }
}

/// A hostile client on a thread of its own: its address, and when it has stopped in the middle.
pub fn attack(to: SocketAddr, act: Act, keys: &Arc<Keys>) -> (SocketAddr, mpsc::Receiver<()>) {
    let (told, reached) = mpsc::channel();
    let tcp = TcpStream::connect(to).expect("it listens");
    let addr = tcp.local_addr().expect("connected");
    let mut wire = Wire::new(tcp, keys, told).expect("a socket");
    thread::spawn(move || act(&mut wire));
    (addr, reached)
}

/// A client that behaves.
pub fn visit(to: SocketAddr, keys: &Arc<Keys>) -> Wire {
    let tcp = TcpStream::connect(to).expect("it listens");
    Wire::new(tcp, keys, mpsc::channel().0).expect("a socket")
}

/// Certificates for `localhost`, good ones and bad ones, and who trusts all but one of them.
pub struct Keys {
    folder: Folder,
    good: Arc<ServerConfig>,
    wrong_name: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    untrusted: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Keys {
    pub fn new(name: &str) -> Arc<Keys> {
        let folder = Folder::new(name);
        let make = |name: &str, is_over: bool| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
            if is_over {
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            (params.self_signed(&key).expect("signed"), key)
        };
        let (good, good_key) = make("localhost", false);
        let (wrong_name, wrong_key) = make("elsewhere.test", false);
        let (expired, expired_key) = make("localhost", true);
        let (untrusted, untrusted_key) = make("localhost", false);
        folder.write("ca.pem", [&good, &wrong_name, &expired].map(|it| it.pem()).concat());
        folder.write("good.pem", good.pem());
        folder.write("good.key", good_key.serialize_pem());
        let config = |cert: &CertificateDer<'static>, key: &KeyPair| {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            Arc::new(tls::server_config(vec![cert.clone()], key).expect("they fit"))
        };
        let mut roots = RootCertStore::empty();
        roots.add(good.der().clone()).expect("a certificate");
        Arc::new(Keys {
            good: config(good.der(), &good_key),
            wrong_name: config(wrong_name.der(), &wrong_key),
            expired: config(expired.der(), &expired_key),
            untrusted: config(untrusted.der(), &untrusted_key),
            client: Arc::new(tls::client_config(roots).expect("a config")),
            folder,
        })
    }

    fn config(&self, cert: Cert) -> Arc<ServerConfig> {
        match cert {
            Cert::Good => &self.good,
            Cert::WrongName => &self.wrong_name,
            Cert::Expired => &self.expired,
            Cert::Untrusted => &self.untrusted,
        }
        .clone()
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> String {
        self.folder.file(name)
    }
}
