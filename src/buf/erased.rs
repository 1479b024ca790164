//! A value whose type is forgotten, in place: no allocation up to four words.
//!
//! A stream's queue holds buffers of whatever type its callers hand in. `Box<dyn Any>` would do,
//! at an allocation for each send; `Vec`, `Box`, `Chunk` and `Bytes` fit in here.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ptr;

type Words = [usize; 4];

/// Any `'static` value, in place or, when it is larger than four words, boxed.
pub(crate) struct Erased {
    words: MaybeUninit<Words>,
    vtable: &'static Vtable,
}

struct Vtable {
    type_id: fn() -> TypeId,
    drop: unsafe fn(*mut Words),
}

impl Vtable {
    #[inline]
    const fn of<T: 'static>() -> &'static Vtable {
        const { &Vtable { type_id: TypeId::of::<T>, drop: drop_words::<T> } }
    }
}

/// Whether a `T` is held in the words themselves.
const fn is_inline<T>() -> bool {
    mem::size_of::<T>() <= mem::size_of::<Words>()
        && mem::align_of::<T>() <= mem::align_of::<Words>()
}

/// # Safety
/// `words` holds a `T`, put there by `Erased::new`, that is not used again.
unsafe fn drop_words<T>(words: *mut Words) {
    // SAFETY: the caller's promise.
    drop(unsafe { read_words::<T>(words) });
}

/// # Safety
/// `words` holds a `T`, put there by `Erased::new`, that is not used again.
unsafe fn read_words<T>(words: *const Words) -> T {
    if is_inline::<T>() {
        // SAFETY: `new` wrote a T here under the same condition.
        unsafe { words.cast::<T>().read() }
    } else {
        // SAFETY: `new` wrote a Box<T> here under the same condition.
        *unsafe { words.cast::<Box<T>>().read() }
    }
}

impl Erased {
    #[inline]
    pub(crate) fn new<T: 'static>(value: T) -> Erased {
        let mut words = MaybeUninit::<Words>::uninit();
        if is_inline::<T>() {
            // SAFETY: size and alignment were just checked.
            unsafe { words.as_mut_ptr().cast::<T>().write(value) };
        } else {
            // SAFETY: a Box is one word.
            unsafe { words.as_mut_ptr().cast::<Box<T>>().write(Box::new(value)) };
        }
        Erased { words, vtable: Vtable::of::<T>() }
    }

    /// The value again. Asking for another type than was put in is a broken invariant.
    #[inline]
    pub(crate) fn take<T: 'static>(self) -> T {
        // Most often it is the very table; there may be copies of it.
        assert!(
            ptr::eq(self.vtable, Vtable::of::<T>()) || (self.vtable.type_id)() == TypeId::of::<T>(),
            "an erased value comes back as itself"
        );
        let this = ManuallyDrop::new(self);
        // SAFETY: the type was just checked; `this` is not dropped, so the value is read once.
        unsafe { read_words::<T>(this.words.as_ptr()) }
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // SAFETY: `vtable.drop` belongs to the type that `new` wrote; `take` forgets `self`.
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
