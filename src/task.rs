//! What a task does for its neighbours: it leaves its poll in time, also where the futures that it
//! waits for are of other crates.
//!
//! Tasks themselves are in `executor/`. Read next: `executor/mod.rs`.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

use crate::executor;

/// Takes a unit of the task's budget; with none left, lets other tasks and I/O run first.
///
/// Every future of this crate does so when it is ready at once, which is how a loop over them leaves
/// the thread to others after 128 answers. A loop over something else, such as a channel of another
/// crate or a long computation in steps, calls this once in each round. It costs a few nanoseconds,
/// and waits only when the budget is used up.
///
/// Outside a task of this crate it does nothing.
///
/// # Cancel safety
/// Cancel safe: it holds nothing.
/// # Examples
/// ```
/// tamam::run(async {
///     let mut sum = 0_u64;
///     for n in 0..100_000 {
///         sum += n;
///         tamam::task::consume_budget().await;
///     }
///     assert_eq!(sum, 4_999_950_000);
/// });
/// ```
pub async fn consume_budget() {
    poll_fn(executor::consume_budget).await;
}

/// Makes a future of another crate take a unit of the task's budget when it is ready, as the futures
/// of this crate do.
///
/// Put it around the future that a loop awaits in each round, such as the receive of a channel. While
/// other threads fill the channel, such a loop is never Pending, and without this the thread would do
/// nothing else. Around a whole task it has no effect: it cannot cut a poll in two.
///
/// # Examples
/// ```
/// use tamam::task::cooperative;
///
/// tamam::run(async {
///     let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
///     let thread = std::thread::spawn(move || {
///         for n in 0..10_000 {
///             sender.blocking_send(n).expect("the receiver is there");
///         }
///     });
///     let mut count = 0;
///     while let Some(n) = cooperative(receiver.recv()).await {
///         assert_eq!(n, count);
///         count += 1;
///     }
///     assert_eq!(count, 10_000);
///     thread.join().expect("no panic");
/// });
/// ```
pub async fn cooperative<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    poll_fn(|cx| {
        ready!(executor::poll_budget(cx));
        let output = ready!(future.as_mut().poll(cx));
        // The output is there, so it is given even if the future itself took the last unit.
        let _ = executor::take_unit();
        Poll::Ready(output)
    })
    .await
}
