//! One call of rustls' unbuffered API: its answer, and what follows from it.
//!
//! These are functions of their arguments and have no state. `protocol.rs` decides when they are
//! called, and with which ciphertext. No other file names the states of a connection of rustls.
//! Read next: `protocol.rs`.

use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};

/// How much plaintext rustls puts into one record by default.
pub(super) const FRAGMENT_LEN: usize = 16 * 1024;

/// How many bytes a record adds to its plaintext with today's cipher suites. Where it is more,
/// rustls says so.
const USUAL_OVERHEAD: usize = 32;

/// What is done when rustls is ready to encrypt.
pub(super) enum Task<'a> {
    /// Nothing. Only the ciphertext that has arrived is processed.
    Receive,
    Encrypt(&'a [u8]),
    Close,
    /// The keys are changed.
    Refresh,
}

/// Where plaintext goes.
pub(super) enum Sink<'a> {
    Vec(&'a mut Vec<u8>),
    /// Nowhere yet. Its place is in the slice that rustls still borrows, so rustls keeps it.
    Later,
    /// To the start of a slice. The number says how many bytes were put there.
    Slice(&'a mut [u8], usize),
}

impl Sink<'_> {
    /// Appends plaintext. `Err` if a slice has no room for it. Panics for [`Sink::Later`].
    fn put(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        match self {
            Sink::Vec(vec) => vec.extend_from_slice(bytes),
            Sink::Slice(slice, len) => {
                let Some(room) = slice.get_mut(*len..*len + bytes.len()) else {
                    return Err(unknown("a record is longer than its ciphertext"));
                };
                room.copy_from_slice(bytes);
                *len += bytes.len();
            }
            Sink::Later => unreachable!("`handle_status` stops before it takes a record"),
        }
        Ok(())
    }
}

/// The result of one call of rustls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something was done; there may be more.
    Again,
    /// Rustls has kept plaintext, because of [`Sink::Later`].
    Plain,
    PeerClosed,
    /// More ciphertext is needed.
    Blocked,
    /// The task is done.
    Done,
}

/// Handles one answer of rustls: plaintext goes to `sink`, and ciphertext for the peer behind what
/// `out` has. The `task` is done if rustls is ready to encrypt. It is generic over `Data`, so that
/// clients and servers share it. Gives how many bytes of ciphertext are processed, and the result.
pub(super) fn handle_status<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    task: &mut Task<'_>,
    sink: &mut Sink<'_>,
    out: &mut Vec<u8>,
) -> (usize, Result<Progress, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(_)) if matches!(sink, Sink::Later) => Ok(Progress::Plain),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Progress::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    if let Err(error) = sink.put(record.payload) {
                        break Err(error);
                    }
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(encoding)) => encode_into(encoding, out),
        Ok(ConnectionState::TransmitTlsData(transmission)) => {
            transmission.done(); // the bytes are in `out`, which is sent in order
            Ok(Progress::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Progress::PeerClosed),
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Progress::Blocked),
        Ok(ConnectionState::WriteTraffic(traffic)) => perform(traffic, task, out),
        Ok(_) => Err(unknown("rustls is in a state that is not known here")),
    };
    // Rustls must still have the plaintext that it kept.
    match (&step, &*sink) {
        (Ok(step), Sink::Slice(_, 0)) if *step != Progress::Plain => {
            (discard, Err(unknown("rustls has lost a record")))
        }
        _ => (discard, step),
    }
}

/// Does the task, since rustls is ready to encrypt. [`Progress::Blocked`]: the task is to receive,
/// and there is nothing to do.
fn perform<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    task: &mut Task<'_>,
    out: &mut Vec<u8>,
) -> Result<Progress, rustls::Error> {
    match task {
        Task::Receive => Ok(Progress::Blocked),
        Task::Encrypt(bytes) => {
            let guess = bytes.len() + (bytes.len() / FRAGMENT_LEN + 1) * USUAL_OVERHEAD;
            append(out, guess, |room| traffic.encrypt(bytes, room))?;
            Ok(Progress::Done)
        }
        Task::Close => {
            append(out, USUAL_OVERHEAD, |room| traffic.queue_close_notify(room))?;
            Ok(Progress::Done)
        }
        Task::Refresh => traffic.refresh_traffic_keys().map(|()| Progress::Done),
    }
}

/// Appends to `out` what `fill` writes. The first room is a guess; if it is too small, rustls says
/// how much it needs. After an error, `out` is as before.
fn append(
    out: &mut Vec<u8>,
    guess: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    let mut room = guess;
    loop {
        out.resize(start + room, 0);
        let result = fill(&mut out[start..]);
        out.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(_) => return Ok(()),
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(error) => return Err(unknown(&error.to_string())),
        }
    }
}

/// Appends to `out` what rustls has ready for the peer: a handshake message, an alert. `Ok` is
/// always [`Progress::Again`].
fn encode_into<Data>(
    mut encoding: EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<Progress, rustls::Error> {
    // Without any room, rustls says how much it needs.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        encoding.encode(&mut [])
    else {
        return Ok(Progress::Again);
    };
    let start = out.len();
    out.resize(start + required_size, 0);
    let result = encoding.encode(&mut out[start..]);
    out.truncate(start + *result.as_ref().unwrap_or(&0));
    match result {
        Ok(_) => Ok(Progress::Again),
        Err(error) => Err(unknown(&error.to_string())),
    }
}

/// After a failure, takes the alert for the peer and nothing else. True: there may be more to take.
pub(super) fn encode_remaining<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
) -> bool {
    match status.state {
        Ok(ConnectionState::EncodeTlsData(encoding)) => encode_into(encoding, out).is_ok(),
        _ => false,
    }
}

/// An error of rustls' interface that is not to be expected here.
fn unknown(text: &str) -> rustls::Error {
    rustls::Error::General(text.to_owned())
}
