//! The op table: one slot for each op in flight, named by a token with a generation.
//!
//! ```text
//!          1 insert               2 complete, more: stays        3 complete, last: slot leaves
//! (vacant) ────────► in flight ────────────────────────► … ──────────────────────────► (vacant)
//!                      │ 4 ask_cancel   5 keep: the question is withdrawn
//!                      │ 6 cancel_sent: from now on only the terminal completion counts
//! ```
//!
//! There is no state for an op whose future is gone: ops belong to objects from the start. A slot
//! leaves with the terminal completion only; an answer for a token that is not here is our bug.
//!
//! No descriptor, no ring, no unsafe. Read next: `mod.rs`.

use slab::Slab;
use std::rc::Rc;

use super::op::{Owner, Payload, Role, Token};

pub(super) struct Slot {
    pub(super) owner: Rc<dyn Owner>,
    pub(super) payload: Payload,
    generation: u32,
    pub(super) role: Role,
    cancel: Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    /// Asked for; goes out at the end of the poll pass unless it is withdrawn.
    Asked,
    /// Asked for by an object that is going: the driver does not sleep before the answer.
    Owed,
    /// In the kernel, or on its way in the submission queue.
    Sent {
        owed: bool,
    },
}

pub(super) struct Table {
    slots: Slab<Slot>,
    next_generation: u32,
    /// How many slots are in a state that the driver does not sleep over.
    owed: usize,
}

/// What a completion found.
pub(super) enum Found {
    /// The op goes on: its owner, and which of its ops it is.
    More(Rc<dyn Owner>, Role),
    /// The op has ended: the slot is vacant again.
    Last(Slot),
    /// Nobody has this token.
    Stray,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { slots: Slab::new(), next_generation: 0, owed: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Ops that are to end before the driver sleeps.
    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    /// 1: an op that is about to be pushed.
    pub(super) fn insert(&mut self, owner: Rc<dyn Owner>, role: Role, payload: Payload) -> Token {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let slot = Slot { owner, payload, generation, role, cancel: Cancel::No };
        let index = u32::try_from(self.slots.insert(slot)).expect("fewer than 2^32 ops in flight");
        // The two highest indexes are user_data of the driver's own submissions.
        assert!(index < u32::MAX - 1, "fewer than 2^32 ops in flight");
        Token { index, generation }
    }

    fn live(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.index as usize).filter(|slot| slot.generation == token.generation)
    }

    /// 2 and 3: the kernel answered.
    pub(super) fn complete(&mut self, token: Token, more: bool) -> Found {
        let Some(slot) = self.live(token) else { return Found::Stray };
        if more {
            return Found::More(slot.owner.clone(), slot.role);
        }
        if matches!(slot.cancel, Cancel::Owed | Cancel::Sent { owed: true }) {
            self.owed -= 1;
        }
        Found::Last(self.slots.remove(token.index as usize))
    }

    /// 4: the op shall end. `owed`: before the driver sleeps. True if a cancel is to be sent that
    /// was not already on the list.
    pub(super) fn ask_cancel(&mut self, token: Token, owed: bool) -> bool {
        let Some(slot) = self.live(token) else { return false };
        let was = slot.cancel;
        let was_owed = matches!(was, Cancel::Owed | Cancel::Sent { owed: true });
        slot.cancel = match was {
            Cancel::Sent { .. } => Cancel::Sent { owed: owed || was_owed },
            _ if owed || was_owed => Cancel::Owed,
            _ => Cancel::Asked,
        };
        if owed && !was_owed {
            self.owed += 1;
        }
        was == Cancel::No
    }

    /// 5: somebody wants the op after all. False if the cancel is out already.
    pub(super) fn keep(&mut self, token: Token) -> bool {
        match self.live(token) {
            Some(slot) if matches!(slot.cancel, Cancel::Sent { .. } | Cancel::Owed) => false,
            Some(slot) => {
                slot.cancel = Cancel::No;
                true
            }
            None => false,
        }
    }

