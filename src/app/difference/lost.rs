//! What only narrows what is let through and is gone from the file. It stays until a restart: whoever can write half of a
//! file must not widen rights by it. Another value in its place is taken up.

use std::path::Path;

use super::{NONE, Restart};
use crate::config::{Listener, Revocation, Unknown};
use crate::crls::name_of;
use crate::services::{Owner, Service, Trust};

/// Puts back what has gone from a listener, of which the file speaks at that place.
pub(super) fn of_listener(at: usize, running: &Listener, new: &mut Listener) -> Vec<Restart> {
    let mut lost = Lost::of(format!("listeners[{at}]"));
    lost.value("tenant", &running.tenant, &mut new.tenant, |one| {
        one.to_string()
    });
    lost.value("service", &running.service, &mut new.service, String::clone);
    if let (Some(running), Some(new)) = (&running.tls, &mut new.tls) {
        let key = "tls.client_authorities";
        lost.value(key, &running.clients, &mut new.clients, |one| {
            path(&one.authorities)
        });
        if let (Some(running), Some(new)) = (&running.clients, &mut new.clients) {
            lost.entries("tls.crls", &running.crls, &mut new.crls, |one| path(one));
        }
    }
    lost.told
}

/// Puts back whom a service believes and whose certificates it is shown, where that would become everybody's: without the
/// key, that may be the default.
pub(super) fn of_service(running: &Service, new: &mut Service) -> Vec<Restart> {
    let mut lost = Lost::of(format!("services.{}", running.name));
    if let (Trust::File(file), Trust::Public) = (&running.trust, &new.trust) {
        lost.tell("trust", path(file), "public".to_owned());
        new.trust.clone_from(&running.trust);
    }
    if (running.owner, new.owner) == (Owner::Structure, Owner::Vendor) {
        lost.tell("owner", "structure".to_owned(), "vendor".to_owned());
        new.owner = running.owner;
    }
    lost.told
}

/// Puts back what has gone from `[revocation]`.
pub(super) fn of_revocation(running: &Revocation, new: &mut Revocation) -> Vec<Restart> {
    let mut lost = Lost::of("revocation".to_owned());
    lost.entries("crls", &running.crls, &mut new.crls, |one| {
        name_of(one).to_string()
    });
    // Those who sign the lists that are put back, and where such lists are kept.
    lost.value("trust", &running.trust, &mut new.trust, |one| path(one));
    lost.value("cache", &running.cache, &mut new.cache, |one| path(one));
    if (running.unknown, new.unknown) == (Unknown::Refuse, Unknown::Accept) {
        new.unknown = running.unknown;
        lost.tell("unknown", "refuse".to_owned(), "accept".to_owned());
    }
    lost.told
}

/// What was put back of one section.
struct Lost {
    section: String,
    told: Vec<Restart>,
}

impl Lost {
    fn of(section: String) -> Self {
        let told = Vec::new();
        Self { section, told }
    }

    fn value<T: Clone>(
        &mut self,
        key: &str,
        running: &Option<T>,
        new: &mut Option<T>,
        say: impl Fn(&T) -> String,
    ) {
        if let (Some(value), None) = (running, &new) {
            self.tell(key, say(value), NONE.to_owned());
            *new = Some(value.clone());
        }
    }

    /// A list of which entries are gone, and none has come in their place.
    fn entries<T: Clone + PartialEq>(
        &mut self,
        key: &str,
        running: &[T],
        new: &mut Vec<T>,
        say: impl Fn(&T) -> String,
    ) {
        let is_less = running.iter().any(|one| !new.contains(one));
        if is_less && new.iter().all(|one| running.contains(one)) {
            let all = |list: &[T]| match list {
                [] => NONE.to_owned(),
                list => list.iter().map(&say).collect::<Vec<_>>().join(", "),
            };
            self.tell(key, all(running), all(new));
            *new = running.to_vec();
        }
    }

    fn tell(&mut self, key: &str, running: String, configured: String) {
        let key = format!("{}.{key}", self.section);
        self.told.push(Restart::new(&key, running, configured));
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
