//! The op table: one slot for each op in flight, named by a token with a generation.
//!
//! ```text
//!          1 insert               2 complete, more: stays        3 complete, last: slot leaves
//! (vacant) ────────► in flight ────────────────────────► … ──────────────────────────► (vacant)
//!                      │ 4 ask_cancel   5 undo_cancel
//!                      │ 6 cancel_sent: from now on only the terminal completion counts
//! ```
//!
//! Ops belong to objects from the start, so the table has no state for an op whose future is gone.
//! Only the terminal completion empties a slot. An answer with a token that is not in the table is
//! a bug of this crate.
//!
//! There is no descriptor, no ring and no unsafe code here. Read next: `engine.rs`.

use std::mem;
use std::rc::Rc;

use super::op::{Owner, Payload, Role, Token};

/// A place for an op. An op is written into its slot and not copied there: a copy of a value that
/// was just written part by part must wait for all the parts (`docs::kernels`).
struct OpSlot {
    /// `None`: the slot is vacant.
    owner: Option<Rc<dyn Owner>>,
    payload: Payload,
    generation: u32,
    /// In a vacant slot: the next vacant slot.
    next: u32,
    role: Role,
    cancel: Cancel,
}

/// An op that has left the table.
pub(super) struct Ended {
    pub(super) owner: Rc<dyn Owner>,
    pub(super) role: Role,
    pub(super) payload: Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    /// It was asked for. It is sent when the tasks have been polled, unless it is undone before.
    Asked,
    /// It was undone, and the token is still on the list of cancels. A second question must not
    /// list it twice.
    TakenBack,
    /// An object that is going asked for it. The driver does not sleep before the op has ended.
    BeforeSleep,
    /// It is in the kernel, or in the submission queue.
    Sent {
        before_sleep: bool,
    },
}

impl Cancel {
    /// Whether the driver must not sleep before the op has ended.
    fn blocks_sleep(self) -> bool {
        matches!(self, Cancel::BeforeSleep | Cancel::Sent { before_sleep: true })
    }
}

pub(super) struct Table {
    slots: Vec<OpSlot>,
    /// The vacant slot to fill next: the last that became vacant, or the length.
    vacant: u32,
    len: usize,
    next_generation: u32,
    /// How many ops must end before the driver sleeps.
    blocking_sleep: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { slots: Vec::new(), vacant: 0, len: 0, next_generation: 0, blocking_sleep: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many ops must end before the driver sleeps.
    pub(super) fn blocking_sleep(&self) -> usize {
        self.blocking_sleep
    }

    /// Transition 1: stores an op in a vacant slot, which it makes if there is none. Returns the
    /// token, which the caller puts into the submission: its completion names the op by it.
    #[inline]
    pub(super) fn insert(&mut self, owner: Rc<dyn Owner>, role: Role, payload: Payload) -> Token {
        let index = self.vacant;
        if index as usize == self.slots.len() {
            self.grow();
        }
        let slot = &mut self.slots[index as usize];
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        self.vacant = slot.next;
        self.len += 1;
        (slot.owner, slot.payload) = (Some(owner), payload);
        (slot.generation, slot.role, slot.cancel) = (generation, role, Cancel::No);
        Token { index, generation }
    }

    /// Adds a vacant slot. Panics if there would be nearly 2^32.
    #[cold]
    fn grow(&mut self) {
        // The two highest indexes are the user_data of the driver's own submissions.
        let next = u32::try_from(self.slots.len() + 1).ok().filter(|next| *next < u32::MAX - 1);
        self.slots.push(OpSlot {
            owner: None,
            payload: Payload::None,
            generation: 0,
            next: next.expect("fewer than 2^32 ops in flight"),
            role: Role::Recv,
            cancel: Cancel::No,
        });
    }

    /// The slot of an op in flight. `None`: the op has ended.
    #[inline]
    fn live(&mut self, token: Token) -> Option<&mut OpSlot> {
        let slot = self.slots.get_mut(token.index as usize)?;
        (slot.generation == token.generation && slot.owner.is_some()).then_some(slot)
    }

    /// Transitions 2 and 3: an answer. Gives the owner and the role of its op. `None`: no op has
    /// this token. Without `more` the op has ended, and its payload is moved to `payload`.
    #[inline]
    pub(super) fn complete(
        &mut self,
        token: Token,
        more: bool,
        payload: &mut Payload,
    ) -> Option<(Rc<dyn Owner>, Role)> {
        let vacant = self.vacant;
        let slot = self.live(token)?;
        let role = slot.role;
        if more {
            return slot.owner.clone().map(|owner| (owner, role));
        }
        let owner = slot.owner.take()?;
        *payload = mem::replace(&mut slot.payload, Payload::None);
        slot.next = vacant;
        let blocked_sleep = slot.cancel.blocks_sleep();
        self.vacant = token.index;
        self.len -= 1;
        self.blocking_sleep -= usize::from(blocked_sleep);
        Some((owner, role))
    }

    /// Transition 4: the op must end; with `before_sleep`, before the driver sleeps. True: the
    /// caller must add the token to the list of cancels. False: it is on the list, the cancel was
    /// sent, or the op has ended.
    pub(super) fn ask_cancel(&mut self, token: Token, before_sleep: bool) -> bool {
        let Some(slot) = self.live(token) else { return false };
        let was = slot.cancel;
        let blocked_sleep = was.blocks_sleep();
        slot.cancel = match was {
            Cancel::Sent { .. } => Cancel::Sent { before_sleep: before_sleep || blocked_sleep },
            _ if before_sleep || blocked_sleep => Cancel::BeforeSleep,
            _ => Cancel::Asked,
        };
        if before_sleep && !blocked_sleep {
            self.blocking_sleep += 1;
        }
        was == Cancel::No
    }

    /// Transition 5: the op is wanted again. True: it goes on. False: the cancel was sent already,
    /// or is required before a sleep, or the op has ended.
    pub(super) fn undo_cancel(&mut self, token: Token) -> bool {
        match self.live(token) {
            Some(slot) if matches!(slot.cancel, Cancel::Sent { .. } | Cancel::BeforeSleep) => false,
            Some(slot) => {
                if slot.cancel == Cancel::Asked {
                    slot.cancel = Cancel::TakenBack;
                }
                true
            }
            None => false,
        }
    }

    /// Transition 6: the token was taken off the list of cancels. True: the caller must send the
    /// cancel now; from here on it counts as sent. False: it was undone, or the op has ended.
    pub(super) fn cancel_sent(&mut self, token: Token) -> bool {
        let Some(slot) = self.live(token) else { return false };
        let before_sleep = match slot.cancel {
            Cancel::No | Cancel::Sent { .. } => return false,
            Cancel::TakenBack => {
                slot.cancel = Cancel::No;
                return false;
            }
            Cancel::Asked => false,
            Cancel::BeforeSleep => true,
        };
        slot.cancel = Cancel::Sent { before_sleep };
        true
    }

    /// Whether the op is in flight.
    pub(super) fn is_live(&mut self, token: Token) -> bool {
        self.live(token).is_some()
    }

    /// Every token in flight.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let live = self.slots.iter().enumerate().filter(|(_, slot)| slot.owner.is_some());
        live.map(|(index, slot)| Token { index: index as u32, generation: slot.generation })
            .collect()
    }

