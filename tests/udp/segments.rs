//! UD5, UD6: many datagrams in one send, and in one receive.

use std::io::ErrorKind;

use tamam::net::{Envelope, UdpSocket};
use tamam::{Backend, Runtime};

use crate::common::{self, Begun, begin, everywhere, with};
use crate::{bound, recv};

/// Receives until there are `len` bytes, and gives the size of each datagram and all bytes.
async fn recv_segments(socket: &UdpSocket, len: usize) -> (Vec<usize>, Vec<u8>) {
    let (mut sizes, mut bytes) = (Vec::new(), Vec::new());
    while bytes.len() < len {
        let datagram = recv(socket).await;
        for segment in datagram.segments() {
            sizes.push(segment.len());
            bytes.extend_from_slice(segment);
        }
    }
    (sizes, bytes)
}

fn sizes_of(len: usize, size: usize) -> Vec<usize> {
    let mut sizes = vec![size; len / size];
    sizes.extend((len % size > 0).then_some(len % size));
    sizes
}

/// Lengths and sizes: one segment, an even number, a rest, more than the kernel divides at once.
const CASES: [(usize, usize); 8] = [
    (100, 1000),
    (1000, 1000),
    (2000, 1000),
    (2500, 1000),
    (64 * 1200, 1200),
    (100 * 100, 100),
    (200_000, 1400),
    (130_000, 40_000),
];

async fn send_segments_arrive() {
    let (server, addr) = bound();
    server.set_recv_buffer_size(8 << 20).expect("a socket");
    let (client, _) = bound();
    for (len, size) in CASES {
        let bytes = common::pattern(len);
        let (sent, buf) = client.send_segments(bytes, size, addr).await.expect("a route");
        assert_eq!(sent, len);
        let (sizes, received) = recv_segments(&server, len).await;
        assert_eq!(sizes, sizes_of(len, size), "{len} bytes in datagrams of {size}");
        common::assert_same(&received, &buf);
        let envelope = Envelope { to: Some(addr), segment_size: Some(size), ..Envelope::default() };
        assert_eq!(client.try_send_msg(&buf, &envelope).expect("room"), len);
        let (sizes, received) = recv_segments(&server, len).await;
        assert_eq!(sizes, sizes_of(len, size), "{len} bytes in datagrams of {size}, at once");
        common::assert_same(&received, &buf);
    }
}

#[test]
fn ud5_segments_arrive_one_by_one() {
    everywhere(send_segments_arrive);
}

/// A kernel that cannot divide a message: we do.
#[test]
fn ud5_segments_are_divided_by_us_where_the_kernel_cannot() {
    let old = Runtime::builder().backend(Backend::Epoll).pretend_kernel(4, 17);
    with(old, send_segments_arrive);
}

#[test]
fn ud5_a_segment_has_a_size_that_a_datagram_can_have() {
    everywhere(|| async {
        let (socket, addr) = bound();
        for size in [0, 65_528, usize::MAX] {
            let error = socket.send_segments(vec![7; 10], size, addr).await.unwrap_err();
            assert_eq!((error.kind(), error.buf().len()), (ErrorKind::InvalidInput, 10));
            assert!(error.to_string().contains(&size.to_string()), "{error}");
        }
        // No larger than what there is.
        assert_eq!(socket.send_segments(vec![7; 10], 60_000, addr).await.expect("a route").0, 10);
        assert_eq!(recv(&socket).await.chunk.len(), 10);
        assert_eq!(socket.send_segments(vec![], 60_000, addr).await.expect("a route").0, 0);
        assert_eq!(recv(&socket).await.chunk.len(), 0);
    });
}

/// Dropped when some of it is out: the rest goes out, too.
#[test]
fn ud5_a_dropped_send_of_segments_goes_out_whole() {
    everywhere(|| async {
        let (server, addr) = bound();
        server.set_recv_buffer_size(8 << 20).expect("a socket");
        let (client, _) = bound();
        let len = 300_000;
        let bytes = common::pattern(len);
        let send = begin(client.send_segments(bytes.clone(), 1000, addr)).await;
        if let Begun::Waiting(send) = send {
            common::turn().await;
            drop(send);
        }
        let (sizes, received) = recv_segments(&server, len).await;
        assert_eq!(sizes, sizes_of(len, 1000));
        common::assert_same(&received, &bytes);
    });
}

/// The kernel merges what one send has divided, where it can.
#[test]
fn ud6_merged_datagrams_are_taken_apart() {
    everywhere(|| async {
        let (server, addr) = bound();
        if let Err(error) = server.set_gro(true) {
            return println!("skipped: this kernel merges no datagrams: {error}");
        }
        server.set_recv_buffer_size(8 << 20).expect("a socket");
        let (client, _) = bound();
        let mut merged = 0;
        for (len, size) in CASES {
            let bytes = common::pattern(len);
            client.send_segments(bytes.clone(), size, addr).await.expect("a route");
            let (mut sizes, mut received) = (Vec::new(), Vec::new());
            while received.len() < len {
                let datagram = recv(&server).await;
                assert!(datagram.segment_size <= size);
                merged += usize::from(datagram.segments().count() > 1);
                sizes.extend(datagram.segments().map(<[u8]>::len));
                received.extend_from_slice(&datagram.chunk);
            }
            assert_eq!(sizes, sizes_of(len, size), "{len} bytes in datagrams of {size}");
            common::assert_same(&received, &bytes);
        }
        if merged == 0 {
            println!("skipped: this kernel merges no datagrams on loopback");
        }
        server.set_gro(false).expect("it was set");
        client.send_segments(vec![7; 3000], 1000, addr).await.expect("a route");
        assert_eq!(recv(&server).await.chunk.len(), 1000);
    });
}
