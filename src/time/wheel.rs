//! The timer wheel: which wakers are due at a given time, and when the next one will be.
//!
//! It knows no clock: `now` is an argument. It wakes no waker: it hands out those that are due, and
//! the caller wakes them when it holds no borrow (invariant 3). Times are nanoseconds since the
//! runtime started; `u64::MAX` means never. Read next: `timers.rs`, then `sleep.rs`.
//!
//! # How it works
//! A time is read as 8 digits of 6 bits above a remainder of 16 bits (65 us). Level 7 stands for
//! the highest digit, level 0 for the lowest. A timer is filed at the level of the highest digit in
//! which its deadline differs from the *cursor*, in the slot that this digit of the deadline names.
//! From this follows:
//!
//! - at a level, only slots after the cursor's own digit are in use (at level 0 that one too),
//! - every timer at a level is due before every timer at the levels above it, and
//! - the earliest slot is found by two `trailing_zeros`, with no wrap-around to think of.
//!
//! Only `expire` moves the cursor, and only when something may be due. It empties every slot that
//! begins at or before `now`. Timers of those slots that are not due yet are filed again, at a
//! lower level. A timer is filed at most once per level, so this costs O(1) per timer in its life.
//!
//! A slot tells roughly when a timer is due, its entry exactly. Each slot keeps a lower bound of its
//! deadlines, exact until its nearest timer is removed. So `next_deadline` is a deadline and not the
//! edge of a slot: a lone `sleep(10 s)` wakes the thread once. Do not search for the new minimum in
//! `remove`: one wake-up for nothing is cheaper than a scan for each cancelled timeout.

use std::task::Waker;

use slab::Slab;

/// A deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Level 0 does not tell times apart that differ by less than this: 2^16 ns, about 65 us.
const GRAIN_BITS: u32 = 16;
const DIGIT_BITS: u32 = 6;
const DIGITS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 8;
/// The slot of timers for [`NEVER`]. It has no bit in `occupied`, so `expire` does not see it.
const NEVER_SLOT: usize = LEVELS * DIGITS;

const _: () = assert!(GRAIN_BITS + DIGIT_BITS * LEVELS as u32 == u64::BITS);

/// Hierarchical timer wheel with exact deadlines.
pub(crate) struct Wheel {
    /// All timers. Their number is bounded by that of the futures: each has at most one.
    entries: Slab<WheelTimer>,
    /// `level * DIGITS + digit`, then [`NEVER_SLOT`].
    slots: [WheelSlot; NEVER_SLOT + 1],
    /// A bit per slot that is not empty, a word per level.
    occupied: [u64; LEVELS],
    /// A bit per level that is not empty.
    levels: u8,
    /// Deadlines are filed relative to this. Never goes back, never ahead of the latest `now`.
    cursor: u64,
    /// The bound of the earliest slot, or [`NEVER`]: nothing is due before it.
    soonest: u64,
    next_seq: u64,
    /// Used by `expire` only: deadline, seq and index of what is due. Kept for its capacity.
    due: Vec<(u64, u64, u32)>,
}

/// Names one timer. A key whose timer is gone never matches a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    seq: u64,
}

struct WheelTimer {
    deadline: u64,
    /// The order of registration. It also makes the key unique.
    seq: u64,
    waker: Waker,
    prev: Option<u32>,
    next: Option<u32>,
    slot: u16,
}

