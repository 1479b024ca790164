//! UD7: multicast on loopback: IPv4 and IPv6, any source and one source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tamam::io::errno;
use tamam::net::{MulticastGroup, UdpBuilder, UdpSocket};
use tamam::time::timeout;

use crate::common::everywhere;
use crate::{recv, recv_in_order};

/// The index of the loopback interface: 1 where the kernel does not say.
fn loopback() -> u32 {
    let index = std::fs::read_to_string("/sys/class/net/lo/ifindex");
    index.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

/// A group, a socket that may receive it, and one that sends to it by loopback.
fn sockets(group: IpAddr) -> Option<(UdpSocket, UdpSocket)> {
    let is_v6 = group.is_ipv6();
    let any: IpAddr =
        if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let receiver = UdpSocket::bind((any, 0)).ok()?;
    receiver.set_packet_info(true).expect("a socket");
    let own: IpAddr = if is_v6 { Ipv6Addr::LOCALHOST.into() } else { [127, 0, 0, 1].into() };
    let sender = UdpSocket::bind((own, 0)).ok()?;
    sender.set_multicast_interface(loopback()).ok()?;
    Some((receiver, sender))
}

fn at_loopback(ip: IpAddr) -> MulticastGroup {
    MulticastGroup { interface: loopback(), ..ip.into() }
}

/// Each test has groups of its own: a socket at no address of its own gets what is sent to its port for
/// any group that this machine has joined (ip(7), IP_MULTICAST_ALL).
const GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(239, 255, 17, 3)),
    IpAddr::V6(Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0x1703)),
];

async fn hears_nothing(socket: &UdpSocket) {
    assert!(timeout(Duration::from_millis(10), socket.recv()).await.is_err());
}

#[test]
fn ud7_a_member_of_a_group_receives_what_is_sent_to_it() {
    everywhere(|| async {
        for group in GROUPS {
            let Some((receiver, sender)) = sockets(group) else {
                println!("skipped: this host has no multicast for {group}");
                continue;
            };
            let port = receiver.local_addr().expect("bound").port();
            if let Err(error) = sender.send_to("nobody", (group, port)).await {
                println!("skipped: no route to {group}: {error}");
                continue;
            }
            hears_nothing(&receiver).await;
            receiver.join_multicast(at_loopback(group)).expect("loopback is an interface");
            let error = receiver.join_multicast(at_loopback(group)).unwrap_err();
            assert_eq!(errno(&error), Some(libc::EADDRINUSE));
            assert!(error.to_string().contains(&group.to_string()), "{error}");
            sender.send_to("members", (group, port)).await.expect("a route");
            let datagram = recv(&receiver).await;
            assert_eq!((&datagram.chunk[..], datagram.to), (&b"members"[..], Some(group)));
            receiver.leave_multicast(at_loopback(group)).expect("a member");
            receiver.leave_multicast(at_loopback(group)).expect_err("no member");
            sender.send_to("nobody", (group, port)).await.expect("a route");
            hears_nothing(&receiver).await;
        }
    });
}

#[test]
fn ud7_a_member_of_one_source_hears_that_one_only() {
    everywhere(|| async {
        let group = [239, 255, 17, 4].into();
        let Some((receiver, sender)) = sockets(group) else {
            return println!("skipped: this host has no multicast for {group}");
        };
        let port = receiver.local_addr().expect("bound").port();
        let other = UdpSocket::bind("127.0.0.9:0").expect("loopback has addresses");
        other.set_multicast_interface(loopback()).expect("loopback is an interface");
        let ip = group;
        let source = Some([127, 0, 0, 1].into());
        let group = MulticastGroup { source, ..at_loopback(ip) };
        receiver.join_multicast(group).expect("an interface");
        other.send_to("from another", (ip, port)).await.expect("a route");
        sender.send_to("from the source", (ip, port)).await.expect("a route");
        recv_in_order(&receiver, [b"from the source".to_vec()]).await;
        receiver.leave_multicast(group).expect("a member");
        sender.send_to("nobody", (ip, port)).await.expect("a route");
        hears_nothing(&receiver).await;
    });
}

/// Each of several sockets at one port gets what is sent to the group.
#[test]
fn ud7_every_member_at_a_port_gets_it() {
    everywhere(|| async {
        let group: IpAddr = [239, 255, 17, 5].into();
        let bind = |port: u16| {
            let builder = UdpBuilder::new_v4().expect("a socket").reuse_addr(true);
            builder.bind(([0, 0, 0, 0], port).into()).expect("shared")
        };
        let first = bind(0);
        let port = first.local_addr().expect("bound").port();
        let members = [first, bind(port), bind(port)];
        for member in &members {
            member.join_multicast(at_loopback(group)).expect("loopback is an interface");
        }
        let Some((_, sender)) = sockets(group) else { return };
        sender.send_to("everybody", (group, port)).await.expect("a route");
        for member in &members {
            recv_in_order(member, [b"everybody".to_vec()]).await;
        }
    });
}

#[test]
fn ud7_no_such_interface_is_an_error_that_names_the_group() {
    everywhere(|| async {
        for group in GROUPS {
            let Some((receiver, _)) = sockets(group) else { continue };
            let error = receiver
                .join_multicast(MulticastGroup { interface: 0xffff, ..group.into() })
                .unwrap_err();
            assert!(error.to_string().contains("interface 65535"), "{error}");
            receiver.set_multicast_interface(0xffff).expect_err("no such interface");
        }
    });
}
