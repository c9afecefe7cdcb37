//! Who may do what under which certificate, as it was at each moment, and what was seen of it at the services.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use http::Request;
use hyper::body::Incoming;
use relais::identity::finess::Finess;

use crate::witness::{self, Connection, NONCE, SERVICE, TENANT, said};

/// When the request began, in microseconds of the judge's clock.
pub const BEGUN: &str = "x-begun";
/// The number of the caller that makes it.
pub const CALLER: &str = "x-made-by";
/// Is on a request that must not pass, whatever its caller may do.
pub const NEVER: &str = "x-must-not-pass";

/// What is told in full of what went wrong.
const TOLD: usize = 20;

/// Whether a caller may speak for a tenant to a service, both by their numbers.
pub type Rights = fn(caller: usize, tenant: usize, service: usize) -> bool;

/// Rights that may be in force, and until when.
#[derive(Clone, Copy, Debug)]
struct InForce {
    rights: Rights,
    until: u64,
}

/// A certificate that was issued.
#[derive(Clone, Copy, Debug)]
struct Certificate {
    tenant: usize,
    /// From when on no request may begin under it, and why.
    until: u64,
    why: &'static str,
}

/// Knows what was allowed, and notes what was not.
#[derive(Debug)]
pub struct Judge {
    begun: Instant,
    tenants: Vec<Finess>,
    services: Vec<&'static str>,
    certificates: RwLock<HashMap<String, Certificate>>,
    rights: RwLock<Vec<InForce>>,
    /// Of requests that may be sent once, those that were seen: a bit each.
    once: Mutex<Vec<u64>>,
    wrong: Mutex<Vec<String>>,
    wrongs: AtomicU64,
    passed: AtomicU64,
}

impl Judge {
    pub fn new(tenants: Vec<Finess>, services: Vec<&'static str>, requests: usize) -> Self {
        Self {
            begun: Instant::now(),
            tenants,
            services,
            certificates: RwLock::default(),
            rights: RwLock::default(),
            once: Mutex::new(vec![0; requests / 64 + 1]),
            wrong: Mutex::default(),
            wrongs: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        }
    }

    /// What time it is.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// A certificate is about to be put where the gateway finds it.
    pub fn issued(&self, sha256: &str, tenant: usize) {
        let until = u64::MAX;
        let why = "";
        let certificate = Certificate { tenant, until, why };
        let mut certificates = self.certificates.write().unwrap();
        certificates.insert(sha256.to_owned(), certificate);
    }

    /// From now on no request begins under a certificate.
    pub fn withdrawn(&self, sha256: &str, why: &'static str) {
        let now = self.now();
        if let Some(certificate) = self.certificates.write().unwrap().get_mut(sha256)
            && certificate.until == u64::MAX
        {
            (certificate.until, certificate.why) = (now, why);
        }
    }

    /// These rights may come into force from now on.
    pub fn may_come(&self, rights: Rights) {
        let until = u64::MAX;
        self.rights.write().unwrap().push(InForce { rights, until });
    }

    /// The latest rights are in force, and no others.
    pub fn have_come(&self) {
        let now = self.now();
        let mut all = self.rights.write().unwrap();
        let (_, before) = all.split_last_mut().unwrap();
        for one in before {
            one.until = one.until.min(now);
        }
        // Requests take seconds at most.
        all.retain(|one| one.until == u64::MAX || now - one.until < 60_000_000);
    }

    /// Whether a certificate was issued to a tenant.
    pub fn is_of(&self, sha256: &str, tenant: usize) -> bool {
        let certificates = self.certificates.read().unwrap();
        certificates
            .get(sha256)
            .is_some_and(|one| one.tenant == tenant)
    }

    pub fn note(&self, what: String) {
        self.wrongs.fetch_add(1, Ordering::Relaxed);
        let mut wrong = self.wrong.lock().unwrap();
        if wrong.len() < TOLD {
            wrong.push(what);
        }
    }

    /// Requests that came to a service.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// What went wrong: how often, and the first of it.
    pub fn verdict(&self) -> (u64, Vec<String>) {
        let wrong = self.wrong.lock().unwrap().clone();
        (self.wrongs.load(Ordering::Relaxed), wrong)
    }

    fn examine(
        &self,
        connection: &Connection,
        service: usize,
        request: &Request<Incoming>,
    ) -> Result<(), String> {
        let headers = request.headers();
        let number = |name| {
            said(headers, name)
                .parse::<u64>()
                .map_err(|_| name.to_owned())
        };
        let tenant = said(headers, TENANT);
        let tenant = self.tenants.iter().position(|one| one.as_str() == tenant);
        let tenant = tenant.ok_or_else(|| "it is for nobody".to_owned())?;
        let begun = number(BEGUN)?;
        let caller = usize::try_from(number(CALLER)?).unwrap();
        if said(headers, SERVICE) != self.services[service] {
            return Err("it was meant for another service".to_owned());
        }
        if connection.ou != Some(format!("1{}", self.tenants[tenant])) {
            return Err("the certificate is another structure's".to_owned());
        }
        let sha256 = connection.sha256.as_deref().unwrap_or_default();
        let certificate = self.certificates.read().unwrap().get(sha256).copied();
        let certificate =
            certificate.ok_or_else(|| "the certificate was never issued".to_owned())?;
        if certificate.tenant != tenant {
            return Err("the certificate was issued to another".to_owned());
        }
        if certificate.until < begun {
            let Certificate { until, why, .. } = certificate;
            return Err(format!("at {until} the certificate was {why}"));
        }
        if headers.contains_key(NEVER) {
            return Err("it should never have passed".to_owned());
        }
        let secret = ["x-relais-token", "proxy-authorization", "x-finess"];
        if secret.iter().any(|name| headers.contains_key(*name)) {
            return Err("what is for Relais alone has passed".to_owned());
        }
        let is_allowed = self
            .rights
            .read()
            .unwrap()
            .iter()
            .any(|one| one.until >= begun && (one.rights)(caller, tenant, service));
        if !is_allowed {
            return Err("the caller may not do this".to_owned());
        }
        if !request.method().is_idempotent() {
            let nonce = number(NONCE)?;
            let (word, bit) = (usize::try_from(nonce / 64).unwrap(), 1 << (nonce % 64));
            let mut once = self.once.lock().unwrap();
            let word = once
                .get_mut(word)
                .ok_or_else(|| "its number is too high".to_owned())?;
            if *word & bit != 0 {
                return Err("it was sent twice".to_owned());
            }
            *word |= bit;
        }
        Ok(())
    }
}

/// A judge at one of the services.
#[derive(Debug)]
pub struct At {
    pub judge: Arc<Judge>,
    pub service: usize,
}

impl witness::Judge for At {
    fn arrived(&self, connection: &Connection, request: &Request<Incoming>) {
        self.judge.passed.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = self.judge.examine(connection, self.service, request) {
            self.judge.note(format!(
                "at {} µs: {why}: {} {:?} over {connection:?}",
                self.judge.now(),
                request.method(),
                request.headers()
            ));
        }
    }
}
