//! What the national services do with a request, as far as guides, specifications and client code that works tell.
//!
//! Each service is one file of functions from a request to an answer: they open no socket and read no clock. What
//! TLS itself refuses (no certificate, one of another hierarchy, a version) is not repeated here. Where the real
//! answer is not published, the stand-in says so in its place.

mod annuaire;
mod dmp;
mod fhir;
mod insi;
mod json;
mod mssante;
mod psc;
mod ror;
mod soap;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};

pub use self::annuaire::API_KEY as ANNUAIRE_API_KEY;
pub use self::dmp::Coherence;
pub use self::insi::{SAMPLE_NAME, SOFTWARE_NUMBER};
use self::tokens::Tokens;
use crate::identity::finess::Finess;
use crate::identity::profile::{InsiMode, Profile};

/// The largest body that a stand-in reads, in bytes: what DMP's official kit accepts, the most of any service.
pub const BODY_MAX: usize = 50_000_000;

/// Which service a stand-in behaves like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// Like none: it answers every request with what it saw of it. ROC is such a one, as nothing is published.
    Plain,
    /// DMP.
    Dmp(Coherence),
    /// INSi, called in this way. The real one has one address for both.
    Insi(InsiMode),
    /// Pro Santé Connect, endpoints that servers call.
    Psc,
    /// MSSanté, an operator's HTTP interface.
    Mssante,
    /// ROR, token endpoint.
    Ror,
    /// ROR, FHIR interface.
    RorFhir,
    /// Annuaire Santé, FHIR interface.
    Annuaire,
}

/// What services know of structures before the first request: they are told when a structure joins.
pub struct Register {
    /// The legal entity of each site that has one.
    pub legal_entities: HashMap<Finess, Finess>,
    /// The subjects (RFC 4514) of the certificates that ROR knows.
    pub subjects: HashSet<String>,
    tokens: Tokens,
}

impl Register {
    /// Services that know of nobody yet.
    pub fn new() -> Self {
        Self {
            legal_entities: HashMap::new(),
            subjects: HashSet::new(),
            tokens: Tokens::new(),
        }
    }
}

impl Default for Register {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("legal_entities", &self.legal_entities)
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

/// A request as a service sees it.
pub(crate) struct Call<'a> {
    /// The client certificate, if one was shown.
    pub(super) profile: Option<&'a Profile>,
    /// Line and fields.
    pub(super) head: &'a Parts,
    /// The body, up to one byte more than [`BODY_MAX`].
    pub(super) body: &'a [u8],
    /// When, for rates.
    pub(super) now: Instant,
    /// When, in seconds since 1970, for tokens.
    pub(super) time: i64,
}

type Answer = Response<Bytes>;

/// A service's rules, with the little that it remembers from one request to the next.
pub(crate) enum Rules {
    Dmp(Coherence),
    Insi(InsiMode),
    Psc(Mutex<psc::Clients>),
    Mssante,
    Ror,
    RorFhir,
    Annuaire(Mutex<annuaire::Bucket>),
}

impl Rules {
    /// The rules of a service; none if it has none.
    pub(super) fn of(behaviour: Behaviour) -> Option<Self> {
        Some(match behaviour {
            Behaviour::Plain => return None,
            Behaviour::Dmp(coherence) => Self::Dmp(coherence),
            Behaviour::Insi(mode) => Self::Insi(mode),
            Behaviour::Psc => Self::Psc(Mutex::default()),
            Behaviour::Mssante => Self::Mssante,
            Behaviour::Ror => Self::Ror,
            Behaviour::RorFhir => Self::RorFhir,
            Behaviour::Annuaire => Self::Annuaire(Mutex::default()),
        })
    }

    pub(super) fn answer(&self, register: &Register, call: &Call<'_>) -> Answer {
        match self {
            Self::Dmp(coherence) => dmp::answer(call, register, *coherence),
            Self::Insi(mode) => insi::answer(call, *mode),
            Self::Psc(clients) => psc::answer(
                call,
                register,
                &mut clients.lock().unwrap_or_else(PoisonError::into_inner),
            ),
            Self::Mssante => mssante::answer(call),
            Self::Ror => ror::token(call, register),
            Self::RorFhir => ror::fhir(call, register),
            Self::Annuaire(bucket) => annuaire::answer(
                call,
                &mut bucket.lock().unwrap_or_else(PoisonError::into_inner),
            ),
        }
    }
}

impl Call<'_> {
    /// The text of a field; nothing if it is absent or no text.
    fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The media type, in lower case and without parameters.
    fn media_type(&self) -> String {
        let content_type = self.field("content-type").unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    /// The token of `Authorization: Bearer`.
    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.field("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

fn reply(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(body.into())
        .expect("content types are visible ASCII")
}
