//! What serves while a service refuses a renewed certificate: the one before it, of the same structure.
//!
//! A service may learn of a renewal later than Relais does. Until it has taken a new certificate once, the one before is
//! kept; if it refuses the new one in the handshake, a pool under the one before stands in, and the new one is tried
//! again off the request path.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::AlertDescription;

use super::{InFlight, Pool, lock};
use crate::identity::generation::Generation;
use crate::identity::profile::Profile;
use crate::metrics::Gauged;
use crate::outbound::error::Error;
use crate::services::OnRejection;

/// When a refused certificate is first tried again.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How seldom it is tried in the end: people declare certificates, and one handshake in ten minutes is no burden.
const TRIED_AGAIN_AT_LATEST: Duration = Duration::from_secs(600);

/// There is nothing to fall back on, or no need to.
const SETTLED: u8 = 0;
/// The service has not been shown the certificate yet.
const UNTRIED: u8 = 1;
/// The one before stands in.
const REFUSED: u8 = 2;

/// How a pool's certificate came after another.
#[derive(Debug)]
pub(super) struct Succession {
    /// Which of the states it is, for requests: they take no lock as long as it is settled.
    stage: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Settled,
    Untried(Arc<Generation>),
    Refused(Refused),
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
        let (stage, state) = match previous {
            Some(previous) => (UNTRIED, State::Untried(previous)),
            None => (SETTLED, State::Settled),
        };
        Self {
            stage: AtomicU8::new(stage),
            state: Mutex::new(state),
        }
    }

    fn enter(&self, state: &mut State, next: State) -> State {
        let stage = match &next {
            State::Settled => SETTLED,
            State::Untried(_) => UNTRIED,
            State::Refused(_) => REFUSED,
        };
        self.stage.store(stage, Ordering::Release);
        std::mem::replace(state, next)
    }

    fn is(&self, stage: u8) -> bool {
        self.stage.load(Ordering::Acquire) == stage
    }
}

impl Pool {
    /// A pool that takes over from `before`, and may fall back on its certificate where the service's `on_rejection`
    /// says so, the structure is the same, and the service has been spoken to under it.
    pub(crate) fn successor(self: &Arc<Self>, generation: Arc<Generation>) -> Arc<Self> {
        let previous = self.proven().filter(|previous| {
            self.service.on_rejection == OnRejection::Previous
                && profile(previous).structure == profile(&generation).structure
                && profile(previous).structure.is_some()
        });
        Self::with(
            Arc::clone(&self.service),
            Some(generation),
            Arc::clone(&self.outbound),
            Succession::of(previous),
        )
    }

    /// The certificate that the service is known to take, as far as anything is known.
    fn proven(&self) -> Option<Arc<Generation>> {
        match &*lock(&self.succession.state) {
            State::Untried(previous) => Some(Arc::clone(previous)),
            State::Refused(refused) => refused.stand_in.generation.clone(),
            State::Settled => {
                let was_used = self.active.get().is_some();
                self.generation.clone().filter(|_| was_used)
            }
        }
    }

    /// What serves in this pool's place, because its service refuses its certificate.
    pub fn stand_in(&self) -> Option<Arc<Self>> {
        if !self.succession.is(REFUSED) {
            return None;
        }
        match &*lock(&self.succession.state) {
            State::Refused(refused) => Some(Arc::clone(&refused.stand_in)),
            State::Settled | State::Untried(_) => None,
        }
    }

    /// Whether the service has yet to be shown the certificate, and there is another to fall back on.
    pub(super) fn is_untried(&self) -> bool {
        self.succession.is(UNTRIED)
    }

    /// The service has taken the certificate: there is nothing to fall back from any more.
    pub(crate) fn accepted(&self) {
        if self.is_untried() {
            let mut state = lock(&self.succession.state);
            if matches!(*state, State::Untried(_)) {
                self.succession.enter(&mut state, State::Settled);
            }
        }
    }