#[derive(Clone, Copy)]
struct WheelSlot {
    head: Option<u32>,
    /// No deadline in the list is earlier. Meaningless while the list is empty.
    bound: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Wheel {
            entries: Slab::new(),
            slots: [WheelSlot { head: None, bound: NEVER }; NEVER_SLOT + 1],
            occupied: [0; LEVELS],
            levels: 0,
            cursor: 0,
            soonest: NEVER,
            next_seq: 0,
            due: Vec::new(),
        }
    }

    /// Registers `waker` for `deadline`. A deadline in the past is due in the next `expire`.
    pub(crate) fn insert(&mut self, deadline: u64, waker: Waker) -> TimerKey {
        let seq = self.next_seq;
        self.next_seq += 1;
        let index = u32::try_from(self.entries.vacant_key()).expect("timers are fewer than 2^32");
        let (slot, next) = self.push(index, deadline);
        self.entries.insert(WheelTimer { deadline, seq, waker, prev: None, next, slot });
        self.soonest = self.soonest.min(deadline);
        TimerKey { index, seq }
    }

    /// Whether the timer would wake the same task as `waker`; `None` if it fired or was removed.
    pub(crate) fn will_wake(&self, key: TimerKey, waker: &Waker) -> Option<bool> {
        self.entry(key).map(|entry| entry.waker.will_wake(waker))
    }

    /// Gives the timer another waker. Returns the waker that is no longer needed, for the caller to
    /// drop: the old one, or `waker` itself if the timer fired or was removed.
    pub(crate) fn replace(&mut self, key: TimerKey, waker: Waker) -> Waker {
        match self.entries.get_mut(key.index as usize) {
            Some(entry) if entry.seq == key.seq => std::mem::replace(&mut entry.waker, waker),
            _ => waker,
        }
    }

    /// Unregisters a timer and returns its waker; `None` if it fired or was removed.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.entry(key)?;
        let entry = self.entries.remove(key.index as usize);
        self.unlink(&entry);
        self.soonest = self.first_bound();
        Some(entry.waker)
    }

    /// Whether the timer has neither fired nor been removed.
    pub(crate) fn is_pending(&self, key: TimerKey) -> bool {
        self.entry(key).is_some()
    }

    /// Takes out every timer with a deadline at or before `now` and appends its waker to `woken`,
    /// in order of deadline, then of registration.
    pub(crate) fn expire(&mut self, now: u64, woken: &mut Vec<Waker>) {
        if now < self.soonest {
            return;
        }
        // A `now` before the cursor must not move it back: filed timers are relative to it.
        let reached = now.max(self.cursor);
        let mut later = None; // timers to file again: a list, linked by `next`
        while let Some(slot) = self.first_slot() {
            if self.begin(slot) > reached {
                break;
            }
            let mut rest = self.take(slot);
            while let Some(index) = rest {
                let entry = &mut self.entries[index as usize];
                rest = entry.next;
                if entry.deadline <= now {
                    self.due.push((entry.deadline, entry.seq, index));
                } else {
                    entry.next = later.replace(index);
                }
            }
        }
        // Slots still in use begin after `reached`: their timers are filed rightly for it as well.
        self.cursor = reached;
        while let Some(index) = later {
            later = self.entries[index as usize].next;
            self.relink(index);
        }
        self.soonest = self.first_bound();

        self.due.sort_unstable();
        woken.reserve(self.due.len());
        for (_, _, index) in self.due.drain(..) {
            woken.push(self.entries.remove(index as usize).waker);
        }
        self.due.shrink_to(1024); // a burst's memory is given back
    }

    /// When `expire` has to be called next; `None` if no timer will ever be due.
    ///
    /// This is the nearest deadline, or an earlier time if a nearer timer in its slot was removed.
    /// An `expire` at that earlier time finds nothing due, and makes this exact.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        (self.soonest != NEVER).then_some(self.soonest)
    }

    /// How many timers there are, those that never fire included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out every timer, and returns the wakers. Their keys stay stale.
    pub(crate) fn clear(&mut self) -> Vec<Waker> {
        let wakers = self.entries.drain().map(|entry| entry.waker).collect();
        self.slots = [WheelSlot { head: None, bound: NEVER }; NEVER_SLOT + 1];
        self.occupied = [0; LEVELS];
        self.levels = 0;
        self.soonest = NEVER;
        wakers
    }

    fn entry(&self, key: TimerKey) -> Option<&WheelTimer> {
        self.entries.get(key.index as usize).filter(|entry| entry.seq == key.seq)
    }

    /// The slot of a deadline, relative to the cursor. The past is in the cursor's own slot.
    fn slot_for(&self, deadline: u64) -> usize {
        if deadline == NEVER {
            return NEVER_SLOT;
        }
        let time = deadline.max(self.cursor);
        let differs = (time ^ self.cursor) >> GRAIN_BITS;
        let level = ((differs | 1).ilog2() / DIGIT_BITS) as usize;
        level * DIGITS + (time >> shift(level)) as usize % DIGITS
    }

    /// The earliest time that is filed in `slot`, relative to the cursor.
    fn begin(&self, slot: usize) -> u64 {
        let (level, digit) = (slot / DIGITS, slot % DIGITS);
        let above = (self.cursor >> shift(level)) & !(DIGITS as u64 - 1);
        (above | digit as u64) << shift(level)
    }

    /// The earliest slot in use; `None`: no timer will ever be due.
    fn first_slot(&self) -> Option<usize> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        Some(level * DIGITS + self.occupied[level].trailing_zeros() as usize)
    }

    fn first_bound(&self) -> u64 {
        self.first_slot().map_or(NEVER, |slot| self.slots[slot].bound)
    }

    /// Makes `index` the head of its slot's list. Returns the slot, and the previous head.
    fn push(&mut self, index: u32, deadline: u64) -> (u16, Option<u32>) {
        let at = self.slot_for(deadline);
        let slot = &mut self.slots[at];
        let next = slot.head.replace(index);
        match next {
            Some(next) => {
                slot.bound = slot.bound.min(deadline);
                self.entries[next as usize].prev = Some(index);
            }
            None => {
                slot.bound = deadline;
                if at != NEVER_SLOT {
                    self.occupied[at / DIGITS] |= 1 << (at % DIGITS);
                    self.levels |= 1 << (at / DIGITS);
                }
            }
        }
        (at as u16, next)
    }

    /// Files a timer that is in no list.
    fn relink(&mut self, index: u32) {
        let (slot, next) = self.push(index, self.entries[index as usize].deadline);
        let entry = &mut self.entries[index as usize];
        (entry.slot, entry.prev, entry.next) = (slot, None, next);
    }

    /// Closes the gap that `entry`, already out of the slab, leaves in its list.
    fn unlink(&mut self, entry: &WheelTimer) {
        if let Some(next) = entry.next {
            self.entries[next as usize].prev = entry.prev;
        }
        match entry.prev {
            Some(prev) => self.entries[prev as usize].next = entry.next,
            None => self.slots[entry.slot as usize].head = entry.next,
        }
        if entry.prev.is_none() && entry.next.is_none() {
            self.vacate(entry.slot as usize);
        }
    }

    /// Empties a slot and returns the head of its list.
    fn take(&mut self, slot: usize) -> Option<u32> {
        self.vacate(slot);
        self.slots[slot].head.take()
    }

    fn vacate(&mut self, slot: usize) {
        if slot == NEVER_SLOT {
            return;
        }
        let level = slot / DIGITS;
        self.occupied[level] &= !(1 << (slot % DIGITS));
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
    }
}

