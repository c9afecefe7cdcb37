//! How the configuration of a file differs from the one in use: what is taken up, and what has to wait for a restart.

mod lost;

use std::collections::BTreeSet;
use std::fmt::Display;

use bytesize::ByteSize;
use serde::Serialize;

use crate::config::{AccessLog, Config, ListenAddress, Listener, LogFormat};
use crate::gateway::caller::{Caller, Proof};
use crate::inbound::listener::describe;

/// A key whose value in the file is not the one in use, and will not be before a restart.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Restart {
    /// The key, as `listeners[0].address`.
    pub key: String,
    /// What is in use; "none" where there is nothing.
    pub running: String,
    /// What the file says; "none" where it says nothing.
    pub configured: String,
}

/// Where there is nothing.
const NONE: &str = "none";

impl Restart {
    fn new(key: &str, running: impl Display, configured: impl Display) -> Self {
        Self {
            key: key.to_owned(),
            running: running.to_string(),
            configured: configured.to_string(),
        }
    }
}

/// Puts what needs a restart back to what is running, and tells what that is. Listeners then are those that are bound,
/// in their order, each with what the file says of its address.
pub(super) fn hold_back(new: &mut Config, running: &Config) -> Vec<Restart> {
    let (told, listeners) = listeners(&running.listeners, &new.listeners);
    let mut restart = differing(running, new);
    restart.extend(told);
    restart.extend(callers(running, new));
    restart.extend(lost::of_revocation(
        &running.revocation,
        &mut new.revocation,
    ));
    for service in &mut new.services {
        let before = (running.services.iter()).find(|one| one.name == service.name);
        if let Some(before) = before {
            restart.extend(lost::of_service(before, service));
        }
    }
    if new.callers.is_empty() && !running.callers.is_empty() {
        // Without callers, whoever connects speaks for everybody: half of a file that was read must not bring that about.
        restart.push(Restart::new("callers", running.callers.len(), NONE));
        new.callers.clone_from(&running.callers);
    }
    new.workers = running.workers;
    new.listeners = listeners;
    new.admin.clone_from(&running.admin);
    new.log.format = running.log.format;
    new.log.access.clone_from(&running.log.access);
    new.limits = running.limits;
    new.process = running.process;
    new.shutdown_grace = running.shutdown_grace;
    restart
}

/// What differs in what is left, by section: `services.dmp`, `listeners`.
pub(super) fn taken_up(old: &Config, new: &Config) -> Vec<String> {
    let sections = [
        ("environment", old.environment == new.environment),
        ("listeners", old.listeners == new.listeners),
        ("callers", old.callers == new.callers),
        ("identities", old.identities == new.identities),
        ("revocation", old.revocation == new.revocation),
        ("notices", old.notices == new.notices),
        ("tenants", old.tenants == new.tenants),
        ("vendor", old.vendor == new.vendor),
        ("bindings", old.bindings == new.bindings),
        ("log.level", old.log.level == new.log.level),
    ];
    let sections = sections.into_iter().filter(|(_, is_same)| !is_same);
    let sections = sections.map(|(name, _)| name.to_owned());
    let all = old.services.iter().chain(&new.services);
    let names: BTreeSet<_> = all.map(|service| &service.name).collect();
    let of = |config: &Config, name: &str| {
        let mut services = config.services.iter();
        services.find(|service| &*service.name == name).cloned()
    };
    let differs = |name: &str| of(old, name) != of(new, name);
    let services = names.into_iter().filter(|name| differs(name));
    let services = services.map(|name| format!("services.{name}"));
    sections.chain(services).collect()
}

fn differing(running: &Config, new: &Config) -> Vec<Restart> {
    let admin = |config: &Config| match &config.admin {
        Some(admin) => admin.address.to_string(),
        None => NONE.to_owned(),
    };
    let format = |config: &Config| match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let access = |config: &Config| match &config.log.access {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stdout => "stdout".to_owned(),
        AccessLog::File(path) => path.display().to_string(),
    };
    let key =
        |key, value: &dyn Fn(&Config) -> String| Restart::new(key, value(running), value(new));
    let keys = [
        key("workers", &|one| one.workers.to_string()),
        key("admin.address", &admin),
        key("log.format", &|one| format(one).to_owned()),
        key("log.access", &access),
        key("limits.inbound_connections", &|one| {
            one.limits.inbound_connections.to_string()
        }),
        key("limits.upstream_connections", &|one| {
            one.limits.upstream_connections.to_string()
        }),
        key("limits.request_head", &|one| {
            // No head comes near what a u64 cannot hold.
            ByteSize::b(one.limits.request_head as u64).to_string()
        }),
        key("limits.head_timeout", &|one| {
            humantime::format_duration(one.limits.head_timeout).to_string()
        }),
        key("limits.requests", &|one| one.limits.requests.to_string()),
        key("process.core_dumps", &|one| {
            one.process.core_dumps.to_string()
        }),
        key("process.sandbox", &|one| one.process.sandbox.to_string()),
        key("shutdown.grace", &|one| {
            humantime::format_duration(one.shutdown_grace).to_string()
        }),
    ];
    let differing = keys.into_iter().filter(|one| one.running != one.configured);
    differing.collect()
}

