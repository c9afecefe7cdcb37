//! Who asks: the programs that may make requests, how each is recognised, and for whom it may speak.
//!
//! Recognised by what the system or TLS vouches for, or by a token. A token that is shown has to be right: a program
//! whose account would do is refused with a wrong one, so that a typing error is not hidden by what else it is.

mod token;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::config::ListenAddress;
use crate::gateway::credentials::Shown;
use crate::gateway::limits::Count;
use crate::gateway::reply::{Code, Problem};
use crate::identity::finess::Finess;
use crate::identity::profile::Fingerprint;
use crate::identity::registry::Registry;
use crate::inbound::peer::Peer;

pub use token::{TokenHash, TokenHashError, new_token};

const SHOW_A_TOKEN: &str = "send Proxy-Authorization: Bearer TOKEN (or X-Relais-Token: TOKEN), connect as an account or \
                            with a certificate that [[callers]] names; `relais token` makes a token";

/// A program that may make requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// What logs call it.
    pub name: Arc<str>,
    /// What it is recognised by.
    pub proof: Proof,
    /// For whom it may speak.
    pub tenants: Tenants,
    /// The services that it may use. Nothing: all of them.
    pub services: Option<FxHashSet<String>>,
    /// Requests that it may have under way at once. Nothing: as many as there may be.
    pub requests: Option<usize>,
}

/// A caller, and how many of its requests are under way.
#[derive(Debug)]
pub struct Known {
    caller: Caller,
    pub(super) under_way: Arc<Count>,
}

impl Deref for Known {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// What a caller is recognised by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// One of these tokens, each kept as its hash.
    Tokens(Vec<TokenHash>),
    /// The account of the process at the other end of a Unix socket.
    User(u32),
    /// Its primary group.
    Group(u32),
    /// The certificate shown on a listener with TLS.
    Certificate(Fingerprint),
    /// The subject of that certificate, as RFC 4514 writes it.
    Subject(Box<str>),
    /// The listener itself: whoever can connect to it.
    Listener(ListenAddress),
}

/// For whom a caller may speak.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tenants {
    /// For whoever has a certificate.
    pub all: bool,
    /// For these structures.
    pub listed: FxHashSet<Finess>,
    /// For these legal entities (EJ) and the sites (EG) that belong to them by the table of structures.
    pub legal_entities: FxHashSet<Finess>,
}

/// All callers. None at all means that whoever can connect to a listener of this machine may speak for every tenant.
#[derive(Debug, Default)]
pub struct Callers {
    all: Vec<Known>,
    tokens: FxHashMap<TokenHash, usize>,
    users: FxHashMap<u32, usize>,
    groups: FxHashMap<u32, usize>,
    certificates: FxHashMap<Fingerprint, usize>,
    subjects: FxHashMap<Box<str>, usize>,
    listeners: Vec<(ListenAddress, usize)>,
}

impl PartialEq for Callers {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.all.iter().zip(&other.all);
        self.all.len() == other.all.len()
            && pairs
                .into_iter()
                .all(|(own, other)| own.caller == other.caller)
    }
}

impl Callers {
    /// These, of which no two are recognised by the same.
    pub fn new(callers: impl IntoIterator<Item = Caller>) -> Self {
        let mut callers_by = Self::default();
        for (at, caller) in callers.into_iter().enumerate() {
            match &caller.proof {
                Proof::Tokens(hashes) => {
                    (callers_by.tokens).extend(hashes.iter().map(|hash| (*hash, at)));
                }
                Proof::User(uid) => _ = callers_by.users.insert(*uid, at),
                Proof::Group(gid) => _ = callers_by.groups.insert(*gid, at),
                Proof::Certificate(one) => _ = callers_by.certificates.insert(*one, at),
                Proof::Subject(subject) => _ = callers_by.subjects.insert(subject.clone(), at),
                Proof::Listener(address) => callers_by.listeners.push((address.clone(), at)),
            }
            callers_by.all.push(Known {
                caller,
                under_way: Arc::default(),
            });
        }
        callers_by
    }

    /// These in place of others: what is under way goes on being counted, by the caller's name.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let before = before.all.iter().map(|one| (&*one.name, &one.under_way));
        let before: FxHashMap<_, _> = before.collect();
        for known in &mut self.all {
            if let Some(under_way) = before.get(&*known.caller.name) {
                known.under_way = Arc::clone(under_way);
            }
        }
        self
    }

    /// Who makes a request. Nobody in particular, where there are no callers. `listener` is the one by which it came,
    /// where that says who makes it.
    ///
    /// # Errors
    /// When it is none of the callers.
    pub fn recognise(
        &self,
        listener: Option<&ListenAddress>,
        peer: &Peer,
        shown: Shown,
    ) -> Result<Option<&Known>, Problem> {
        if self.all.is_empty() {
            return match shown {
                // Whoever shows a token counts on being told from others.
                Shown::Token(_) => Err(unauthenticated(
                    "a token is shown, and the configuration has no [[callers]] to know it",
                )),
                Shown::Nothing | Shown::Else => Ok(None),
            };
        }
        let wrong = || unauthenticated("what is shown is no token that is known here");
        let at = match shown {
            Shown::Token(hash) => *self.tokens.get(&hash).ok_or_else(wrong)?,
            Shown::Else => return Err(wrong()),
            Shown::Nothing => self
                .ambient(listener, peer)
                .ok_or_else(|| unauthenticated("nothing says who makes the request"))?,
        };
        Ok(Some(&self.all[at]))
    }

    /// What the connection itself says.
    fn ambient(&self, listener: Option<&ListenAddress>, peer: &Peer) -> Option<usize> {
        let by_certificate = || {
            let shown = peer.certificate()?;
            let exact = self.certificates.get(&shown.fingerprint);
            exact.or_else(|| self.subjects.get(&shown.subject)).copied()
        };
        let by_process = || {
            let process = peer.process?;
            let user = self.users.get(&process.uid);
            user.or_else(|| self.groups.get(&process.gid)).copied()
        };
        let by_listener = || {
            let mut listeners = self.listeners.iter();
            listeners
                .find(|(one, _)| Some(one) == listener)
                .map(|(_, at)| *at)
        };
        by_certificate().or_else(by_process).or_else(by_listener)
    }
}

impl Caller {
    /// Lets through a request for this tenant, if it names one, to this service.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn admit(
        &self,
        tenant: Option<Finess>,
        service: &str,
        registry: &Registry,
    ) -> Result<(), Problem> {
        if (self.services.as_ref()).is_some_and(|services| !services.contains(service)) {
            return Err(self.forbidden(format!("use {service}")));
        }
        match tenant.filter(|tenant| !self.tenants.has(*tenant, registry)) {
            Some(tenant) => Err(self.forbidden(format!("speak for {tenant}"))),
            None => Ok(()),
        }
    }

    fn forbidden(&self, what: String) -> Problem {
        Problem::new(
            Code::CallerForbidden,
            format!("the caller {} may not {what}", self.name),
            "its tenants, legal_entities and services are listed under [[callers]]",
        )
    }
}

impl Tenants {
    fn has(&self, tenant: Finess, registry: &Registry) -> bool {
        let of_entity = |tenant| self.legal_entities.contains(&tenant);
        self.all
            || self.listed.contains(&tenant)
            || !self.legal_entities.is_empty()
                && (of_entity(tenant) || registry.legal_entity(tenant).is_some_and(of_entity))
    }
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::new(Code::CallerUnauthenticated, detail, SHOW_A_TOKEN)
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
