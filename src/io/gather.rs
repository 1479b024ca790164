//! Bytes up to a mark: the end, a delimiter, a line. Read next: `held.rs`.

use std::io;

use super::held::Held;
use super::receive::Receive;
use crate::buf::Chunk;

/// The longest line of [`Lines`], unless [`Lines::limit`] says otherwise.
const LINE_MAX: usize = 1 << 20;

/// All bytes up to the end, at most `limit`.
///
/// # Errors
/// `FileTooLarge` if there are more than `limit` bytes; those of the source. In both cases what came
/// is the source's again.
/// # Cancel safety
/// Cancel safe: dropped, what came is the source's again, first in line; forgotten, it is lost.
/// # Examples
/// ```
/// use tamam::io::read_to_end;
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let (sender, receiver) = UnixStream::pair()?;
/// sender.send_all("hello").await?;
/// drop(sender);
/// assert_eq!(read_to_end(&receiver, 1 << 20).await?, b"hello");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn read_to_end<S: Receive + ?Sized>(source: &S, limit: usize) -> io::Result<Vec<u8>> {
    let mut held = Held::new(source);
    while held.more().await?.is_some() {
        if held.len() > limit {
            return Err(too_large("the peer sends", limit));
        }
    }
    let len = held.len();
    Ok(joined(&held.take(len)))
}

/// All bytes up to the first `delimiter`, which is among them, at most `limit`. At the end of the
/// stream: what came after the last one, or nothing.
///
/// # Errors
/// `FileTooLarge` if there is no delimiter among the first `limit` bytes; those of the source. In
/// both cases what came is the source's again.
/// # Cancel safety
/// Cancel safe: dropped, what came is the source's again, first in line; forgotten, it is lost.
/// # Examples
/// ```
/// use tamam::io::read_until;
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let (sender, receiver) = UnixStream::pair()?;
/// sender.send_all("key=value").await?;
/// drop(sender);
/// assert_eq!(read_until(&receiver, b'=', 100).await?, b"key=");
/// assert_eq!(read_until(&receiver, b'=', 100).await?, b"value");
/// assert_eq!(read_until(&receiver, b'=', 100).await?, b"");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn read_until<S: Receive + ?Sized>(
    source: &S,
    delimiter: u8,
    limit: usize,
) -> io::Result<Vec<u8>> {
    let mut held = Held::new(source);
    loop {
        let before = held.len();
        let Some(chunk) = held.more().await? else {
            return Ok(joined(&held.take(before)));
        };
        if let Some(at) = chunk.iter().position(|byte| *byte == delimiter) {
            let end = before + at + 1;
            return match end > limit {
                true => Err(too_large("up to the delimiter there are", limit)),
                false => Ok(joined(&held.take(end))),
            };
        }
        if held.len() >= limit {
            return Err(too_large("up to the delimiter there are", limit));
        }
    }
}

fn joined(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.iter().map(|chunk| chunk.len()).sum());
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes
}

fn too_large(what: &str, limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{what} more than {limit} bytes"))
}

/// The lines of a source, as text without their ends (`\n` or `\r\n`).
///
/// # Examples
/// ```
/// use tamam::io::Lines;
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let (sender, receiver) = UnixStream::pair()?;
/// sender.send_all("one\ntwo\r\nthree").await?;
/// drop(sender);
/// let mut lines = Lines::new(&receiver);
/// let mut all = Vec::new();
/// while let Some(line) = lines.next_line().await? {
///     all.push(line);
/// }
/// assert_eq!(all, ["one", "two", "three"]);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Lines<S> {
    source: S,
    limit: usize,
}

impl<S: Receive> Lines<S> {
    /// The lines of `source`: a stream, or a reference to one. A line has at most 1 MiB.
    pub fn new(source: S) -> Lines<S> {
        Lines { source, limit: LINE_MAX }
    }

    /// How many bytes a line may have, its end included.
    pub fn limit(mut self, bytes: usize) -> Lines<S> {
        self.limit = bytes;
        self
    }

    /// The next line. `None`: the peer has finished. The last line may have no end.
    ///
    /// # Errors
    /// `FileTooLarge` if the line is longer than the limit; it is the source's again. `InvalidData`
    /// if it is not UTF-8; the next call gives the line after it. Those of the source.
    /// # Cancel safety
    /// Cancel safe: dropped, what came of the line is the source's again, first in line; forgotten, it
    /// is lost.
    pub async fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = read_until(&self.source, b'\n', self.limit).await?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        match String::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => {
                let text = format!("a line is not UTF-8: {}", error.utf8_error());
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    /// The source. Nothing of it is kept here.
    pub fn into_inner(self) -> S {
        self.source
    }
}
