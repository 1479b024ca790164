//! The queue against single cases, and against a naive model with random steps.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;

use super::*;
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Sent,
    Failed,
}

type Queue = SendQueue<Told>;

fn push(queue: &mut Queue, bytes: &[u8]) -> Key {
    queue.push(Outgoing::one(bytes.to_vec()), None)
}

/// Takes what is next, "sends" `len` bytes of it, and gives it back; what was sent.
fn send(queue: &mut Queue, max: usize, len: usize, deferred: &mut Deferred) -> Vec<u8> {
    let Some(next) = queue.take_next(max) else { return Vec::new() };
    let (payloads, offset) = match next {
        NextPayload::One { payload, offset } => (vec![payload], offset),
        NextPayload::Batch { payloads, offset } => (payloads, offset),
    };
    let all: Vec<u8> = payloads
        .iter()
        .enumerate()
        .flat_map(|(at, payload)| {
            let offset = if at == 0 { offset } else { 0 };
            payload.pieces(offset).flatten().copied().collect::<Vec<u8>>()
        })
        .collect();
    let (entries, len) = (payloads.len(), len.min(all.len()));
    queue.give_back(payloads);
    queue.advance(entries, len, deferred, || Told::Sent);
    all[..len].to_vec()
}

#[test]
fn buffers_go_out_whole_in_order_and_come_back() {
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let first = push(&mut queue, b"abc");
    let second = push(&mut queue, b"defg");
    assert_eq!((queue.unsent(), queue.is_idle()), (7, false));
    assert_eq!(send(&mut queue, 8, 4, &mut deferred), b"abcd");
    let collected = queue.collect(first).expect("all of it is out");
    assert_eq!((collected.sent, collected.answer), (3, Told::Sent));
    assert_eq!(collected.payload.expect("it came back").take::<Vec<u8>>(), b"abc");
    assert!(queue.collect(second).is_none() && queue.is_any_committed(1));
    assert_eq!(send(&mut queue, 8, 9, &mut deferred), b"efg");
    assert_eq!(queue.collect(second).map(|collected| collected.sent), Some(4));
    assert!(queue.is_idle() && queue.unsent() == 0);
}

#[test]
fn what_was_seen_follows_its_future_and_what_was_not_never_happened() {
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let seen = push(&mut queue, b"seen");
    let unseen = push(&mut queue, b"unseen");
    let last = push(&mut queue, b"last");
    assert_eq!(send(&mut queue, 1, 1, &mut deferred), b"s");
    assert!(matches!(queue.abandon(seen, &mut deferred), Abandoned::Committed));
    assert!(matches!(queue.abandon(unseen, &mut deferred), Abandoned::Removed(None)));
    assert_eq!(queue.detached(), 3);
    assert_eq!(send(&mut queue, 8, 99, &mut deferred), b"eenlast");
    assert!(queue.collect(last).is_some() && queue.is_idle());
    assert_eq!(queue.detached(), 0);
}

#[test]
fn a_buffer_that_is_taken_back_leaves_a_copy_of_its_rest() {
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let torn = push(&mut queue, b"torn");
    let whole = push(&mut queue, b"whole");
    assert_eq!(send(&mut queue, 1, 2, &mut deferred), b"to");
    let mut back = |key| queue.take_back(key, &mut deferred).expect("it is here").take::<Vec<u8>>();
    assert_eq!((back(torn), back(whole)), (b"torn".to_vec(), b"whole".to_vec()));
    assert_eq!(send(&mut queue, 8, 99, &mut deferred), b"rn");
    assert!(queue.is_idle());
}

#[test]
fn written_bytes_are_bounded_and_keep_their_place() {
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let slices = [IoSlice::new(b"ab"), IoSlice::new(b"cdef")];
    assert_eq!(queue.write(&slices, 5), 5);
    assert_eq!((queue.write(&slices, 5), queue.detached(), queue.has_written()), (0, 5, true));
    push(&mut queue, b"!");
    assert_eq!(send(&mut queue, 8, 99, &mut deferred), b"abcde!");
    // While they are being sent, more may be written.
    assert_eq!(queue.write(&slices, 5), 5);
    let next = queue.take_next(8);
    assert!(matches!(next, Some(NextPayload::One { offset: 0, .. })));
    assert_eq!((queue.detached(), queue.unsent()), (0, 5));
    assert_eq!(queue.write(&slices, 5), 5);
}