    /// Takes everything out: only for an engine that has failed or is gone.
    pub(super) fn take_all(&mut self) -> Vec<Ended> {
        let slots = mem::take(&mut self.slots);
        (self.vacant, self.len, self.blocking_sleep) = (0, 0, 0);
        let live = slots.into_iter().filter_map(|slot| {
            Some(Ended { owner: slot.owner?, role: slot.role, payload: slot.payload })
        });
        live.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::testing::NoOwner;
    use super::*;
    use crate::random::Random;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Asked {
        asked: bool,
        /// Its token is on the list of cancels.
        listed: bool,
        before_sleep: bool,
        sent: bool,
    }

    /// What the table must agree with: tokens by name, nothing shared between slots.
    #[derive(Default)]
    struct Model {
        live: HashMap<u64, Asked>,
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
                        let token =
                            table.insert(Rc::new(NoOwner), Role::Recv, Payload::Heap(vec![]));
                        let fresh = model.live.insert(token.to_user_data(), Default::default());
                        assert!(fresh.is_none(), "seed {seed} step {step}: token reused");
                    }
                    2 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let more = random.below(2) == 0;
                            let mut payload = Payload::None;
                            let found = table.complete(token, more, &mut payload);
                            assert!(matches!(found, Some((_, Role::Recv))));
                            assert_eq!(matches!(payload, Payload::Heap(_)), !more, "seed {seed}");
                            assert_eq!(table.is_live(token), more, "seed {seed} step {step}");
                            if !more {
                                model.live.remove(&token.to_user_data());
                                model.gone.push(token);
                            }
                        }
                    }
                    3 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let before_sleep = random.below(2) == 0;
                            let fresh = table.ask_cancel(token, before_sleep);
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            assert_eq!(
                                fresh,
                                !entry.listed && !entry.sent,
                                "seed {seed} step {step}"
                            );
                            entry.listed |= fresh;
                            entry.asked |= !entry.sent;
                            entry.before_sleep |= before_sleep;
                        }
                    }
                    4 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            let may = !entry.before_sleep && !entry.sent;
                            assert_eq!(table.undo_cancel(token), may, "seed {seed} step {step}");
                            entry.asked &= !may;
                        }
                    }
                    5 => {
                        if let Some(token) = pick(&mut random, &table) {
                            let entry = model.live.get_mut(&token.to_user_data()).expect("live");
                            assert_eq!(
                                table.cancel_sent(token),
                                entry.asked,
                                "seed {seed} step {step}"
                            );
                            entry.sent |= entry.asked;
                            (entry.asked, entry.listed) = (false, false);
                        }
                    }
                    _ => {
                        if let Some(&token) = model.gone.last() {
                            assert!(table.complete(token, false, &mut Payload::None).is_none());
                            assert!(!table.ask_cancel(token, true) && !table.undo_cancel(token));
                            assert!(!table.cancel_sent(token) && !table.is_live(token));
                        }
                    }
                }
                assert_eq!(table.len(), model.live.len(), "seed {seed} step {step}");
                let before_sleep = model.live.values().filter(|entry| entry.before_sleep).count();
                assert_eq!(table.blocking_sleep(), before_sleep, "seed {seed} step {step}");
            }
        }
    }
}
