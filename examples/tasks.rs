//! Tasks: two that run together, what they give back, and what becomes of a panic.
//!
//!     cargo run --example tasks
//!
//! Both tasks start at once, and both are done a second later: one second, not two, though there
//! is one thread only. While a task waits, the others run. Then a third task panics, which ends
//! that task and nothing else. It prints (beside the panic's own message):
//!
//!     one: I sleep for a second
//!     two: I sleep for a second
//!     one: good morning
//!     two: good morning
//!     slept 2 s in 1.0 s
//!     task 4 panicked: three has no good morning
//!     and everybody else goes on

use std::time::{Duration, Instant};

use tamam::JoinError;
use tamam::time::sleep;

fn main() -> Result<(), JoinError> {
    tamam::run(async {
        let start = Instant::now();
        let one = tamam::spawn(nap("one"));
        let two = tamam::spawn(nap("two"));
        let slept = one.await? + two.await?; // what the tasks return
        println!("slept {} s in {:.1} s", slept.as_secs(), start.elapsed().as_secs_f64());

        let three = tamam::spawn(async { panic!("three has no good morning") });
        match three.await {
            Ok(()) => println!("three is fine"),
            Err(error) => println!("{error}"),
        }
        println!("and everybody else goes on");
        Ok(())
    })
}

async fn nap(name: &str) -> Duration {
    let second = Duration::from_secs(1);
    println!("{name}: I sleep for a second");
    sleep(second).await;
    println!("{name}: good morning");
    second
}
