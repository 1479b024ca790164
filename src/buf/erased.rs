//! A value of any type, whose type is erased. Up to four words it needs no allocation.
//!
//! The send queue of a stream holds buffers of all the types that its callers pass. `Box<dyn Any>`
//! would cost an allocation for each send; `Vec`, `Box`, `Chunk` and `Bytes` fit into four words.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ptr;

type Words = [usize; 4];

/// Any `'static` value: in place, or boxed if it does not fit into four words.
pub(crate) struct Erased {
    words: MaybeUninit<Words>,
    vtable: &'static BufferVtable,
}

struct BufferVtable {
    type_id: fn() -> TypeId,
    drop: unsafe fn(*mut Words),
}

impl BufferVtable {
    #[inline]
    const fn of<T: 'static>() -> &'static BufferVtable {
        const { &BufferVtable { type_id: TypeId::of::<T>, drop: drop_words::<T> } }
    }
}

/// Whether the words hold a `T` itself, not a `Box<T>`.
const fn is_inline<T>() -> bool {
    mem::size_of::<T>() <= mem::size_of::<Words>()
        && mem::align_of::<T>() <= mem::align_of::<Words>()
}

/// Drops the value.
///
/// # Safety
/// `Erased::new` stored a `T` in `words`. The caller does not use that value again.
unsafe fn drop_words<T>(words: *mut Words) {
    // SAFETY: the caller promises what `read_words` asks for.
    drop(unsafe { read_words::<T>(words) });
}

/// Moves the value out.
///
/// # Safety
/// `Erased::new` stored a `T` in `words`. The caller does not use that value again.
unsafe fn read_words<T>(words: *const Words) -> T {
    if is_inline::<T>() {
        // SAFETY: under the same condition `new` wrote a T here, and the caller gives it up.
        unsafe { words.cast::<T>().read() }
    } else {
        // SAFETY: otherwise `new` wrote a Box<T> here, and the caller gives it up.
        *unsafe { words.cast::<Box<T>>().read() }
    }
}

impl Erased {
    /// Stores a value. [`take`](Self::take) gives it back; otherwise it is dropped with this.
    #[inline]
    pub(crate) fn new<T: 'static>(value: T) -> Erased {
        let mut words = MaybeUninit::<Words>::uninit();
        if is_inline::<T>() {
            // SAFETY: `is_inline` says that size and alignment of a T fit the words.
            unsafe { words.as_mut_ptr().cast::<T>().write(value) };
        } else {
            // SAFETY: a Box is one word, so it fits the words.
            unsafe { words.as_mut_ptr().cast::<Box<T>>().write(Box::new(value)) };
        }
        Erased { words, vtable: BufferVtable::of::<T>() }
    }

    /// Whether the value is a `T`.
    pub(crate) fn is<T: 'static>(&self) -> bool {
        (self.vtable.type_id)() == TypeId::of::<T>()
    }

    /// Returns the value. `T` must be the type that was put in, or this panics.
    #[inline]
    pub(crate) fn take<T: 'static>(self) -> T {
        self.check_type::<T>();
        let this = ManuallyDrop::new(self);
        // SAFETY: the type was checked, and `this` is never dropped, so this is the only
        // use of the value.
        unsafe { read_words::<T>(this.words.as_ptr()) }
    }
}

impl Erased {
    /// The value. Panics if it is not a `T`. It stays in place until it is taken or dropped, also
    /// when this moves, as far as pointers into the heap are concerned.
    #[inline]
    pub(crate) fn get<T: 'static>(&self) -> &T {
        self.check_type::<T>();
        let words = self.words.as_ptr();
        if is_inline::<T>() {
            // SAFETY: under the same condition `new` wrote a T here, which is borrowed as `self` is.
            unsafe { &*words.cast::<T>() }
        } else {
            // SAFETY: otherwise `new` wrote a Box<T> here, which is borrowed as `self` is.
            unsafe { &*words.cast::<Box<T>>() }
        }
    }

    /// Panics if the value is not a `T`. Comparing the tables is cheap and nearly always enough. But
    /// the compiler may have made several copies of a table, so the types are compared as well.
    #[inline]
    fn check_type<T: 'static>(&self) {
        assert!(
            ptr::eq(self.vtable, BufferVtable::of::<T>())
                || (self.vtable.type_id)() == TypeId::of::<T>(),
            "an erased value comes back as itself"
        );
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // SAFETY: `new` set the vtable of the type that it stored. The value is still there,
        // because `take` never drops `self`.
        unsafe { (self.vtable.drop)(self.words.as_mut_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_value_comes_back_whole_whatever_its_size() {
        assert_eq!(Erased::new(vec![1u8, 2]).take::<Vec<u8>>(), [1, 2]);
        assert_eq!(Erased::new([7u64; 9]).take::<[u64; 9]>(), [7; 9]);
        Erased::new(()).take::<()>();
    }

    #[test]
    fn it_is_dropped_once_taken_or_not() {
        let small = Rc::new(());
        let large = (Rc::new(()), [0u64; 8]);
        drop(Erased::new(small.clone()));
        drop(Erased::new(large.clone()));
        drop(Erased::new(small.clone()).take::<Rc<()>>());
        drop(Erased::new(large.clone()).take::<(Rc<()>, [u64; 8])>());
        assert_eq!((Rc::strong_count(&small), Rc::strong_count(&large.0)), (1, 1));
    }

    #[test]
    #[should_panic(expected = "comes back as itself")]
    fn another_type_is_refused() {
        Erased::new(1u8).take::<i8>();
    }
}
