//! What serves while a service refuses a renewed certificate: the one before it, of the same structure.
//!
//! A service may learn of a renewal later than Relais does. The one before is kept until the service has taken the new
//! one, and for a while after; if it refuses the new one in the handshake, a pool under the one before stands in, and
//! the new one is tried again off the request path. A certificate that is revoked or whose file was removed is never
//! fallen back on: the table judges that whenever it changes.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::AlertDescription;

use super::Pool;
use super::shelf::lock;
use crate::identity::generation::Generation;
use crate::identity::profile::Profile;
use crate::metrics::Gauged;
use crate::outbound::error::Error;
use crate::outbound::probe::Verdict;
use crate::services::{InFlight, OnRejection, Service};

/// When a refused certificate is first tried again.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How seldom it is tried in the end: people declare certificates, and one handshake in ten minutes is no burden.
const TRIED_AGAIN_AT_LATEST: Duration = Duration::from_secs(600);

/// How long the one before is kept after a service has taken a certificate for the first time. A service has several
/// machines, and the last of them learns of a renewal later than the first.
const KEPT_AFTER_FIRST_YES: Duration = Duration::from_secs(600);

/// There is nothing to fall back on, and nothing is known of the service.
const NEW: u8 = 0;
/// The service takes the certificate.
const PROVEN: u8 = 1;
/// The service has not taken the certificate yet, and there is the one before.
const UNTRIED: u8 = 2;
/// The service has taken the certificate, and the one before is kept for a while.
const TAKEN: u8 = 3;
/// The one before stands in.
const REFUSED: u8 = 4;

/// How a pool's certificate came after another.
#[derive(Debug)]
pub(super) struct Succession {
    /// Which of the states it is, for requests: they take no lock as long as nothing is refused.
    stage: AtomicU8,
    /// The service says nothing of a certificate before the first answer: it is not waited for.
    is_silent: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    New,
    Proven,
    Untried(Previous),
    Taken(Previous, Instant),
    Refused(Refused),
}

/// A certificate to fall back on.
#[derive(Debug)]
struct Previous {
    generation: Arc<Generation>,
    /// How long to wait before another try if it comes to that.
    pause: Duration,
}

struct Refused {
    alert: AlertDescription,
    stand_in: Arc<Pool>,
    pause: Duration,
    due: Instant,
    _counted: Gauged,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("alert", &self.alert)
            .field("pause", &self.pause)
            .finish_non_exhaustive()
    }
}

impl State {
    fn stage(&self) -> u8 {
        match self {
            Self::New => NEW,
            Self::Proven => PROVEN,
            Self::Untried(_) => UNTRIED,
            Self::Taken(..) => TAKEN,
            Self::Refused(_) => REFUSED,
        }
    }

    /// The certificate before, if it is still known.
    fn previous(&self) -> Option<&Arc<Generation>> {
        match self {
            Self::New | Self::Proven => None,
            Self::Untried(previous) | Self::Taken(previous, _) => Some(&previous.generation),
            Self::Refused(refused) => refused.stand_in.generation.as_ref(),
        }
    }
}

/// A renewed certificate that a service refuses.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The pool under the renewed certificate.
    pub pool: Arc<Pool>,
    /// The renewed certificate.
    pub renewed: Arc<Generation>,
    /// The certificate before it, which serves on.
    pub previous: Arc<Generation>,
    /// How the service refused it.
    pub alert: AlertDescription,
}

impl Rejected {
    /// What to do.
    pub const HINT: &'static str = "ask the service whether it knows the new certificate, and declare it there; it is tried again from time to \
         time, and at each reload";

    /// What the renewed certificate says.
    pub fn renewed(&self) -> &Profile {
        profile(&self.renewed)
    }

    /// What the certificate before it says.
    pub fn previous(&self) -> &Profile {
        profile(&self.previous)
    }
}

