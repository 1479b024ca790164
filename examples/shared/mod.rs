//! What several examples need: when to stop, whom to ask and to trust, and text that is safe to print.
#![allow(dead_code, reason = "each example uses its part of it")]

use std::error::Error;
use std::io;

use async_tungstenite::tungstenite::http::Uri;
use tamam::signal::{SignalKind, signal};
use tamam::tls::{self, rustls::ClientConfig};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first Ctrl-C or SIGTERM: it asks for a proper end. The second ends the process at
/// once, whatever it waits for.
pub fn stop() -> io::Result<CancellationToken> {
    let (mut interrupts, mut requests) =
        (signal(SignalKind::INTERRUPT)?, signal(SignalKind::TERMINATE)?);
    let stop = CancellationToken::new();
    let first = stop.clone();
    tamam::spawn(async move {
        loop {
            tokio::select! {
                () = interrupts.recv() => {}
                () = requests.recv() => {}
            }
            if first.is_cancelled() {
                std::process::exit(130);
            }
            first.cancel();
        }
    });
    Ok(stop)
}

/// The server of a URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Site {
    pub is_secure: bool,
    /// Without the brackets that an IPv6 address has in a URL.
    pub host: String,
    pub port: u16,
}

impl Site {
    /// `plain` and `secure` are the schemes that are known, such as `http` and `https`.
    pub fn of(url: &str, plain: &str, secure: &str) -> Result<(Site, Uri), String> {
        let shown = printable(url);
        let uri: Uri = url.parse().map_err(|error| format!("{shown}: {error}"))?;
        let is_secure = match uri.scheme_str() {
            Some(scheme) if scheme == plain => false,
            Some(scheme) if scheme == secure => true,
            _ => return Err(format!("{shown}: neither {plain}:// nor {secure}://")),
        };
        let (Some(host), Some(authority)) =
            (uri.host().filter(|it| !it.is_empty()), uri.authority())
        else {
            return Err(format!("{shown}: whose URL?"));
        };
        let place = authority.as_str();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let port = match place[host.len()..].trim_start_matches(':') {
            "" => [80, 443][usize::from(is_secure)],
            text => match text.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(format!("{shown}: port {text} is none")),
            },
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok((Site { is_secure, host, port }, uri))
    }
}

/// Trust in one certificate, or in what the system trusts. Make it once: reading it takes a while.
pub fn client_config(ca: Option<&str>) -> io::Result<ClientConfig> {
    let roots = match ca {
        Some(path) => {
            let mut roots = tls::rustls::RootCertStore::empty();
            for cert in tls::load_certs(path)? {
                roots.add(cert).map_err(io::Error::other)?;
            }
            roots
        }
        None => tls::native_roots()?,
    };
    tls::client_config(roots)
}

/// What a peer sends may move the cursor, or turn letters around: such characters as JSON writes them.
pub fn printable(text: &str) -> String {
    let is_harmful = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(letter, '\u{2066}'..='\u{2069}')
    };
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_harmful(letter) {
            true => safe += &format!("\\u{:04x}", letter as u32),
            false => safe.push(letter),
        }
    }
    safe
}

/// An error and its causes on one line, each said once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
        next = error.source();
    }
    printable(&text)
}
