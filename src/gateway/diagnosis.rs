//! What services' answers reveal of certificates. The answers themselves pass untouched; operators are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{Response, StatusCode};
use rustls::AlertDescription;

use crate::gateway::exchange::Exchange;
use crate::identity::states::now;
use crate::metrics::Metrics;
use crate::outbound::error::Error;

/// How often the same trouble is written down again. A misconfigured batch would fill the log otherwise.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// How much of a fault is read. INSi's faults have a few hundred bytes; their code comes first.
const READ_OF_A_FAULT: usize = 64 * 1024;

/// A trouble with certificates that can be told from outside.
#[derive(Debug, Eq, PartialEq)]
pub struct Trouble {
    /// The word for it in metrics and status: a TLS alert, or the code of a service.
    pub name: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// Fault codes that speak of the certificate, or are taken to. INSi writes them in either case.
const FAULTS: [Trouble; 2] = [
    Trouble {
        name: "desir_560",
        hint: "INSi finds the CN wrong: insi-auto wants INSI-AUTO and insi-manu INSI-MANU, to the letter; \
               is the request sent to the right one of the two services?",
    },
    Trouble {
        name: "desir_550",
        hint: "INSi does not know the software's authorisation number (NumeroAutorisation): no fault of the \
               certificate; compare it with what the CNDA gave",
    },
];

/// The longest name in [`FAULTS`].
const LONGEST_FAULT: usize = 9;

/// What has been seen of one trouble at one service.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub trouble: &'static Trouble,
    /// How often since the start.
    pub count: u64,
    /// When last, in seconds since 1970.
    pub last: i64,
    /// For whom last.
    pub tenant: Option<String>,
    /// Under which certificate last.
    pub serial: Option<String>,
    logged: Instant,
}

/// Remembers what answers revealed, by service and trouble: never more than a few entries.
#[derive(Debug)]
pub struct Diagnosis {
    seen: Mutex<BTreeMap<(Arc<str>, &'static str), Seen>>,
    metrics: Arc<Metrics>,
}

impl Diagnosis {
    /// Nothing seen yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            seen: Mutex::default(),
            metrics,
        }
    }

    /// Everything seen, with the service's name.
    pub fn seen(&self) -> Vec<(Arc<str>, Seen)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .map(|((service, _), seen)| (Arc::clone(service), seen.clone()))
            .collect()
    }

    /// Looks at why a request could not be carried.
    pub(crate) fn of_error(&self, error: &Error, exchange: &Exchange) {
        if let Error::CertificateRejected(alert) = error {
            self.note(of_alert(*alert), exchange);
        }
    }

    fn note(&self, trouble: &'static Trouble, exchange: &Exchange) {
        let Some(offered) = &exchange.offered else {
            return;
        };
        let service = &offered.service.name;
        let generation = exchange.pool.as_ref().and_then(|pool| pool.generation());
        let serial = generation.map(|one| one.identity().profile.serial.to_string());
        let tenant = exchange.tenant.map(|tenant| tenant.to_string());
        self.metrics.certificate_problem(service, trouble.name);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.get(&(Arc::clone(service), trouble.name));
        let is_due = known.is_none_or(|known| known.logged.elapsed() >= LOGGED_EVERY);
        if is_due {
            tracing::warn!(
                %service,
                tenant = tenant.as_deref().unwrap_or("-"),
                serial = serial.as_deref().unwrap_or("-"),
                trouble = trouble.name,
                hint = trouble.hint,
                "the service's answer reveals trouble with the certificate"
            );
        }
        let logged = known
            .filter(|_| !is_due)
            .map_or_else(Instant::now, |known| known.logged);
        let entry = Seen {
            trouble,
            count: known.map_or(0, |known| known.count) + 1,
            last: now(),
            tenant,
            serial,
            logged,
        };
        seen.insert((Arc::clone(service), trouble.name), entry);
    }
}