#[test]
fn a_failure_ends_everything_and_tells_each_future_once() {
    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(AtomicU32::new(0)));
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let payload = || Outgoing::one(b"12".to_vec());
    let mut keys: Vec<Key> =
        (0..3).map(|_| queue.push(payload(), Some(Waker::from(count.clone())))).collect();
    // `will_wake` compares tables, and that of a clone may differ from that of the waker that was
    // cloned. So two clones are compared.
    let noop = || Waker::noop().clone();
    keys.push(queue.push(payload(), Some(noop())));
    assert!(!queue.wants(keys[3], &noop()) && queue.wants(keys[0], &noop()));
    queue.push_detached(b"nobody's".to_vec());
    queue.write(&[IoSlice::new(b"x")], 9);
    queue.finish_all(&mut deferred, || Told::Failed);
    deferred.run();
    assert_eq!(count.0.load(Ordering::Relaxed), 3);
    for key in keys {
        let collected = queue.collect(key).expect("each is told");
        assert_eq!((collected.sent, collected.answer), (0, Told::Failed));
    }
    assert!(queue.is_idle() && queue.unsent() == 0 && queue.detached() == 0);
    assert_eq!(Arc::strong_count(&count), 1, "no waker is kept");
}

#[test]
fn buffers_are_dropped_once_and_later() {
    let buf = Rc::new(b"1234".to_vec());
    let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
    let mut push = || queue.push(Outgoing::one(buf.clone()), None);
    let (abandoned, detached, _kept) = (push(), push(), push());
    queue.abandon(abandoned, &mut deferred);
    queue.detach(detached, &mut deferred);
    send(&mut queue, 8, 4, &mut deferred);
    assert_eq!(Rc::strong_count(&buf), 4, "dropped when no borrow is held");
    deferred.run();
    assert_eq!(Rc::strong_count(&buf), 2);
    drop(queue);
    assert_eq!(Rc::strong_count(&buf), 1);
}

/// What the queue must agree with: the bytes still to go out, entry by entry, in order.
#[test]
fn random_steps_agree_with_a_naive_model() {
    for seed in 1..=200 {
        let mut random = Random(seed);
        let (mut queue, mut deferred) = (Queue::default(), Deferred::default());
        // Key of a future, bytes, how many are out. Without a key: of no future.
        let mut model: Vec<(Option<Key>, Vec<u8>, usize)> = Vec::new();
        let mut finished: Vec<(Key, Vec<u8>)> = Vec::new();
        for step in 0..200u8 {
            let bytes = vec![step; 1 + random.below(5)];
            let pick = (!model.is_empty()).then(|| random.below(model.len()));
            match (random.below(6), pick) {
                (0, _) => model.push((Some(push(&mut queue, &bytes)), bytes, 0)),
                (1, _) => {
                    queue.push_detached(bytes.clone());
                    model.push((None, bytes, 0));
                }
                (2 | 3, _) => {
                    let (max, len) = (1 + random.below(3), random.below(12));
                    let sent = send(&mut queue, max, len, &mut deferred);
                    let mut expected = Vec::new();
                    while expected.len() < sent.len() {
                        let (key, bytes, out) = &mut model[0];
                        let more = (bytes.len() - *out).min(sent.len() - expected.len());
                        expected.extend_from_slice(&bytes[*out..*out + more]);
                        *out += more;
                        if *out == bytes.len() {
                            finished.extend(key.map(|key| (key, bytes.clone())));
                            model.remove(0);
                        }
                    }
                    assert_eq!(sent, expected, "seed {seed} step {step}");
                }
                (4, Some(at)) => {
                    if let Some(key) = model[at].0.take() {
                        let abandoned = queue.abandon(key, &mut deferred);
                        let is_committed = matches!(abandoned, Abandoned::Committed);
                        assert_eq!(is_committed, model[at].2 > 0, "seed {seed} step {step}");
                        if !is_committed {
                            model.remove(at);
                        }
                    }
                }
                _ => {
                    for (key, bytes) in finished.drain(..) {
                        let payload = queue.collect(key).and_then(|collected| collected.payload);
                        let payload = payload.expect("it is finished").take::<Vec<u8>>();
                        assert_eq!(payload, bytes, "seed {seed} step {step}");
                    }
                }
            }
            let left = |keep: fn(&Option<Key>) -> bool| -> usize {
                let entries = model.iter().filter(|(key, ..)| keep(key));
                entries.map(|(_, bytes, out)| bytes.len() - out).sum()
            };
            assert_eq!(queue.unsent(), left(|_| true), "seed {seed} step {step}");
            assert_eq!(queue.detached(), left(Option::is_none), "seed {seed} step {step}");
        }
    }
}
