//! TX7: buffers without bytes.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use crate::common::at_once;
use crate::family::{self, Stream};
use crate::{common, stalled_pair};

/// A way to send nothing.
async fn send_nothing(stream: &Stream, way: usize) -> Result<usize, ErrorKind> {
    match way {
        0 => stream.send("").await.map(|(sent, _)| sent).map_err(|error| error.kind()),
        1 => stream.send_all(Vec::new()).await.map(|buf| buf.len()).map_err(|error| error.kind()),
        2 => stream
            .sendv(Vec::<Vec<u8>>::new())
            .await
            .map(|(sent, _)| sent)
            .map_err(|error| error.kind()),
        _ => stream.sendv(vec!["", ""]).await.map(|(sent, _)| sent).map_err(|error| error.kind()),
    }
}

/// TX7. An empty buffer is sent at once, without the kernel, also when others wait; but not after
/// a failure or the end.
#[test]
fn tx7_an_empty_buffer_is_ready_at_once() {
    common::everywhere(|| async {
        for way in 0..4 {
            let (idle, _idle_peer) = family::pair().await;
            let (stalled, stalled_peer) = stalled_pair().await;
            let (ended, _ended_peer) = family::pair().await;
            ended.shutdown().await.expect("connected");
            let before = tamam::metrics();
            assert_eq!(at_once(send_nothing(&idle, way)).await, Ok(0));
            assert_eq!(at_once(send_nothing(&stalled, way)).await, Ok(0));
            assert_eq!(at_once(send_nothing(&ended, way)).await, Err(ErrorKind::BrokenPipe));
            let after = tamam::metrics();
            assert_eq!((after.enters, after.submissions), (before.enters, before.submissions));
            family::reset(stalled_peer);
            stalled.send("not empty").await.expect_err("it is reset");
            assert_eq!(at_once(send_nothing(&stalled, way)).await, Err(family::SEND_AFTER_RESET));
        }
    });
}

/// TX7 with G9. A loop over calls that are ready at once lets other tasks run.
#[test]
fn tx7_ready_at_once_does_not_starve_others() {
    common::everywhere(|| async {
        let (idle, _peer) = family::pair().await;
        let (ended, _ended_peer) = family::pair().await;
        ended.shutdown().await.expect("connected");
        for way in 0..3 {
            let turn = Rc::new(Cell::new(false));
            let other = tamam::spawn({
                let turn = turn.clone();
                async move { turn.set(true) }
            });
            let mut calls = 0u32;
            while !turn.get() {
                match way {
                    0 => drop(idle.send_all("").await.expect("nothing to send")),
                    1 => drop(ended.send("late").await.expect_err("it was shut down")),
                    _ => ended.shutdown().await.expect("it was shut down"),
                }
                calls += 1;
                assert!(calls <= 10_000, "way {way}: the other task never runs");
            }
            other.await.expect("no panic");
        }
    });
}
