//! Which addresses are never connected to, whatever a name leads to.
//!
//! Only services of the configuration are reached, but where they are is what DNS says: whoever can answer for a
//! service's name could otherwise point the gateway at this machine, at itself, or at what answers on a link-local
//! address (169.254.169.254 hands out the credentials of cloud machines). Clouds have others, of which two are known here:
//! private addresses are left alone, because services may be there, so this is no firewall. What was looked at is what is
//! connected to, so a name cannot lead elsewhere between the two.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::outbound::error::Error;
use crate::services::Target;

/// Where Azure and, over IPv6, AWS tell machines about themselves, beside the link-local addresses.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The first 96 bits of IPv6 addresses that a network translates to IPv4 (NAT64; RFC 6052, section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Addresses that no machine has (RFC 5737, RFC 3849).
const NOBODYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Forbidden {
    /// `0.0.0.0` and its like, which reach this machine on many systems.
    #[error("it is unspecified, and no address of a service")]
    Unspecified,
    /// Many machines, or all of them.
    #[error("it is a multicast or broadcast address, and no service's")]
    Multicast,
    /// The neighbours on the same wire: where clouds serve credentials, and no national service.
    #[error(
        "it is link-local or a cloud's own: no service is there, but the credentials of machines may be"
    )]
    LinkLocal,
    /// This machine, though the URL names another.
    #[error(
        "it is on this machine, and the URL's host is not: `address` of the service says so where that is meant"
    )]
    Loopback,
    /// A listener of this very gateway.
    #[error("this gateway listens there itself: its requests would go round in a loop")]
    Itself,
    /// This machine lacks what it takes to tell.
    #[error("it may be this gateway itself, and no file descriptor is left to find out")]
    Untold,
}

/// The addresses of a target that may be connected to, in their order.
///
/// # Errors
/// When there is none, with the first of them and why not.
pub(super) fn permitted(
    target: &Target,
    addresses: &[SocketAddr],
    own: &[SocketAddr],
) -> Result<Vec<SocketAddr>, Error> {
    let mut first = None;
    let mut permitted = Vec::with_capacity(addresses.len());
    for address in addresses {
        match objection(target, *address).or_else(|| is_own(*address, own)) {
            None => permitted.push(*address),
            Some(why) => drop(first.get_or_insert((*address, why))),
        }
    }
    match first {
        Some((address, why)) if permitted.is_empty() => Err(Error::Forbidden {
            host: target.host().into(),
            address,
            why,
        }),
        _ => Ok(permitted),
    }
}

/// What is to be said against an address, whoever listens there.
pub(crate) fn objection(target: &Target, address: SocketAddr) -> Option<Forbidden> {
    let ip = reached(address);
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // Linux takes all of 0.0.0.0/8 for no address, others for "this network" (RFC 1122, section 3.2.1.3).
    let is_unspecified = ip.is_unspecified() || matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0);
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if is_unspecified {
        Some(Forbidden::Unspecified)
    } else if ip.is_multicast() || is_broadcast {
        Some(Forbidden::Multicast)
    } else if is_link_local || METADATA.contains(&ip) {
        Some(Forbidden::LinkLocal)
    } else if ip.is_loopback() && target.address.is_none() && !names_this_machine(target.host()) {
        Some(Forbidden::Loopback)
    } else {
        None
    }
}

/// Whether it is one of the own listeners.
pub(crate) fn is_own(address: SocketAddr, own: &[SocketAddr]) -> Option<Forbidden> {
    let ip = reached(address);
    let mut same_port = (own.iter()).filter(|one| one.port() == address.port());
    let mut on_all = false;
    if same_port.any(|one| {
        let own = one.ip().to_canonical();
        // 0.0.0.0 is IPv4 alone; a socket that was inherited for [::] may take both.
        on_all |= own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4());
        own == ip
    }) {
        return Some(Forbidden::Itself);
    }
    // One that listens on all addresses does so on each that this machine has.
    match on_all.then(|| is_here(ip, address.port()))? {
        Ok(true) => Some(Forbidden::Itself),
        Ok(false) => None,
        Err(_) => Some(Forbidden::Untold),
    }
}

/// Whether this machine has an address. Nothing is sent.
fn is_here(ip: IpAddr, port: u16) -> io::Result<bool> {
    let (any, nobodys) = match ip {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), NOBODYS[0]),
        IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), NOBODYS[1]),
    };
    let socket = match UdpSocket::bind((any, 0)) {
        Ok(socket) => socket,
        Err(error) if super::lack(&error).is_some() => return Err(error),
        // The machine has no addresses of this family.
        Err(_) => return Ok(false),
    };
    // To reach itself, a machine speaks from the very address; unless it is the second of its network, which can be told
    // by binding it. Where any can be bound (`net.ipv4.ip_nonlocal_bind`, as with keepalived), that tells nothing.
    let speaks = socket
        .connect((ip, port))
        .and_then(|()| socket.local_addr());
    let binds = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    Ok(speaks.is_ok_and(|from| from.ip() == ip) || binds(ip) && !binds(nobodys))
}

