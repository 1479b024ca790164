//! A queue whose elements have keys: push, look up, and remove in constant time.
//!
//! An element leaves the line in one of two ways. [`remove`](Line::remove) takes it out. After
//! [`step_out`](Line::step_out) it is no longer in line, but its key still finds it: a finished
//! send waits there until its future collects the answer. Read next: `stream/send_queue/mod.rs`.

use std::mem;

use slab::Slab;

/// The name of one element of a [`Line`]. A key is used again after its element was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

impl Key {
    /// The key of the only element.
    const ONE: Key = Key(0);
}

/// A queue whose elements have keys. Its only element is stored in place, more are on the heap.
pub(crate) enum Line<T> {
    Empty,
    /// One element, with the key [`Key::ONE`].
    One {
        value: T,
        in_line: bool,
    },
    Many(Box<Elements<T>>),
}

pub(crate) struct Elements<T> {
    elements: Slab<Element<T>>,
    front: Option<Key>,
    back: Option<Key>,
}

struct Element<T> {
    value: T,
    in_line: bool,
    before: Option<Key>,
    behind: Option<Key>,
}

impl<T> Default for Line<T> {
    #[inline]
    fn default() -> Line<T> {
        Line::Empty
    }
}

impl<T> Line<T> {
    /// Whether there is no element, in line or out of it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Line::Empty)
    }

    /// Takes the only element out of the line, if `is_wanted` accepts it, and gives it. `None`, and
    /// nothing has changed: it was not accepted, is out of line, or others are or were there with
    /// it. It is for the usual case, and needs no search.
    #[inline]
    pub(crate) fn step_out_if_alone(
        &mut self,
        is_wanted: impl FnOnce(&T) -> bool,
    ) -> Option<&mut T> {
        match self {
            Line::One { value, in_line } if *in_line && is_wanted(value) => {
                *in_line = false;
                Some(value)
            }
            _ => None,
        }
    }

    /// Adds an element at the back of the line. Its key finds it until it is removed.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> Key {
        match self {
            Line::Empty => {
                *self = Line::One { value, in_line: true };
                Key::ONE
            }
            _ => self.push_behind(value),
        }
    }

    /// Pushes a default, which the caller fills in where it stays. Copying a value that was just
    /// written part by part is slow, because the copy waits for all parts.
    #[inline]
    pub(crate) fn push_default(&mut self) -> (Key, &mut T)
    where
        T: Default,
    {
        if let Line::Empty = self {
            *self = Line::One { value: T::default(), in_line: true };
            if let Line::One { value, .. } = self {
                return (Key::ONE, value);
            }
        }
        let key = self.push_behind(T::default());
        (key, self.get_mut(key).expect("it was just pushed"))
    }

    /// As `push`, behind an element that is there.
    #[cold]
    fn push_behind(&mut self, value: T) -> Key {
        let many = self.many();
        let key = Key(u32::try_from(many.elements.vacant_key()).expect("fewer than 2^32 elements"));
        many.elements.insert(Element { value, in_line: true, before: many.back, behind: None });
        match many.back.replace(key) {
            Some(before) => many.element(before).behind = Some(key),
            None => many.front = Some(key),
        }
        key
    }

    /// Makes room for more than one element. The first keeps its key. Panics if the line is empty.
    fn many(&mut self) -> &mut Elements<T> {
        if let Line::One { .. } = self {
            let Line::One { value, in_line } = mem::take(self) else {
                unreachable!("just matched")
            };
            let mut elements = Slab::with_capacity(4);
            let key = elements.insert(Element { value, in_line, before: None, behind: None });
            assert_eq!(key, Key::ONE.0 as usize, "a new slab begins with the first key");
            let end = in_line.then_some(Key::ONE);
            *self = Line::Many(Box::new(Elements { elements, front: end, back: end }));
        }
        match self {
            Line::Many(many) => many,
            Line::Empty | Line::One { .. } => unreachable!("called with an element"),
        }
    }

    /// The element of `key`, in line or out of it; `None` if it was removed.
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self {
            Line::Empty => None,
            Line::One { value, .. } => (key == Key::ONE).then_some(value),
            Line::Many(many) => many.elements.get(key.0 as usize).map(|element| &element.value),
        }
    }

    /// As [`get`](Self::get), to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self {
            Line::Empty => None,
            Line::One { value, .. } => (key == Key::ONE).then_some(value),
            Line::Many(many) => {
                many.elements.get_mut(key.0 as usize).map(|element| &mut element.value)
            }
        }
    }

    /// The key of the first element in line; `None` if none is in line.
    #[inline]
    pub(crate) fn front(&self) -> Option<Key> {
        match self {
            Line::Empty | Line::One { in_line: false, .. } => None,
            Line::One { in_line: true, .. } => Some(Key::ONE),
            Line::Many(many) => many.front,
        }
    }

    /// The key of the element behind `key` in line. `None`: `key` is the last, is out of line, or
    /// was removed.
    #[inline]
    pub(crate) fn behind(&self, key: Key) -> Option<Key> {
        match self {
            Line::Empty | Line::One { .. } => None,
            Line::Many(many) => many.elements.get(key.0 as usize)?.behind,
        }
    }

    /// The elements in line, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut next = self.front();
        std::iter::from_fn(move || {
            let key = next?;
            next = self.behind(key);
            self.get(key)
        })
    }

    /// Takes the element out of the line. It stays until it is removed. No effect if it is out of
    /// line, or was removed.
    #[inline]
    pub(crate) fn step_out(&mut self, key: Key) {
        match self {
            Line::Empty => {}
            Line::One { in_line, .. } => *in_line &= key != Key::ONE,
            Line::Many(many) => many.unlink(key),
        }
    }

    /// Removes the element, in line or out of it, and gives it; `None` if it was removed before.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        match self {
            Line::One { .. } if key == Key::ONE => match mem::take(self) {
                Line::One { value, .. } => Some(value),
                Line::Empty | Line::Many(_) => unreachable!("just matched"),
            },
            Line::Empty | Line::One { .. } => None,
            Line::Many(_) => self.remove_of_many(key),
        }
    }

    #[cold]
    fn remove_of_many(&mut self, key: Key) -> Option<T> {
        let Line::Many(many) = self else { return None };
        many.unlink(key);
        let element = many.elements.try_remove(key.0 as usize)?;
        if many.elements.is_empty() {
            *self = Line::Empty; // frees the memory: most connections need none
        }
        Some(element.value)
    }

    /// As [`remove`](Self::remove), but drops the element where it is.
    #[inline]
    pub(crate) fn drop_element(&mut self, key: Key) {
        match self {
            Line::Empty => {}
            Line::One { .. } if key == Key::ONE => *self = Line::Empty,
            Line::One { .. } => {}
            Line::Many(_) => drop(self.remove_of_many(key)),
        }
    }

    /// Removes the first element in line; `None` if none is in line.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let key = self.front()?;
        self.remove(key)
    }
}

