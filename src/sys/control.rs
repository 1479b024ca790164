//! Control data of messages, cmsg(3): what a datagram says beside its bytes and its address.
//!
//! It is put together and taken apart as bytes, so there is no unsafe code. Read next:
//! `datagram.rs`.

use std::mem;

/// How many bytes of control data a message that is sent may have: a source address, ECN in the
/// words of both families, and a segment size.
const LEN_MAX: usize = 128;

/// The length of the header of one entry.
const HEADER_LEN: usize = mem::size_of::<libc::cmsghdr>();

/// The control data of one message, in the form that sendmsg(2) takes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl Control {
    pub(crate) const EMPTY: Control = Control { bytes: [0; LEN_MAX], len: 0 };

    /// Adds an entry. Panics if there is no room left.
    pub(crate) fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let mut at = self.len;
        let entry_len = HEADER_LEN + data.len();
        for part in [&entry_len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data]
        {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len += padded(entry_len);
        assert!(self.len <= LEN_MAX, "there is room for all that a message can say");
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The length of an entry with the padding before the next one.
fn padded(len: usize) -> usize {
    len.next_multiple_of(mem::align_of::<usize>())
}

/// The entries of received control data: level, kind and data of each. It ends early at an entry
/// that is cut off.
pub(crate) fn entries(
    mut control: &[u8],
) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = control.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let len = usize::from_ne_bytes(*len);
        let data = control.get(HEADER_LEN..len)?;
        control = control.get(padded(len)..).unwrap_or_default();
        Some((libc::c_int::from_ne_bytes(*level), libc::c_int::from_ne_bytes(*kind), data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_taken_apart() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[3]);
        control.push(4, 5, &[6; 20]);
        let bytes = control.as_bytes();
        let found: Vec<_> = entries(bytes).collect();
        assert_eq!(found, [(1, 2, &[3][..]), (4, 5, &[6; 20][..])]);
        for cut in 0..bytes.len() {
            let whole = entries(&bytes[..cut]).count();
            assert!(whole <= 2, "an entry that is cut off is none");
        }
        let mut endless = bytes.to_vec();
        endless[..8].fill(0); // an entry of no length
        assert_eq!(entries(&endless).count(), 0);
        endless[..8].fill(0xff);
        assert_eq!(entries(&endless).count(), 0);
    }
}