    /// The service has refused the certificate. True if a request that was not sent may be sent after all: another
    /// serves from now on.
    pub(crate) fn refused(self: &Arc<Self>, alert: AlertDescription) -> bool {
        if self.succession.is(SETTLED) {
            return false;
        }
        let mut state = lock(&self.succession.state);
        // Under the lock that `settle` takes for a pool that is retired: nothing is made to stand in for it after that.
        let previous = match &*state {
            State::Untried(previous) if !self.is_retired() => Arc::clone(previous),
            State::Refused(_) => return true,
            State::Untried(_) | State::Settled => return self.is_retired(),
        };
        let stand_in = Self::new(
            Arc::clone(&self.service),
            Some(previous),
            Arc::clone(&self.outbound),
        );
        let refused = Refused {
            alert,
            stand_in,
            pause: TRIED_AGAIN_AFTER,
            due: Instant::now() + TRIED_AGAIN_AFTER,
            _counted: self.outbound.fallback_gauge(&self.service),
        };
        self.succession.enter(&mut state, State::Refused(refused));
        self.outbound.rejections_changed();
        true
    }

    /// Lets nothing stand in any more: the pool is retired, or the service takes its certificate.
    pub(super) fn settle(&self, in_flight: InFlight) {
        let mut state = lock(&self.succession.state);
        let before = self.succession.enter(&mut state, State::Settled);
        drop(state);
        if let State::Refused(refused) = before {
            refused.stand_in.retire(in_flight);
            self.outbound.rejections_changed();
        }
    }

    /// Falls back no longer on a certificate that must not be used, by this judgement.
    pub(crate) fn withdraw_previous(
        &self,
        is_withdrawn: impl Fn(&Generation) -> bool,
        in_flight: InFlight,
    ) {
        let previous = match &*lock(&self.succession.state) {
            State::Settled => return,
            State::Untried(previous) => Some(Arc::clone(previous)),
            State::Refused(refused) => refused.stand_in.generation.clone(),
        };
        if previous.is_some_and(|previous| is_withdrawn(&previous)) {
            self.settle(in_flight);
        }
    }

    /// What is refused, if it is.
    pub fn rejected(self: &Arc<Self>) -> Option<Rejected> {
        if !self.succession.is(REFUSED) {
            return None;
        }
        match &*lock(&self.succession.state) {
            State::Refused(refused) => Some(Rejected {
                pool: Arc::clone(self),
                renewed: self.generation.clone()?,
                previous: refused.stand_in.generation.clone()?,
                alert: refused.alert,
            }),
            State::Settled | State::Untried(_) => None,
        }
    }

    /// Has a refused certificate tried again at the next opportunity: somebody may have declared it.
    pub(crate) fn hurry(&self) {
        if let State::Refused(refused) = &mut *lock(&self.succession.state) {
            refused.due = Instant::now();
            refused.pause = TRIED_AGAIN_AFTER;
        }
    }

    /// Whether to try a refused certificate again now. Says so once for each time.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        if !self.succession.is(REFUSED) {
            return false;
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

    /// Shows the service the refused certificate again. Once it takes it, requests use it, too.
    pub(crate) async fn try_again(self: Arc<Self>) {
        match self.probe().await {
            Ok(()) => {
                tracing::info!(
                    service = %self.service.name,
                    serial = %self.generation.as_ref().map_or("-", |one| &profile(one).serial),
                    "the service takes the renewed certificate now"
                );
                self.settle(InFlight::Finish);
            }
            Err(error @ Error::CertificateRejected(_)) => {
                tracing::info!(service = %self.service.name, %error, "the renewed certificate is still refused");
            }
            Err(error) => {
                tracing::debug!(service = %self.service.name, %error, "whether the renewed certificate is taken could not be found out");
            }
        }
    }
}

fn profile(generation: &Generation) -> &Profile {
    &generation.identity().profile
}