impl<T> Elements<T> {
    /// The element of `key`. Panics if it was removed.
    fn element(&mut self, key: Key) -> &mut Element<T> {
        &mut self.elements[key.0 as usize]
    }

    /// Takes an element out of the line. No effect if it is out of line, or was removed.
    fn unlink(&mut self, key: Key) {
        let Some(element) = self.elements.get_mut(key.0 as usize).filter(|element| element.in_line)
        else {
            return;
        };
        element.in_line = false;
        let (before, behind) = (element.before.take(), element.behind.take());
        match before {
            Some(before) => self.element(before).behind = behind,
            None => self.front = behind,
        }
        match behind {
            Some(behind) => self.element(behind).before = before,
            None => self.back = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn random_steps_agree_with_a_naive_model() {
        for seed in 1..=100 {
            let mut random = Random(seed);
            let mut line = Line::default();
            // Key, value, and whether it is in line: in order of arrival.
            let mut model: Vec<(Key, u32, bool)> = Vec::new();
            for step in 0..300u32 {
                let pick = (!model.is_empty()).then(|| random.below(model.len()));
                match (random.below(5), pick) {
                    (0 | 1, _) => {
                        let key = line.push(step);
                        assert!(model.iter().all(|(other, ..)| *other != key), "seed {seed}");
                        model.push((key, step, true));
                    }
                    (2, Some(at)) => {
                        let (key, value, _) = model.remove(at);
                        assert_eq!(line.remove(key), Some(value), "seed {seed} step {step}");
                        assert!(line.get(key).is_none() && line.remove(key).is_none());
                    }
                    (3, Some(at)) => {
                        line.step_out(model[at].0);
                        model[at].2 = false;
                    }
                    _ => {
                        let first = model.iter().position(|(.., in_line)| *in_line);
                        let first = first.map(|at| model.remove(at).1);
                        assert_eq!(line.pop(), first, "seed {seed} step {step}");
                    }
                }
                for (key, value, _) in &model {
                    assert_eq!(line.get(*key), Some(value), "seed {seed} step {step}");
                }
                let expected: Vec<&u32> = model
                    .iter()
                    .filter(|(.., in_line)| *in_line)
                    .map(|(_, value, _)| value)
                    .collect();
                assert_eq!(line.iter().collect::<Vec<_>>(), expected, "seed {seed} step {step}");
                assert_eq!(line.is_empty(), model.is_empty(), "seed {seed} step {step}");
            }
        }
    }

    #[test]
    fn an_element_that_is_alone_takes_no_heap_memory_again_after_others_came() {
        let mut line = Line::default();
        let first = line.push("a");
        let second = line.push("b");
        assert_eq!((line.remove(first), line.remove(second)), (Some("a"), Some("b")));
        assert!(matches!(line, Line::Empty));
        line.push("c");
        assert!(matches!(line, Line::One { value: "c", in_line: true }));
    }
}
