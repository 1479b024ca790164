//! `IoBuf` and `IoBufMut` for the buffers of std, and for `bytes`.
#![allow(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;

use super::{IoBuf, IoBufMut};

/// Implements `IoBuf` for types that dereference to a slice which stays in place when the value is
/// moved.
macro_rules! by_slice {
    ($($(#[$attr:meta])* $type:ty => $slice:expr;)*) => {$(
        $(#[$attr])*
        // SAFETY: the bytes are static or on the heap, and the value keeps them alive, so they stay
        // where they are when it moves. Pointer and length are those of one slice of initialised
        // bytes, and bytes that are shared cannot be
        // changed.
        unsafe impl IoBuf for $type {
            #[inline]
            fn ptr(&self) -> *const u8 {
                let slice: fn(&Self) -> &[u8] = $slice;
                slice(self).as_ptr()
            }

            #[inline]
            fn len(&self) -> usize {
                let slice: fn(&Self) -> &[u8] = $slice;
                slice(self).len()
            }
        }
    )*};
}

by_slice! {
    Vec<u8> => |b| b;
    Box<[u8]> => |b| b;
    String => |b| b.as_bytes();
    &'static [u8] => |b| b;
    &'static str => |b| b.as_bytes();
    Rc<[u8]> => |b| b;
    Arc<[u8]> => |b| b;
    Box<str> => |b| b.as_bytes();
    Rc<str> => |b| b.as_bytes();
    Arc<str> => |b| b.as_bytes();
    Rc<Vec<u8>> => |b| b;
    Arc<Vec<u8>> => |b| b;
    super::Chunk => |b| b;
    #[cfg(feature = "bytes")]
    bytes::Bytes => |b| b;
}

// SAFETY: the array is static, so it never moves and never changes, and it has N bytes.
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len(&self) -> usize {
        N
    }
}

// SAFETY: a Vec owns its block on the heap, which has `capacity` bytes and stays where it is when
// the Vec moves. `set_len` does not allocate.
unsafe impl IoBufMut for Vec<u8> {
    #[inline]
    fn ptr_mut(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity()
    }

    #[inline]
    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: the caller promises the same as `Vec::set_len` demands.
        unsafe { self.set_len(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(buf: &impl IoBuf) -> Vec<u8> {
        // SAFETY: the contract of `IoBuf`.
        unsafe { std::slice::from_raw_parts(buf.ptr(), buf.len()) }.to_vec()
    }

    #[test]
    fn every_buffer_shows_its_bytes_and_keeps_them_in_place_when_it_moves() {
        fn check(buf: impl IoBuf) {
            let before = buf.ptr();
            let moved = Box::new(buf);
            assert_eq!(moved.ptr(), before);
            assert_eq!(bytes_of(&*moved), b"tamam");
            assert!(!moved.is_empty());
        }
        check(b"tamam".to_vec());
        check(b"tamam".to_vec().into_boxed_slice());
        check(String::from("tamam"));
        check("tamam");
        check(b"tamam");
        check(&b"tamam"[..]);
        check(Rc::<[u8]>::from(&b"tamam"[..]));
        check(Arc::<[u8]>::from(&b"tamam"[..]));
        check(Box::<str>::from("tamam"));
        check(Rc::<str>::from("tamam"));
        check(Arc::<str>::from("tamam"));
        check(Rc::new(b"tamam".to_vec()));
        check(Arc::new(b"tamam".to_vec()));
        #[cfg(feature = "bytes")]
        check(bytes::Bytes::from_static(b"tamam"));
    }
}
