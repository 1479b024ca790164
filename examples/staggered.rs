//! A combinator of one's own: five connections, each 0.4 s after the one before.
//!
//!     cargo run --example staggered
//!
//! A future does nothing until it is awaited, so `delayed` can hold one back: all five visits are
//! made at the start, and the fifth connects after 1.6 s. The server is a task like the others. It
//! prints, line by line:
//!
//!     0.0 s  visitor 0: welcome, you are number 1
//!     0.4 s  visitor 1: welcome, you are number 2
//!     0.8 s  visitor 2: welcome, you are number 3
//!     1.2 s  visitor 3: welcome, you are number 4
//!     1.6 s  visitor 4: welcome, you are number 5

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tamam::net::{TcpListener, TcpStream};
use tamam::time::sleep;

/// Lets `future` start when `delay` has passed.
async fn delayed<F: Future>(delay: Duration, future: F) -> F::Output {
    sleep(delay).await;
    future.await
}

fn main() -> io::Result<()> {
    tamam::run(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = listener.local_addr()?;
        tamam::spawn(welcome(listener));

        let start = Instant::now();
        let visits: Vec<_> = (0..5)
            .map(|i| tamam::spawn(delayed(Duration::from_millis(400) * i, visit(server))))
            .collect();
        for (i, visit) in visits.into_iter().enumerate() {
            let greeting = visit.await??; // the task may fail, and the visit
            println!("{:.1} s  visitor {i}: {greeting}", start.elapsed().as_secs_f64());
        }
        Ok(())
    })
}

/// Greets whoever comes, one after the other. Dropping the stream closes it, after all was sent.
async fn welcome(listener: TcpListener) -> io::Result<()> {
    for number in 1.. {
        let (stream, _) = listener.accept().await?;
        stream.send_all(format!("welcome, you are number {number}")).await?;
    }
    Ok(())
}

/// Connects, and reads until the server closes the connection.
async fn visit(server: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(server).await?;
    let mut greeting = Vec::new();
    while let Some(chunk) = stream.recv().await? {
        greeting.extend_from_slice(&chunk);
    }
    String::from_utf8(greeting).map_err(io::Error::other)
}