/// The lowest bit of a level's digit in a time.
fn shift(level: usize) -> u32 {
    GRAIN_BITS + DIGIT_BITS * level as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker};

    use super::{DIGITS, LEVELS, NEVER, NEVER_SLOT, TimerKey, Wheel};

    type Log = Arc<Mutex<Vec<u64>>>;

    /// A waker that writes down its number.
    struct Note(u64, Log);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn note(number: u64, log: &Log) -> Waker {
        Arc::new(Note(number, log.clone())).into()
    }

    /// Expires at `now` and returns the numbers, in order.
    fn fire(wheel: &mut Wheel, now: u64, log: &Log) -> Vec<u64> {
        let mut woken = Vec::new();
        wheel.expire(now, &mut woken);
        woken.into_iter().for_each(Waker::wake);
        std::mem::take(&mut log.lock().unwrap())
    }

    /// Lists, links, bounds, slots and bits agree.
    fn check(wheel: &Wheel) {
        let mut listed = 0;
        for (at, slot) in wheel.slots.iter().enumerate() {
            let (mut prev, mut next) = (None, slot.head);
            while let Some(index) = next {
                let entry = &wheel.entries[index as usize];
                assert_eq!((entry.prev, entry.slot as usize), (prev, at));
                assert_eq!(wheel.slot_for(entry.deadline), at);
                assert!(slot.bound <= entry.deadline);
                (prev, next) = (next, entry.next);
                listed += 1;
            }
            if at != NEVER_SLOT {
                let (level, digit) = (at / DIGITS, at % DIGITS);
                assert_eq!(wheel.occupied[level] >> digit & 1 == 1, slot.head.is_some());
            }
        }
        for level in 0..LEVELS {
            assert_eq!(wheel.levels >> level & 1 == 1, wheel.occupied[level] != 0);
        }
        assert_eq!(listed, wheel.len());
        assert_eq!(wheel.soonest, wheel.first_bound());
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        /// Of any magnitude up to `2^bits`.
        fn span(&mut self, bits: u64) -> u64 {
            let bits = self.below(bits + 1);
            self.next() & ((1 << bits) - 1)
        }
    }

    struct PrintSeed(u64);

    impl Drop for PrintSeed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with seed {:#x}", self.0);
            }
        }
    }

    #[derive(Default)]
    struct Model {
        /// By deadline and registration.
        pending: BTreeMap<(u64, u64), TimerKey>,
        gone: Vec<TimerKey>,
    }

    impl Model {
        fn nearest(&self) -> Option<u64> {
            self.pending.keys().next().map(|&(deadline, _)| deadline).filter(|&d| d != NEVER)
        }

        fn expire(&mut self, now: u64) -> Vec<u64> {
            let mut numbers = Vec::new();
            while let Some(first) = self.pending.first_entry() {
                let (deadline, number) = *first.key();
                if deadline > now || deadline == NEVER {
                    break;
                }
                numbers.push(number);
                self.gone.push(first.remove());
            }
            numbers
        }
    }

    /// Random steps; `removals` off demands that `next_deadline` is exact at every step.
    fn compare(seed: u64, steps: u64, removals: bool) {
        let _seed = PrintSeed(seed);
        let mut random = Random(seed);
        let (log, mut wheel, mut model) = (Log::default(), Wheel::new(), Model::default());
        let mut now = random.span(60);
        // Dense seeds crowd a few slots, the others spread over all levels.
        let bits = [14, 20, 34, 56][random.below(4) as usize];
        for step in 0..steps {
            match random.below(10) {
                0..=3 => {
                    let deadline = match random.below(20) {
                        0 => NEVER,
                        1 => NEVER - 1 - random.span(20),
                        2 | 3 => now.saturating_sub(random.span(bits)),
                        4 | 5 => model.nearest().unwrap_or(now), // the same deadline again
                        _ => now.saturating_add(random.span(bits)),
                    };
                    let key = wheel.insert(deadline, note(step, &log));
                    model.pending.insert((deadline, step), key);
                }
                4 | 5 if removals && !model.pending.is_empty() => {
                    let nth = random.below(model.pending.len() as u64) as usize;
                    let nth = if random.below(2) == 0 { 0 } else { nth };
                    let id = *model.pending.keys().nth(nth).unwrap();
                    let key = model.pending.remove(&id).unwrap();
                    assert!(wheel.is_pending(key));
                    wheel.remove(key).expect("pending").wake();
                    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), [id.1]);
                    model.gone.push(key);
                }
                6 if !model.gone.is_empty() => {
                    let nth = random.below(model.gone.len() as u64) as usize;
                    let key = model.gone[nth];
                    assert!(!wheel.is_pending(key) && wheel.remove(key).is_none());
                    assert_eq!(wheel.will_wake(key, Waker::noop()), None);
                    let back = wheel.replace(key, note(step, &log));
                    back.wake();
                    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), [step]);
                }
                7 if random.below(200) == 0 => {
                    assert_eq!(wheel.clear().len(), model.pending.len());
                    model.gone.extend(std::mem::take(&mut model.pending).into_values());
                }
                8 => {
                    // To the next deadline, as the runtime does, or just short of it.
                    if let Some(next) = wheel.next_deadline() {
                        now = now.max(next - random.below(2).min(next));
                    }
                    assert_eq!(fire(&mut wheel, now, &log), model.expire(now));
                }
                _ => {
                    now = now.saturating_add(random.span(bits)).min(NEVER - 1);
                    assert_eq!(fire(&mut wheel, now, &log), model.expire(now));
                    assert!(wheel.next_deadline().is_none_or(|next| next > now));
                }
            }
            assert_eq!(wheel.len(), model.pending.len());
            match (wheel.next_deadline(), model.nearest()) {
                (Some(bound), Some(nearest)) if removals => assert!(bound <= nearest),
                (bound, nearest) => assert_eq!(bound, nearest),
            }
            if step % 16 == 0 {
                check(&wheel);
            }
        }
        assert_eq!(fire(&mut wheel, NEVER, &log), model.expire(NEVER));
        assert_eq!(wheel.next_deadline(), None);
        check(&wheel);
    }

    #[test]
    fn agrees_with_a_map() {
        let (seeds, steps) = if cfg!(miri) { (4, 200) } else { (200, 1500) };
        for seed in (1..=seeds).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            compare(seed, steps, true);
            compare(seed, steps, false);
        }
    }

    #[test]
    fn same_deadline_fires_in_order_of_registration() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let deadline = 3 << 40;
        for number in 0..100 {
            wheel.insert(deadline, note(number, &log));
            if number % 10 == 0 {
                // Cascades what is there, so that old and new come by different ways.
                wheel.insert(deadline - (1 << 36) + (number << 20), note(1000, &log));
                let now = wheel.next_deadline().unwrap();
                assert_eq!(fire(&mut wheel, now, &log), [1000]);
            }
        }
        assert_eq!(fire(&mut wheel, deadline - 1, &log), []);
        assert_eq!(fire(&mut wheel, deadline, &log), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn never_is_never() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let first = wheel.insert(NEVER, note(0, &log));
        let second = wheel.insert(NEVER, note(1, &log));
        assert_eq!((wheel.next_deadline(), wheel.len()), (None, 2));
        assert_eq!(fire(&mut wheel, NEVER, &log), []);
        assert!(wheel.is_pending(first) && wheel.remove(first).is_some());
        check(&wheel);
        assert!(wheel.remove(first).is_none() && wheel.is_pending(second));
        assert_eq!(wheel.clear().len(), 1);
    }

    #[test]
    fn past_deadline_fires_in_the_next_expire() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let now = 5 << 50;
        wheel.insert(now - 7, note(0, &log));
        assert_eq!(fire(&mut wheel, now, &log), [0]);
        wheel.insert(now, note(1, &log));
        wheel.insert(0, note(2, &log));
        assert_eq!(wheel.next_deadline(), Some(0));
        assert_eq!(fire(&mut wheel, now, &log), [2, 1]);
    }

    #[test]
    fn a_clock_that_steps_back_fires_nothing_early() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let now = 3 << 40;
        wheel.insert(now, note(0, &log));
        wheel.insert(now + (100 << 16), note(1, &log));
        assert_eq!(fire(&mut wheel, now, &log), [0]);
        wheel.insert(now - 5, note(2, &log));
        wheel.insert(now - 20, note(3, &log));
        assert_eq!(fire(&mut wheel, now - 10, &log), [3]);
        check(&wheel);
        assert_eq!(fire(&mut wheel, now - 5, &log), [2]);
        assert_eq!(wheel.next_deadline(), Some(now + (100 << 16)));
    }

    #[test]
    fn stale_key_never_matches_a_later_timer() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let old = wheel.insert(10, note(0, &log));
        assert!(wheel.remove(old).is_some());
        let new = wheel.insert(10, note(1, &log));
        assert_eq!(old.index, new.index);
        assert!(!wheel.is_pending(old) && wheel.remove(old).is_none());
        assert!(wheel.is_pending(new));
    }

    #[test]
    fn sleeps_across_years_without_a_stop() {
        const YEAR: u64 = 365 * 86_400 * 1_000_000_000;
        let (log, mut wheel) = (Log::default(), Wheel::new());
        for years in 1..=500 {
            wheel.insert(years * YEAR + years, note(years, &log));
        }
        for years in 1..=400 {
            assert_eq!(wheel.next_deadline(), Some(years * YEAR + years));
            assert_eq!(fire(&mut wheel, years * YEAR + years - 1, &log), []);
            assert_eq!(fire(&mut wheel, years * YEAR + years, &log), [years]);
        }
        assert_eq!(fire(&mut wheel, 501 * YEAR, &log), (401..=500).collect::<Vec<_>>());
    }

    #[test]
    fn removed_nearest_costs_one_wake_up_at_most() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let base = 1 << 40;
        let near = wheel.insert(base + 5, note(0, &log));
        wheel.insert(base + (1 << 33), note(1, &log));
        assert!(wheel.remove(near).is_some());
        assert_eq!(wheel.next_deadline(), Some(base + 5));
        assert_eq!(fire(&mut wheel, base + 5, &log), []);
        assert_eq!(wheel.next_deadline(), Some(base + (1 << 33)));
    }

    #[test]
    fn replace_returns_what_is_not_needed() {
        let (log, mut wheel) = (Log::default(), Wheel::new());
        let (one, two) = (note(1, &log), note(2, &log));
        let key = wheel.insert(10, one.clone());
        assert_eq!(wheel.will_wake(key, &one), Some(true));
        assert_eq!(wheel.will_wake(key, &two), Some(false));
        assert!(wheel.replace(key, two).will_wake(&one));
        assert_eq!(fire(&mut wheel, 10, &log), [2]);
    }
}
