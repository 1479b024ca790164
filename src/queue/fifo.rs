//! A first-in-first-out queue that stores its first element in place.
//!
//! Most streams have at most one unread segment. In place, ten thousand of them need no heap
//! blocks. Elements cannot be found by a key here: `line.rs` has those. Read that next.

use std::collections::VecDeque;

pub(crate) struct Fifo<T> {
    first: Option<T>,
    /// All elements behind the first. Absent, it takes one word.
    #[expect(clippy::box_collection, reason = "absent from most of ten thousand connections")]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Fifo<T> {
        Fifo { first: None, rest: None }
    }
}

impl<T> Fifo<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.push_behind(value),
        }
    }

    #[cold]
    fn push_behind(&mut self, value: T) {
        self.rest.get_or_insert_default().push_back(value);
    }

    pub(crate) fn push_front(&mut self, value: T) {
        if let Some(second) = self.first.replace(value) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.first.take();
        if self.rest.is_some() {
            self.move_up();
        }
        first
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Puts a value in at position `index`, counted from the front; those behind it move back. The
    /// caller makes sure that `index` is at most the length.
    pub(crate) fn insert(&mut self, index: usize, value: T) {
        match index.checked_sub(1) {
            None => self.push_front(value),
            Some(_) if self.is_empty() => panic!("the index is in the queue, or next to its end"),
            Some(index) => self.rest.get_or_insert_default().insert(index, value),
        }
    }

    /// Removes the element at position `index`, counted from the front; those behind it move up.
    /// Panics if there is none.
    pub(crate) fn remove(&mut self, index: usize) -> T {
        let removed = match index.checked_sub(1) {
            None => self.pop(),
            Some(index) => self.rest.as_mut().and_then(|rest| rest.remove(index)),
        };
        self.drop_empty_rest();
        removed.expect("the index is in the queue")
    }

    /// Makes the second element the first.
    #[cold]
    fn move_up(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        self.drop_empty_rest();
    }

    fn drop_empty_rest(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue() {
        let mut queue = Fifo::default();
        for n in 0..5 {
            queue.push(n);
        }
        queue.push_front(9);
        queue.insert(6, 7);
        assert_eq!(queue.remove(6), 7);
        assert_eq!(queue.remove(2), 1);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [9, 0, 2, 3, 4]);
        assert_eq!((queue.remove(0), queue.front()), (9, Some(&0)));
        for n in [0, 2, 3, 4] {
            assert_eq!(queue.pop(), Some(n));
        }
        assert!(queue.is_empty());
    }
}
