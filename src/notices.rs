//! What needs somebody's attention: certificates near their end, ended or revoked, and revocation lists that are
//! missing, wrong or overdue; renewed certificates that a service refuses. Each is logged once, and posted to a webhook where there is one.

#[cfg(test)]
mod tests;
mod webhook;

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::Notify;

use crate::identity::generation::Generation;
use crate::identity::profile::Fingerprint;
use crate::identity::revocation::{CrlProblem, List, Revocations};
use crate::identity::states::{State, notice_days, timestamp};
use crate::outbound::pool::Rejected;

pub use webhook::{Webhook, deliver};

/// Fewer days than these before its end, a certificate is worth a warning: IGC-Santé itself writes then.
const WARNING_DAYS: u16 = 30;

/// One thing to tell.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    /// The same whenever the same thing is told, in another process too.
    pub id: String,
    #[serde(flatten)]
    fact: Fact,
}

/// What a notice is about; its name becomes that of the JSON object.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fact {
    Certificate(Certificate),
    RevocationList(RevocationList),
    RejectedCertificate(RejectedCertificate),
}

#[derive(Clone, Debug, Serialize)]
struct Certificate {
    state: &'static str,
    /// The certificate ends within so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold_days: Option<u16>,
    not_after: String,
    subject: String,
    serial: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<String>,
    file: String,
}

#[derive(Clone, Debug, Serialize)]
struct RevocationList {
    source: String,
    problem: &'static str,
    detail: String,
    hint: &'static str,
    /// When the successor of the list in use is or was due; absent if none is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_update: Option<String>,
}

/// A renewed certificate that a service refuses, while the one before it serves on.
#[derive(Clone, Debug, Serialize)]
struct RejectedCertificate {
    service: String,
    subject: String,
    serial: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<String>,
    /// The TLS alert in which the service said so.
    alert: String,
    /// The certificate that serves instead, and until when at most.
    previous_serial: String,
    previous_not_after: String,
}

/// What has been told, and what still has to be posted. Both are bounded by what is loaded: a certificate or a list
/// has one notice at a time, and a later one takes the place of one that was not posted.
#[derive(Debug, Default)]
pub struct Notices {
    told: Mutex<HashSet<String>>,
    /// By what they are about.
    waiting: Mutex<BTreeMap<String, Waiting>>,
    /// Where they are posted. Without one, what there is to tell is only logged.
    webhook: ArcSwapOption<Webhook>,
    arrived: Notify,
    /// Told when there is another webhook.
    replaced: Notify,
}

#[derive(Debug)]
struct Waiting {
    notice: Notice,
    /// When posting it first failed.
    failed: Option<Instant>,
}

impl Notices {
    /// Posts to this webhook from now on, or to none. One at another address has been told nothing yet: everything that
    /// still holds is new to it, as after a restart.
    pub fn post_to(&self, webhook: Option<Webhook>) {
        let webhook = webhook.map(Arc::new);
        let before = self.webhook.swap(webhook.clone());
        let address = |webhook: &Option<Arc<Webhook>>| Some(webhook.as_ref()?.address().clone());
        if address(&before) != address(&webhook) {
            lock(&self.told).clear();
            lock(&self.waiting).clear();
        }
        if before.is_some() {
            self.replaced.notify_one();
        }
    }

    /// Tells what is new at a moment in Unix seconds. Never waits.
    pub fn look(
        &self,
        generations: &[Arc<Generation>],
        revocations: &Revocations,
        rejected: &[Rejected],
        now: i64,
    ) {
        let certificates = generations
            .iter()
            .filter_map(|one| Subject::certificate(one, revocations, now));
        let lists = revocations.lists().iter();
        let lists = lists.filter_map(|list| Subject::list(list, now));
        let mut told = lock(&self.told);
        let mut current = HashSet::new();
        let rejected = rejected.iter().map(Subject::Rejected);
        for subject in certificates.chain(lists).chain(rejected) {
            let id = subject.id();
            if !told.contains(&id) {
                subject.log();
                self.post(&subject, id.clone());
            }
            current.insert(id);
        }
        *told = current;
    }

    fn post(&self, subject: &Subject<'_>, id: String) {
        if self.webhook.load().is_some() {
            let waiting = Waiting {
                notice: Notice {
                    id,
                    fact: subject.fact(),
                },
                failed: None,
            };
            lock(&self.waiting).insert(subject.key(), waiting);
            self.arrived.notify_one();
        }
    }

    /// The notice that waits to be posted after that key, in a circle, and what it is about: one that cannot be
    /// posted keeps no other waiting.
    fn after(&self, key: &str) -> Option<(String, Notice)> {
        let waiting = lock(&self.waiting);
        let mut rest = waiting.range::<str, _>((Excluded(key), Unbounded));
        let (key, next) = rest.next().or_else(|| waiting.first_key_value())?;
        Some((key.clone(), next.notice.clone()))
    }

    /// Forgets a notice that was posted, unless another has taken its place meanwhile.
    fn done(&self, key: &str, id: &str) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(key).is_some_and(|one| one.notice.id == id) {
            waiting.remove(key);
        }
    }

    /// Notes that posting a notice has failed, and forgets it if that has gone on for longer than `limit`. True if
    /// it is given up.
    fn failed(&self, key: &str, id: &str, limit: Duration) -> bool {
        let mut waiting = lock(&self.waiting);
        let Some(one) = waiting.get_mut(key).filter(|one| one.notice.id == id) else {
            return false;
        };
        let given_up = one.failed.is_some_and(|since| since.elapsed() >= limit);
        one.failed.get_or_insert_with(Instant::now);
        if given_up {
            waiting.remove(key);
        }
        given_up
    }
}

