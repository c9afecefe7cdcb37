//! `[[listeners]]` and `[admin]`: what is bound. Only this machine can connect, until callers are authenticated.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Found;
use super::section::Section;
use super::{Admin, ListenAddress, Listener, services};

/// The longest path of a Unix socket (`sun_path` has 108 bytes on Linux, one of them the final zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// What is bound: the listeners of applications and that of administration.
pub(super) struct Bound {
    pub(super) listeners: Option<Vec<Listener>>,
    pub(super) admin: Option<Admin>,
}

/// Reads both sections, and checks them against each other and against the names of services.
pub(super) fn read(root: &mut Section<'_>, names: &[String]) -> Bound {
    let errors_before = root.reader.error_count();
    let sections = root.list_of_sections("listeners");
    if sections.is_empty() && root.reader.error_count() == errors_before {
        let hint = "add [[listeners]] with address = \"127.0.0.1:8080\"";
        root.missing("listeners", "at least one listener", Some(hint.to_owned()));
    }
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for section in sections {
        listeners.push(listener(section, names, &mut addresses));
    }
    let admin = root
        .section("admin")
        .and_then(|section| admin(section, &mut addresses));
    refuse_duplicates(root, &addresses);
    Bound {
        listeners: listeners.into_iter().collect(),
        admin,
    }
}

fn listener(
    mut section: Section<'_>,
    names: &[String],
    addresses: &mut Vec<Found<ListenAddress>>,
) -> Option<Listener> {
    let base = &section.reader.base;
    let address = section.require("address", |raw| listen_address(raw, base));
    let tenant = section.take_finess("tenant");
    let service = section.take("service", |raw| services::declared(raw, names));
    let allowed_hosts = section.take("allowed_hosts", parse::hosts);
    section.finish();
    addresses.extend(address.clone());
    Some(Listener {
        address: address?.value,
        tenant: tenant.map(|found| found.value),
        service: service.map(|found| found.value),
        allowed_hosts: allowed_hosts.map(|found| found.value).unwrap_or_default(),
    })
}

fn admin(mut section: Section<'_>, addresses: &mut Vec<Found<ListenAddress>>) -> Option<Admin> {
    let address = section.require("address", |raw| loopback(parse::socket(raw)?));
    section.finish();
    let Found { value, spot } = address?;
    addresses.push(Found {
        value: ListenAddress::Tcp(value),
        spot,
    });
    Some(Admin { address: value })
}

pub(super) fn listen_address(raw: &Raw<'_>, base: &Path) -> Parsed<ListenAddress> {
    if let Some(path) = raw.text().and_then(|text| text.strip_prefix("unix:")) {
        return unix(path, base).map(ListenAddress::Unix);
    }
    let address = parse::socket(raw).map_err(|mut mismatch| {
        mismatch
            .expected
            .push_str(", or \"unix:/run/relais/relais.sock\"");
        mismatch
    })?;
    loopback(address).map(ListenAddress::Tcp)
}

fn unix(path: &str, base: &Path) -> Parsed<PathBuf> {
    let expected = Mismatch::expected(format!(
        "the path of a Unix socket, at most {LONGEST_SOCKET_PATH} bytes"
    ));
    let whole = base.join(path);
    match (path.is_empty(), whole.as_os_str().len()) {
        (false, ..=LONGEST_SOCKET_PATH) => Ok(whole),
        _ => Err(expected),
    }
}

/// Anyone who reaches a listener acts as the structures behind it, and anyone who reaches administration learns whom
/// it could act as.
fn loopback(address: SocketAddr) -> Parsed<SocketAddr> {
    // `::ffff:127.0.0.1` is not one that can be bound: each family has sockets of its own.
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let port = address.port();
    let expected = Mismatch::expected("a loopback address");
    Err(expected.hint(format!(
        "whoever can connect can act as every structure: use \"127.0.0.1:{port}\", \"[::1]:{port}\" or a Unix socket"
    )))
}

fn refuse_duplicates(root: &Section<'_>, addresses: &[Found<ListenAddress>]) {
    for (at, later) in addresses.iter().enumerate() {
        // Port 0 is a different port each time.
        if matches!(later.value, ListenAddress::Tcp(address) if address.port() == 0) {
            continue;
        }
        if let Some(first) = addresses[..at]
            .iter()
            .find(|first| first.value == later.value)
        {
            let text = format!("same address as {} ({})", first.spot.key, first.spot.place);
            let hint = "give each listener its own port or path";
            root.reader
                .error(&later.spot, What::Rule(text), Some(hint.to_owned()));
        }
    }
}
