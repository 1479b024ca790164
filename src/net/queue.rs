//! A first-in-first-out queue whose first element is in place.
//!
//! Most streams have one segment parked or one send queued at a time; ten thousand of them should
//! not hold ten thousand heap blocks for that.

use std::collections::VecDeque;

pub(crate) struct Queue<T> {
    first: Option<T>,
    /// What comes behind the first: one word for all those who have nothing there.
    #[expect(clippy::box_collection, reason = "absent from most of ten thousand connections")]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { first: None, rest: None }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => _ = self.push_behind(value),
        }
    }

    /// Pushes a default, to be filled in where it stays: a value that was just made part by part is
    /// slow to copy, since the copy waits for all of the parts to be written.
    #[inline]
    pub(crate) fn push_default(&mut self) -> &mut T
    where
        T: Default,
    {
        match self.first {
            None => self.first.insert(T::default()),
            Some(_) => self.push_behind(T::default()),
        }
    }

    #[cold]
    fn push_behind(&mut self, value: T) -> &mut T {
        let rest = self.rest.get_or_insert_default();
        rest.push_back(value);
        rest.back_mut().expect("just pushed")
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

    /// Drops the first element, which exists, where it is.
    #[inline]
    pub(crate) fn drop_first(&mut self) {
        self.first = None;
        if self.rest.is_some() {
            self.move_up();
        }
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    /// The first element, if there is no other: the common case, without a search.
    #[inline]
    pub(crate) fn only_mut(&mut self) -> Option<&mut T> {
        if self.rest.is_none() { self.first.as_mut() } else { None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| rest.iter_mut()))
    }

    /// Puts a value in at `index`, at most the length.
    pub(crate) fn insert(&mut self, index: usize, value: T) {
        match index.checked_sub(1) {
            None => self.push_front(value),
            Some(index) => self.rest.get_or_insert_default().insert(index, value),
        }
    }

    /// Takes out the element at `index`, which exists.
    pub(crate) fn remove(&mut self, index: usize) -> T {
        let removed = match index.checked_sub(1) {
            None => self.pop(),
            Some(index) => self.rest.as_mut().and_then(|rest| rest.remove(index)),
        };
        self.drop_empty_rest();
        removed.expect("the index is in the queue")
    }

    /// Takes out what `unwanted` picks, in order.
    pub(crate) fn extract(&mut self, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        if !self.iter().any(&mut unwanted) {
            return Vec::new();
        }
        let (out, stay): (_, Vec<T>) =
            std::mem::take(self).into_iter().partition(|value| unwanted(value));
        stay.into_iter().for_each(|value| self.push(value));
        out
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest.into_iter().flat_map(|rest| *rest))
    }

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
        let mut queue = Queue::default();
        for n in 0..5 {
            queue.push(n);
        }
        queue.push_front(9);
        queue.insert(6, 7);
        assert_eq!(queue.remove(6), 7);
        assert_eq!(queue.remove(2), 1);
        assert_eq!(queue.extract(|n| n % 2 == 1), [9, 3]);
        assert_eq!((queue.front(), queue.iter().count()), (Some(&0), 3));
        assert_eq!(
            (queue.remove(0), queue.pop(), queue.pop(), queue.pop()),
            (0, Some(2), Some(4), None)
        );
        assert!(queue.is_empty());
    }
}