/// Reads a fault as it passes.
#[derive(Debug)]
pub(crate) struct FaultReader {
    diagnosis: Arc<Diagnosis>,
    /// The end of what has passed, since a code may be cut in two.
    tail: Vec<u8>,
    left: usize,
}

impl FaultReader {
    /// A reader for an answer that may be a SOAP fault; nothing for any other.
    pub(crate) fn of<B>(response: &Response<B>, diagnosis: &Arc<Diagnosis>) -> Option<Self> {
        if response.status() != StatusCode::INTERNAL_SERVER_ERROR {
            return None;
        }
        let content_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
        // What is compressed is not opened for this.
        let is_encoded = response.headers().contains_key(CONTENT_ENCODING);
        (content_type.contains("xml") && !is_encoded).then(|| Self {
            diagnosis: Arc::clone(diagnosis),
            tail: Vec::new(),
            left: READ_OF_A_FAULT,
        })
    }

    /// Reads the next piece. Says whether there is anything left to look for.
    pub(crate) fn read(&mut self, piece: &[u8], exchange: &Exchange) -> bool {
        let piece = &piece[..piece.len().min(self.left)];
        self.left -= piece.len();
        let mut text = std::mem::take(&mut self.tail);
        text.extend(piece.iter().map(u8::to_ascii_lowercase));
        let is_in_text = |fault: &&Trouble| {
            let name = fault.name.as_bytes();
            text.windows(name.len()).any(|window| window == name)
        };
        if let Some(fault) = FAULTS.iter().find(is_in_text) {
            self.diagnosis.note(fault, exchange);
            return false;
        }
        let kept = text.len().saturating_sub(LONGEST_FAULT - 1);
        self.tail = text.split_off(kept);
        self.left > 0
    }
}

/// The words are those of RFC 8446 section 6.
fn of_alert(alert: AlertDescription) -> &'static Trouble {
    match alert {
        AlertDescription::CertificateRevoked => &Trouble {
            name: "certificate_revoked",
            hint: "the service holds this certificate for revoked: order another with a new key and remove this one",
        },
        AlertDescription::UnknownCA => &Trouble {
            name: "unknown_ca",
            hint: "the service does not know who issued this certificate: is it one of TEST shown to production, or \
                   the reverse, or is the issuing authority's certificate missing beside it?",
        },
        AlertDescription::BadCertificate => &Trouble {
            name: "bad_certificate",
            hint: "the service cannot use this certificate: has its DN been declared there, where that is wanted (ROR)?",
        },
        AlertDescription::CertificateExpired => &Trouble {
            name: "certificate_expired",
            hint: "the service holds this certificate for expired: compare the clocks",
        },
        AlertDescription::AccessDenied => &Trouble {
            name: "access_denied",
            hint: "the service knows this certificate and refuses it: ask there what it may do",
        },
        _ => &Trouble {
            name: "certificate_refused",
            hint: "ask the service whether it knows this certificate: a new one may have to be declared to it",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_fault_is_the_one_that_is_kept_for() {
        let longest = FAULTS.iter().map(|fault| fault.name.len()).max();
        assert_eq!(longest, Some(LONGEST_FAULT));
    }

    #[test]
    fn only_a_soap_fault_is_read() {
        let diagnosis = Arc::new(Diagnosis::new(Metrics::new()));
        let reader = |status: u16, content_type: &str| {
            let response = Response::builder()
                .status(status)
                .header(CONTENT_TYPE, content_type)
                .body(())
                .unwrap();
            FaultReader::of(&response, &diagnosis).is_some()
        };
        assert!(reader(500, "application/soap+xml; charset=utf-8"));
        assert!(reader(500, "text/xml"));
        assert!(!reader(200, "application/soap+xml"));
        assert!(!reader(500, "application/json"));
        assert!(FaultReader::of(&Response::new(()), &diagnosis).is_none());
    }
}