/// Puts callers back that are recognised by a listener whose TLS waits for a restart: whoever connects in clear text would
/// be one, and has shown nothing of what they rest on.
fn callers(running: &Config, new: &mut Config) -> Vec<Restart> {
    let has = |config: &Config, address: &ListenAddress, is_secured: bool| {
        let mut there = config
            .listeners
            .iter()
            .filter(|one| one.address == *address);
        there.any(|one| one.tls.is_some() == is_secured)
    };
    let file = std::mem::take(&mut new.callers);
    let mut told = Vec::new();
    for (at, caller) in file.into_iter().enumerate() {
        let waits = match &caller.proof {
            Proof::Listener(address) => has(running, address, false) && has(new, address, true),
            _ => false,
        };
        if !waits || running.callers.contains(&caller) {
            new.callers.push(caller);
            continue;
        }
        let is_it = |one: &&Caller| one.name == caller.name && one.proof == caller.proof;
        let before = running.callers.iter().find(is_it);
        let as_it_was = before.map_or_else(|| NONE.to_owned(), |one| format!("{one} as before"));
        told.push(Restart::new(&format!("callers[{at}]"), as_it_was, &caller));
        new.callers.extend(before.cloned());
    }
    told
}

/// Which addresses are not as they are bound, and which begin or cease to speak TLS; and what is bound, with what is new
/// of it. The same address can be there
/// several times if its port is 0.
fn listeners(bound: &[Listener], new: &[Listener]) -> (Vec<Restart>, Vec<Listener>) {
    let mut waiting: Vec<(usize, &Listener)> = new.iter().enumerate().collect();
    // Where the system chose the ports of several, an application knows its port alone, and what the file says of one
    // must never become another's.
    let count = |all: &[Listener], address: &ListenAddress| {
        all.iter().filter(|one| one.address == *address).count()
    };
    let is_it = |one: &Listener, of: &Listener| {
        let address = &of.address;
        count(bound, address) == 1 && count(new, address) == 1 || one == of
    };
    let (mut missing, mut told) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for (at, listener) in bound.iter().enumerate() {
        let same = waiting
            .iter()
            .position(|(_, one)| one.address == listener.address && is_it(one, listener));
        match same {
            Some(found) => {
                let (index, found) = waiting.remove(found);
                let mut found = found.clone();
                if found.tls.is_some() != listener.tls.is_some() {
                    let speaks = |one: &Listener| if one.tls.is_some() { "on" } else { NONE };
                    let key = format!("listeners[{index}].tls");
                    told.push(Restart::new(&key, speaks(listener), speaks(&found)));
                    found.tls.clone_from(&listener.tls);
                }
                if found.intercept != listener.intercept {
                    let takes = |one: &Listener| match &one.intercept {
                        Some(files) => files.authority.display().to_string(),
                        None => NONE.to_owned(),
                    };
                    let key = format!("listeners[{index}].intercept");
                    told.push(Restart::new(&key, takes(listener), takes(&found)));
                    found.intercept.clone_from(&listener.intercept);
                }
                told.extend(lost::of_listener(index, listener, &mut found));
                all.push(found);
            }
            None => {
                missing.push((at, listener));
                all.push(listener.clone());
            }
        }
    }
    // One that is bound and no longer there, and one that is there and not bound, are most often the same one moved.
    let moved = (0..missing.len().max(waiting.len())).map(|nth| {
        let (running, configured) = (missing.get(nth), waiting.get(nth));
        let at = configured.or(running).map_or(0, |(at, _)| *at);
        let address = |listener: Option<&(usize, &Listener)>| {
            listener.map_or_else(|| NONE.to_owned(), |(_, one)| describe(&one.address))
        };
        let key = format!("listeners[{at}].address");
        Restart::new(&key, address(running), address(configured))
    });
    told.extend(moved);
    (told, all)
}