/// What is reached at an address: `::ffff:127.0.0.1` is 127.0.0.1 to the system, and `64:ff9b::7f00:1` to a network.
fn reached(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) if ip.segments()[..6] == NAT64 => {
            let [.., a, b, c, d] = ip.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        ip => ip,
    }
}

/// Whether a URL's host is this machine by itself: a loopback address, or a name that resolvers never ask others about
/// (RFC 6761, section 6.3).
fn names_this_machine(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, address: Option<&str>) -> Target {
        Target {
            authority: host.parse().unwrap(),
            base_path: Box::default(),
            address: address.map(|text| text.parse().unwrap()),
        }
    }

    fn why(host: &str, address: &str) -> Option<Forbidden> {
        objection(&target(host, None), address.parse().unwrap())
    }

    /// T13.
    #[test]
    fn a_name_never_leads_to_what_is_no_service() {
        for (address, reason) in [
            ("0.0.0.0:443", Forbidden::Unspecified),
            ("0.1.2.3:443", Forbidden::Unspecified),
            ("[::]:443", Forbidden::Unspecified),
            ("[::ffff:0.0.0.0]:443", Forbidden::Unspecified),
            ("224.0.0.1:443", Forbidden::Multicast),
            ("255.255.255.255:443", Forbidden::Multicast),
            ("[ff02::1]:443", Forbidden::Multicast),
            ("169.254.169.254:80", Forbidden::LinkLocal),
            ("[::ffff:169.254.169.254]:80", Forbidden::LinkLocal),
            ("[fe80::1]:443", Forbidden::LinkLocal),
            ("127.0.0.1:443", Forbidden::Loopback),
            ("127.8.8.8:443", Forbidden::Loopback),
            ("[::1]:443", Forbidden::Loopback),
            ("[::ffff:127.0.0.1]:443", Forbidden::Loopback),
            ("[64:ff9b::169.254.169.254]:80", Forbidden::LinkLocal),
            ("[64:ff9b::127.0.0.1]:443", Forbidden::Loopback),
            ("168.63.129.16:80", Forbidden::LinkLocal),
            ("[fd00:ec2::254]:80", Forbidden::LinkLocal),
        ] {
            assert_eq!(why("service.example", address), Some(reason), "{address}");
        }
        for address in [
            "192.0.2.1:443",
            "10.1.2.3:443",
            "[2001:db8::1]:443",
            "[fd00::1]:443",
            "[64:ff9b::192.0.2.1]:443",
        ] {
            assert_eq!(why("service.example", address), None, "{address}");
        }
    }

    #[test]
    fn this_machine_is_reached_where_the_configuration_says_so() {
        for host in [
            "localhost",
            "localhost.:8443",
            "a.localhost",
            "127.0.0.1:1",
            "[::1]:1",
        ] {
            assert_eq!(why(host, "127.0.0.1:1"), None, "{host}");
            // Saying so is no licence for the rest.
            assert_eq!(
                why(host, "169.254.0.1:1"),
                Some(Forbidden::LinkLocal),
                "{host}"
            );
        }
        for host in [
            "localhost.example",
            "notlocalhost",
            "127.0.0.1.example",
            "10.0.0.1",
        ] {
            assert_eq!(
                why(host, "127.0.0.1:1"),
                Some(Forbidden::Loopback),
                "{host}"
            );
        }
        let relayed = target("service.example", Some("127.0.0.1:1"));
        assert_eq!(objection(&relayed, relayed.address.unwrap()), None);
        let metadata = target("service.example", Some("169.254.169.254:80"));
        let refused = objection(&metadata, metadata.address.unwrap());
        assert_eq!(refused, Some(Forbidden::LinkLocal));
    }

    #[test]
    fn what_may_be_reached_is_reached_when_a_name_leads_elsewhere_too() {
        let addresses = ["127.0.0.1:443", "192.0.2.1:443", "[fe80::1]:443"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        let permitted = permitted(&target("service.example", None), &addresses, &[]);
        assert_eq!(permitted.unwrap(), [addresses[1]]);
        let error = super::permitted(&target("service.example", None), &addresses[..1], &[]);
        let error = error.unwrap_err().to_string();
        for part in ["service.example", "127.0.0.1:443", "on this machine"] {
            assert!(error.contains(part), "{error}");
        }
    }

    /// T20.
    #[test]
    fn an_own_listener_is_recognised_however_it_is_written() {
        let own = ["127.0.0.1:8080", "[::1]:8081", "0.0.0.0:8443"];
        let own = own.map(|text| text.parse().unwrap());
        for (address, is_it) in [
            ("127.0.0.1:8080", true),
            ("[::ffff:127.0.0.1]:8080", true),
            ("[::1]:8081", true),
            ("127.0.0.1:8443", true),
            ("127.0.0.1:8081", false),
            ("127.0.0.2:8080", false),
            // Not an address of this machine (RFC 5737).
            ("192.0.2.1:8443", false),
        ] {
            let found = is_own(address.parse().unwrap(), &own).is_some();
            assert_eq!(found, is_it, "{address}");
        }
    }
}