    /// 6: whether the cancel is still to be sent; it counts as sent from now on.
    pub(super) fn cancel_sent(&mut self, token: Token) -> bool {
        let Some(slot) = self.live(token) else { return false };
        let owed = match slot.cancel {
            Cancel::No | Cancel::Sent { .. } => return false,
            Cancel::Asked => false,
            Cancel::Owed => true,
        };
        slot.cancel = Cancel::Sent { owed };
        true
    }

    /// Whether the op is in flight.
    pub(super) fn is_live(&mut self, token: Token) -> bool {
        self.live(token).is_some()
    }

    /// Every token in flight.
    pub(super) fn tokens(&self) -> Vec<Token> {
        self.slots
            .iter()
            .map(|(index, slot)| Token { index: index as u32, generation: slot.generation })
            .collect()
    }

    /// Takes everything out: only for a ring that has failed.
    pub(super) fn take_all(&mut self) -> Vec<Slot> {
        self.owed = 0;
        self.slots.drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::Completion;
    use super::*;
    use std::collections::HashMap;
    use std::task::Waker;

    struct Nobody;

    impl Owner for Nobody {
        fn complete(self: Rc<Self>, _: Role, _: Completion, _: Payload, _: &mut Vec<Waker>) {}
    }

    /// A small generator of pseudo-random numbers (xorshift64*), so that a seed repeats a run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
        }
    }

    /// What the table must agree with: tokens by name, nothing shared between slots.
    #[derive(Default)]
    struct Model {
        live: HashMap<u64, (bool, bool, bool)>, // asked, owed, sent
        gone: Vec<Token>,
    }

    #[test]
    fn random_steps_agree_with_a_naive_model() {
        for seed in 1..=200u64 {
            let mut random = Random(seed);
            let (mut table, mut model) = (Table::new(), Model::default());
            for step in 0..500 {
                let pick = |random: &mut Random, table: &Table| {
                    let tokens = table.tokens();
                    (!tokens.is_empty()).then(|| tokens[random.below(tokens.len())])
                };
                match random.below(7) {
                    0 | 1 => {
                        let token = table.insert(Rc::new(Nobody), Role::Recv, Payload::None);
                        let fresh = model.live.insert(token.to_user_data(), Default::default());
                        assert!(fresh.is_none(), "seed {seed} step {step}: token reused");
                    }
                    2 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let more = random.below(2) == 0;
                            let found = table.complete(token, more);
                            assert!(matches!(
                                (&found, more),
                                (Found::More(..), true) | (Found::Last(_), false)
                            ));
                            if !more {
                                model.live.remove(&token.to_user_data());
                                model.gone.push(token);
                            }
                        }
                    }
                    3 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let owed = random.below(2) == 0;
                            let fresh = table.ask_cancel(token, owed);
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            assert_eq!(fresh, !entry.0 && !entry.2, "seed {seed} step {step}");
                            entry.0 |= !entry.2;
                            entry.1 |= owed;
                        }
                    }
                    4 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            let may = !entry.1 && !entry.2;
                            assert_eq!(table.keep(token), may, "seed {seed} step {step}");
                            entry.0 &= !may;
                        }
                    }
                    5 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            assert_eq!(
                                table.cancel_sent(token),
                                entry.0,
                                "seed {seed} step {step}"
                            );
                            entry.2 |= entry.0;
                            entry.0 = false;
                        }
                    }
                    _ => {
                        if let Some(&token) = model.gone.last() {
                            assert!(matches!(table.complete(token, false), Found::Stray));
                            assert!(!table.ask_cancel(token, true) && !table.keep(token));
                            assert!(!table.cancel_sent(token) && !table.is_live(token));
                        }
                    }
                }
                assert_eq!(table.len(), model.live.len(), "seed {seed} step {step}");
                let owed = model.live.values().filter(|entry| entry.1).count();
                assert_eq!(table.owed(), owed, "seed {seed} step {step}");
            }
        }
    }
}
