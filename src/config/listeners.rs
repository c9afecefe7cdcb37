//! `[[listeners]]` and `[admin]`: what is bound. Only this machine can connect, unless there is TLS and callers are known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Found;
use super::section::Section;
use super::{Admin, ListenAddress, Listener, ListenerTls, listener_tls, services};
use crate::gateway::caller::{Caller, Proof};

/// The longest path of a Unix socket (`sun_path` has 108 bytes on Linux, one of them the final zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// What is bound: the listeners of applications and that of administration.
pub(super) struct Bound {
    pub(super) listeners: Option<Vec<Listener>>,
    pub(super) admin: Option<Admin>,
    /// Those that other machines can reach, whatever else is wrong with them.
    exposed: Vec<Exposed>,
}

/// A listener that other machines can reach.
struct Exposed {
    address: Found<SocketAddr>,
    /// Whether it is to speak TLS.
    has_tls: bool,
    /// Whether it lets nobody in without a certificate.
    is_closed: bool,
}

/// Reads both sections, and checks them against each other and against the names of services.
pub(super) fn read(root: &mut Section<'_>, names: &[String]) -> Bound {
    let errors_before = root.reader.error_count();
    let sections = root.list_of_sections("listeners");
    if sections.is_empty() && root.reader.error_count() == errors_before {
        let hint = "add [[listeners]] with address = \"127.0.0.1:8080\"";
        root.missing("listeners", "at least one listener", Some(hint.to_owned()));
    }
    let (mut addresses, mut exposed) = (Vec::new(), Vec::new());
    let mut listeners = Vec::new();
    for section in sections {
        listeners.push(listener(section, names, &mut addresses, &mut exposed));
    }
    let admin = root
        .section("admin")
        .and_then(|section| admin(section, &mut addresses));
    refuse_duplicates(root, &addresses);
    Bound {
        listeners: listeners.into_iter().collect(),
        admin,
        exposed,
    }
}

/// Anyone who reaches a listener may try to act as the structures behind it: from another machine, only over TLS, and
/// only as one of the callers.
pub(super) fn refuse_exposed(root: &Section<'_>, bound: &Bound, callers: &[Caller]) {
    for Exposed {
        address,
        has_tls,
        is_closed,
    } in &bound.exposed
    {
        let port = address.value.port();
        let local = format!("\"127.0.0.1:{port}\", \"[::1]:{port}\" or a Unix socket");
        if !has_tls || callers.is_empty() {
            let missing = match (has_tls, callers.is_empty()) {
                (false, true) => "[listeners.tls] and [[callers]]",
                (false, false) => "[listeners.tls]",
                (true, _) => "[[callers]]",
            };
            let what = What::Mismatch {
                found: format!("\"{}\"", address.value),
                expected: "a loopback address".to_owned(),
            };
            let hint = format!(
                "whoever can connect can act as every structure: use {local}; other addresses take {missing}"
            );
            root.reader.error(&address.spot, what, Some(hint));
        }
        let is_callers = |caller: &&Caller| {
            let here = ListenAddress::Tcp(address.value);
            matches!(&caller.proof, Proof::Listener(one) if *one == here)
        };
        if let Some(caller) = callers.iter().find(is_callers).filter(|_| !is_closed) {
            let text = format!("every machine that can connect would be the caller {caller}");
            let hint = "give the listener client_authorities, or recognise that caller by a token";
            (root.reader).error(&address.spot, What::Rule(text), Some(hint.to_owned()));
        }
    }
}

fn listener(
    mut section: Section<'_>,
    names: &[String],
    addresses: &mut Vec<Found<ListenAddress>>,
    exposed: &mut Vec<Exposed>,
) -> Option<Listener> {
    let base = &section.reader.base;
    let address = section.require("address", |raw| listen_address(raw, base));
    let tenant = section.take_finess("tenant");
    let service = section.take("service", |raw| services::declared(raw, names));
    let allowed_hosts = section.take("allowed_hosts", parse::hosts);
    let has_intercept = section.has("intercept");
    let intercept = (section.section("intercept")).and_then(listener_tls::intercept);
    let has_tls = section.has("tls");
    let tls = section.section("tls");
    let spot = tls.as_ref().map(|tls| tls.spot.clone());
    let tls = tls.and_then(listener_tls::read);
    match address.as_ref().map(|found| &found.value) {
        Some(ListenAddress::Tcp(tcp)) if !tcp.ip().is_loopback() => {
            exposed.extend(address.as_ref().map(|found| Exposed {
                address: Found {
                    value: *tcp,
                    spot: found.spot.clone(),
                },
                has_tls,
                is_closed: tls.as_ref().is_some_and(ListenerTls::is_closed),
            }));
        }
        Some(ListenAddress::Unix(_)) if has_tls => {
            let text = "a Unix socket does not speak TLS".to_owned();
            let hint =
                "no other machine reaches it, and [[callers]] know accounts by user or group";
            let spot = spot.as_ref().unwrap_or(&section.spot);
            (section.reader).error(spot, What::Rule(text), Some(hint.to_owned()));
        }
        _ => {}
    }
    section.finish();
    addresses.extend(address.clone());
    // What cannot be read must not leave a listener in clear text.
    if has_tls && tls.is_none() || has_intercept && intercept.is_none() {
        return None;
    }
    Some(Listener {
        address: address?.value,
        tenant: tenant.map(|found| found.value),
        service: service.map(|found| found.value),
        allowed_hosts: allowed_hosts.map(|found| found.value).unwrap_or_default(),
        tls,
        intercept,
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
    Ok(ListenAddress::Tcp(address))
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

/// Anyone who reaches administration learns whom Relais could act as, and nobody is asked who it is there.
fn loopback(address: SocketAddr) -> Parsed<SocketAddr> {
    // `::ffff:127.0.0.1` is not one that can be bound: each family has sockets of its own.
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let port = address.port();
    let expected = Mismatch::expected("a loopback address");
    Err(expected.hint(format!(
        "whoever can connect learns of every structure: use \"127.0.0.1:{port}\" or \"[::1]:{port}\""
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
