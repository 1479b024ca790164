//! setsockopt(2) and getsockopt(2) as TCP and UDP share them.

use std::io;
use std::os::fd::BorrowedFd;

use crate::io::CallError;
use crate::sys::{self, IntOption};

/// setsockopt(2). The error names the option.
pub(super) fn set_option(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let set = sys::set(fd, option, value);
    set.map_err(|error| CallError::wrap("setsockopt", format_args!("{option} {value}"), error))
}

/// Whether the socket is one for IPv6.
pub(super) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    sys::get(fd, IntOption::Domain).map(|domain| domain == libc::AF_INET6)
}

/// An option that IPv4 and IPv6 have under different names.
#[derive(Clone, Copy)]
pub(super) struct FamilyOption {
    v4: IntOption,
    v6: IntOption,
}

impl FamilyOption {
    pub(super) const TTL: FamilyOption =
        FamilyOption { v4: IntOption::Ttl, v6: IntOption::HopLimit };
    pub(super) const TOS: FamilyOption =
        FamilyOption { v4: IntOption::TypeOfService, v6: IntOption::TrafficClass };
    pub(super) const MULTICAST_LOOP: FamilyOption =
        FamilyOption { v4: IntOption::MulticastLoop, v6: IntOption::MulticastLoopV6 };
    pub(super) const MULTICAST_TTL: FamilyOption =
        FamilyOption { v4: IntOption::MulticastTtl, v6: IntOption::MulticastHopLimit };

    #[cfg(feature = "quinn")]
    pub(super) const MTU_DISCOVER: FamilyOption =
        FamilyOption { v4: IntOption::MtuDiscover, v6: IntOption::MtuDiscoverV6 };

    /// Sets it. A socket for IPv6 gets both, since its peer may be one of IPv4 (ipv6(7)). That of IPv4
    /// is set first: it refuses a TTL of zero, which IPv6 takes.
    pub(super) fn set(self, fd: BorrowedFd<'_>, value: i32) -> io::Result<()> {
        set_option(fd, self.v4, value)?;
        if is_v6(fd)? { set_option(fd, self.v6, value) } else { Ok(()) }
    }

    pub(super) fn get(self, fd: BorrowedFd<'_>) -> io::Result<i32> {
        sys::get(fd, if is_v6(fd)? { self.v6 } else { self.v4 })
    }
}