impl Succession {
    pub(super) fn of(previous: Option<Arc<Generation>>) -> Self {
        let state = previous.map_or(State::New, |generation| {
            State::Untried(Previous {
                generation,
                pause: TRIED_AGAIN_AFTER,
            })
        });
        Self {
            stage: AtomicU8::new(state.stage()),
            is_silent: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn enter(&self, state: &mut State, next: State) -> State {
        self.stage.store(next.stage(), Ordering::Release);
        std::mem::replace(state, next)
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }
}

impl Pool {
    /// A pool that takes over from this one, for a service that may be configured otherwise by now. It may fall back on
    /// the certificate that the service is known to take where `on_rejection` says so, the structure is the same, and
    /// it is still the same service.
    pub(crate) fn successor(
        self: &Arc<Self>,
        service: &Arc<Service>,
        generation: Arc<Generation>,
    ) -> Arc<Self> {
        let is_same_service = service.target == self.service.target
            && service.certificate == self.service.certificate
            && service.environment == self.service.environment;
        let previous = self.proven().filter(|previous| {
            let (old, new) = (profile(previous), profile(&generation));
            service.on_rejection == OnRejection::Previous
                && is_same_service
                && old.structure == new.structure
                && old.structure.is_some()
                && old.fingerprint != new.fingerprint
        });
        Self::with(
            Arc::clone(service),
            Some(generation),
            Arc::clone(&self.outbound),
            Succession::of(previous),
            self.protocol_towards(service),
        )
    }

    /// The certificate that the service is known to take.
    fn proven(&self) -> Option<Arc<Generation>> {
        match &*lock(&self.succession.state) {
            State::New => None,
            State::Proven | State::Taken(..) => self.generation.clone(),
            state => state.previous().cloned(),
        }
    }

    /// What serves in this pool's place, because its service refuses its certificate.
    pub fn stand_in(&self) -> Option<Arc<Self>> {
        if self.succession.stage() != REFUSED {
            return None;
        }
        match &*lock(&self.succession.state) {
            State::Refused(refused) => Some(Arc::clone(&refused.stand_in)),
            _ => None,
        }
    }

    /// Whether to wait for what the service says of the certificate before a request is sent: there is another to fall
    /// back on, or one that serves since this one's turn to dial came.
    pub(super) fn awaits_verdict(&self) -> bool {
        matches!(self.succession.stage(), UNTRIED | TAKEN | REFUSED)
            && !self.succession.is_silent.load(Ordering::Relaxed)
    }

    /// The service tells nothing of certificates before it answers.
    pub(crate) fn told_nothing(&self) {
        self.succession.is_silent.store(true, Ordering::Relaxed);
    }

    /// The service has taken the certificate.
    pub(crate) fn accepted(&self) {
        if matches!(self.succession.stage(), PROVEN | TAKEN | REFUSED) {
            return;
        }
        let mut state = lock(&self.succession.state);
        let next = match std::mem::replace(&mut *state, State::New) {
            State::Untried(previous) => State::Taken(previous, Instant::now()),
            State::New => State::Proven,
            other => other,
        };
        self.succession.enter(&mut state, next);
    }

    /// The service has refused the certificate. True if a request that was not sent may be sent after all: another
    /// serves from now on.
    pub(crate) fn refused(self: &Arc<Self>, alert: AlertDescription) -> bool {
        if matches!(self.succession.stage(), NEW | PROVEN) {
            return self.is_retired();
        }
        let mut state = lock(&self.succession.state);
        // Under the lock that `settle` takes for a pool that is retired: nothing is made to stand in for it after that.
        let previous = match &*state {
            State::Untried(previous) | State::Taken(previous, _) if !self.is_retired() => previous,
            State::Refused(_) => return true,
            _ => return self.is_retired(),
        };
        let pause = previous.pause;
        let stand_in = Self::with(
            Arc::clone(&self.service),
            Some(Arc::clone(&previous.generation)),
            Arc::clone(&self.outbound),
            Succession::of(None),
            self.protocol_towards(&self.service),
        );
        let refused = Refused {
            alert,
            stand_in,
            pause,
            due: Instant::now() + pause,
            _counted: self.outbound.fallback_gauge(&self.service),
        };
        self.succession.enter(&mut state, State::Refused(refused));
        drop(state);
        self.outbound.rejections_changed();
        true
    }

    /// Falls back on nothing any more: the pool is retired, or what it would fall back on is out of use.
    pub(super) fn settle(&self) {
        let mut state = lock(&self.succession.state);
        let next = match &*state {
            State::Proven | State::Taken(..) => State::Proven,
            _ => State::New,
        };
        let before = self.succession.enter(&mut state, next);
        drop(state);
        self.end(before);
    }

    fn end(&self, state: State) {
        if let State::Refused(refused) = state {
            refused.stand_in.retire(InFlight::Finish);
            self.outbound.rejections_changed();
        }
    }

    /// Falls back no longer on a certificate that is not to be used, by this judgement.
    pub(crate) fn keep_previous_if(&self, may_be_used: impl Fn(&Generation) -> bool) {
        if matches!(self.succession.stage(), NEW | PROVEN) {
            return;
        }
        let previous = lock(&self.succession.state).previous().cloned();
        if previous.is_some_and(|previous| !may_be_used(&previous)) {
            self.settle();
        }
    }

    /// What is refused, if it is.
    pub fn rejected(self: &Arc<Self>) -> Option<Rejected> {
        if self.succession.stage() != REFUSED {
            return None;
        }
        match &*lock(&self.succession.state) {
            State::Refused(refused) => Some(Rejected {
                pool: Arc::clone(self),
                renewed: self.generation.clone()?,
                previous: refused.stand_in.generation.clone()?,
                alert: refused.alert,
            }),
            _ => None,
        }
    }

    /// Has a refused certificate tried again at the next opportunity: somebody may have declared it.
    pub(crate) fn hurry(&self) {
        if self.succession.stage() == REFUSED
            && let State::Refused(refused) = &mut *lock(&self.succession.state)
        {
            refused.due = Instant::now();
            refused.pause = TRIED_AGAIN_AFTER;
        }
    }

    /// Whether to try a refused certificate again now. Says so once for each time.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        match self.succession.stage() {
            REFUSED => {}
            TAKEN => {
                self.forget_previous(now);
                return false;
            }
            _ => return false,
        }
        match &mut *lock(&self.succession.state) {
            State::Refused(refused) if refused.due <= now => {
                refused.pause = (refused.pause * 2).min(TRIED_AGAIN_AT_LATEST);
                refused.due = now + refused.pause;
                true
            }
            _ => false,
        }
    }

