//! Addresses of services that are written down: each is one that may be connected to, and none is a listener of this
//! very gateway. What names lead to is looked at when they are resolved (`outbound::dial::guard`).

use std::net::{IpAddr, SocketAddr};

use super::problem::What;
use super::reader::Spot;
use super::section::Section;
use super::{Admin, ListenAddress, Listener};
use crate::outbound::dial::guard::{is_own, objection};
use crate::services::{Service, Target};

/// Reports services that could never be reached.
pub(super) fn check(
    root: &Section<'_>,
    services: &[Service],
    listeners: &[Listener],
    admin: Option<&Admin>,
) {
    let own = listeners.iter().filter_map(|one| match one.address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    });
    let own: Vec<_> = own.chain(admin.map(|admin| admin.address)).collect();
    for service in services {
        let Some((address, key)) = literal(&service.target) else {
            continue;
        };
        let why = objection(&service.target, address).or_else(|| is_own(address, &own));
        if let Some(why) = why {
            let key = format!("services.{}.{key}", service.name);
            let place = (root.reader).place_of(&key, root.reader.document.value_offset(&key));
            let spot = Spot {
                key,
                place: place.unwrap_or_else(|| root.spot.place.clone()),
            };
            let what = What::Rule(format!("{address} is not connected to: {why}"));
            let hint = "give the address at which the service itself is".to_owned();
            root.reader.error(&spot, what, Some(hint));
        }
    }
}

/// The address that is connected to, and the key that says so.
fn literal(target: &Target) -> Option<(SocketAddr, &'static str)> {
    if let Some(address) = target.address {
        return Some((address, "address"));
    }
    let host: IpAddr = target.host().parse().ok()?;
    Some((SocketAddr::new(host, target.port()), "url"))
}