/// Something that needs attention.
enum Subject<'a> {
    Certificate {
        generation: &'a Generation,
        state: State,
        days: Option<u16>,
    },
    List {
        list: &'a List,
        problem: &'a CrlProblem,
        in_force: bool,
    },
    Rejected(&'a Rejected),
}

impl<'a> Subject<'a> {
    fn certificate(
        generation: &'a Generation,
        revocations: &Revocations,
        now: i64,
    ) -> Option<Self> {
        let profile = &generation.identity().profile;
        let state = State::of(profile, revocations, now);
        let days = match state {
            State::Revoked | State::Expired => None,
            // It is there for later, and its end is further off.
            State::NotYetValid => return None,
            State::Valid | State::Expiring => Some(notice_days(profile, now)?),
        };
        Some(Self::Certificate {
            generation,
            state,
            days,
        })
    }

    /// A list that could not be had once is nobody's concern as long as the one in use is in force.
    fn list(list: &'a List, now: i64) -> Option<Self> {
        let problem = list.problem.as_deref()?;
        let in_force = list.crl.as_ref().is_some_and(|crl| !crl.has_ended(now));
        (!in_force || !problem.may_pass()).then_some(Self::List {
            list,
            problem,
            in_force,
        })
    }

    fn key(&self) -> String {
        match self {
            Self::Certificate { generation, .. } => {
                generation.identity().profile.fingerprint.to_string()
            }
            Self::List { list, .. } => Fingerprint::of(list.source.as_bytes()).to_string(),
            Self::Rejected(rejected) => {
                let service = &rejected.pool.service().name;
                format!("{}/{service}", rejected.renewed().fingerprint)
            }
        }
    }

    fn id(&self) -> String {
        let key = self.key();
        match self {
            Self::Certificate {
                days: Some(days), ..
            } => format!("{key}/{days}-days"),
            Self::Certificate { state, .. } => format!("{key}/{}", state.as_str()),
            Self::List {
                list,
                problem,
                in_force,
            } => {
                let next_update = list.crl.as_ref().map_or(0, |crl| crl.next_update);
                // That nothing is in force is told once, however often the reason changes.
                let code = if *in_force { problem.code() } else { "none" };
                format!("{key}/{code}/{next_update}")
            }
            Self::Rejected(_) => format!("{key}/rejected"),
        }
    }

    fn fact(&self) -> Fact {
        match self {
            Self::Certificate {
                generation,
                state,
                days,
            } => {
                let identity = generation.identity();
                let profile = &identity.profile;
                Fact::Certificate(Certificate {
                    state: state.as_str(),
                    threshold_days: *days,
                    not_after: timestamp(profile.not_after),
                    subject: profile.subject.to_string(),
                    serial: profile.serial.to_string(),
                    sha256: profile.fingerprint.to_string(),
                    structure: profile.structure.as_ref().map(ToString::to_string),
                    file: identity.path.display().to_string(),
                })
            }
            Self::List { list, problem, .. } => Fact::RevocationList(RevocationList {
                source: list.source.to_string(),
                problem: problem.code(),
                detail: problem.to_string(),
                hint: problem.hint(),
                next_update: (list.crl.as_ref()).map(|crl| timestamp(crl.next_update)),
            }),
            Self::Rejected(rejected) => {
                let (renewed, previous) = (rejected.renewed(), rejected.previous());
                Fact::RejectedCertificate(RejectedCertificate {
                    service: rejected.pool.service().name.to_string(),
                    subject: renewed.subject.to_string(),
                    serial: renewed.serial.to_string(),
                    sha256: renewed.fingerprint.to_string(),
                    structure: renewed.structure.as_ref().map(ToString::to_string),
                    alert: format!("{:?}", rejected.alert),
                    previous_serial: previous.serial.to_string(),
                    previous_not_after: timestamp(previous.not_after),
                })
            }
        }
    }

    fn log(&self) {
        match self.fact() {
            Fact::Certificate(Certificate {
                state,
                threshold_days,
                not_after,
                subject,
                serial,
                file: path,
                ..
            }) => match threshold_days {
                Some(days) if days > WARNING_DAYS => {
                    tracing::info!(%path, %subject, %serial, not_after, "a certificate ends within {days} days");
                }
                Some(days) => {
                    tracing::warn!(%path, %subject, %serial, not_after, "a certificate ends within {days} days");
                }
                None => {
                    tracing::warn!(%path, %subject, %serial, not_after, "a certificate is {state}");
                }
            },
            Fact::RevocationList(RevocationList {
                source,
                detail: problem,
                hint,
                ..
            }) => tracing::warn!(%source, %problem, hint, "a revocation list needs attention"),
            Fact::RejectedCertificate(RejectedCertificate {
                service,
                subject,
                serial,
                alert,
                previous_serial,
                ..
            }) => tracing::error!(
                %service, %subject, %serial, %alert, %previous_serial, hint = Rejected::HINT,
                "a service refuses a renewed certificate: the one before it serves on"
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