    fn forget_previous(&self, now: Instant) {
        let mut state = lock(&self.succession.state);
        if let State::Taken(_, since) = &*state
            && now.saturating_duration_since(*since) >= KEPT_AFTER_FIRST_YES
        {
            self.succession.enter(&mut state, State::Proven);
        }
    }

    /// Shows the service the refused certificate again. Once it takes it, requests use it, too; if it says nothing,
    /// the next request finds out.
    pub(crate) async fn try_again(self: Arc<Self>) {
        let service = &self.service.name;
        match self.probe().await {
            Ok(verdict) => {
                let mut state = lock(&self.succession.state);
                let State::Refused(refused) = &*state else {
                    return;
                };
                let previous = refused
                    .stand_in
                    .generation
                    .clone()
                    .map(|generation| Previous {
                        generation,
                        pause: refused.pause,
                    });
                let next = match (previous, verdict) {
                    (Some(previous), Verdict::Taken) => State::Taken(previous, Instant::now()),
                    (Some(previous), Verdict::Silence) => State::Untried(previous),
                    (None, _) => State::Proven,
                };
                let before = self.succession.enter(&mut state, next);
                drop(state);
                let serial = self.generation.as_ref().map(|one| &*profile(one).serial);
                tracing::info!(%service, serial, ?verdict, "the renewed certificate is used again");
                self.end(before);
            }
            Err(error @ Error::CertificateRejected(_)) => {
                tracing::info!(%service, %error, "the renewed certificate is still refused");
            }
            Err(error) => {
                tracing::debug!(%service, %error, "whether the renewed certificate is taken could not be found out");
            }
        }
    }
}

fn profile(generation: &Generation) -> &Profile {
    &generation.identity().profile
}
