//! TLS sessions of one (generation, service), and whose turn it is to begin another.
//!
//! A full handshake costs a millisecond of RSA here and as much at the service; resuming costs a tenth. So where there
//! is no session to resume, one handshake goes first and the others wait for what it brings: in TLS 1.2 a session that
//! any number can resume, in TLS 1.3 tickets, of which each serves once. (RFC 8446 appendix C.4 wants it so, and rustls
//! gives no second copy.) Servers send two after a full handshake and one or two after a resumed one, so connections
//! that are opened together after that follow each other two by two; nobody waits long for that.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;
use tokio::sync::Notify;

use crate::outbound::tls::Handshake;

/// Tickets kept. Each holds the server's chain and often a copy of the client's: some 5 KiB. In the long run there are
/// no more than a server sends after a full handshake, two, however many connections were opened.
const TICKETS: usize = 4;

/// How long at least to wait for a ticket before a full handshake is made after all. The server has sent it before it
/// has read the first request; the time is for the way and for a worker that is busy. Longer is waited only where a
/// handshake takes longer: who waits as long as what it waits to save is never more than twice as late as without.
const AWAITED_FOR: Duration = Duration::from_millis(100);

/// How long a handshake goes alone. A first packet that was lost is sent again after a second (RFC 6298), and whoever
/// has waited so long goes on beside it.
const ALONE_FOR: Duration = Duration::from_secs(1);

/// How long a session is taken for good. One that is older may be out of date (nginx keeps them for five minutes): it
/// is tried by one handshake first.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// Young sessions refused in a row before it is not waited for sessions any more. One may be the change of a key.
const REFUSED_AT_MOST: u8 = 2;

/// The sessions that one client configuration keeps. They serve one server: the name that rustls asks for is always
/// the same.
pub(crate) struct Sessions {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Default)]
struct Kept {
    tickets: VecDeque<Tls13ClientSessionValue>,
    tls12: Option<Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
    /// When a session was last received or resumed; never, as long as the server has given none.
    good: Option<Instant>,
    /// Tickets that handshakes which are about to begin will take.
    promised: usize,
    /// Handshakes whose turn it is.
    under_way: usize,
    /// Those of them that may turn out full ones, so that the others wait for what they bring.
    leading: usize,
    /// When the latest of those really began.
    begun: Option<Instant>,
    /// When the last full handshake was over, and how long it took.
    led: Option<(Instant, Duration)>,
    /// When the handshake was over whose ticket is on its way.
    awaited: Option<Instant>,
    /// The server has answered without having sent a session, or let the time for it pass.
    is_silent: bool,
    /// Young sessions that it refused in a row.
    refused: u8,
}

/// What a handshake goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// It resumes a session that is good.
    Resumes,
    /// It tries an old one: others wait for what becomes of it.
    Tries,
    /// It has none: others wait for what it brings.
    Leads,
    /// Nobody waits for it.
    Free,
}

impl Way {
    fn is_first(self) -> bool {
        matches!(self, Self::Tries | Self::Leads)
    }
}

/// Leave to make one handshake. Whoever waits goes on when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    sessions: Option<Arc<Sessions>>,
    way: Way,
    is_promised: bool,
    begun: Instant,
}

impl Sessions {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a session to resume, as long as one may be on its way, for a request that asked for one then.
    pub(crate) async fn turn(self: Arc<Self>, asked: Instant) -> Turn {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, so that what changes in between is not missed.
            changed.as_mut().enable();
            let admitted = self.kept().admit(asked, Instant::now());
            let until = match admitted {
                Ok((way, is_promised)) => {
                    return Turn {
                        sessions: Some(Arc::clone(&self)),
                        way,
                        is_promised,
                        begun: Instant::now(),
                    };
                }
                Err(until) => until,
            };
            match until {
                None => changed.await,
                Some(until) => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// Keeps one ticket: who comes after a pause resumes with it and brings others, and each of thousands of pools that
    /// are at rest would hold several kilobytes for nobody.
    pub(crate) fn rest(&self) {
        let mut kept = self.kept();
        // Those that are promised are in use.
        if kept.promised == 0 && kept.tickets.len() > 1 {
            let latest = kept.tickets.pop_back();
            kept.tickets = latest.into_iter().collect();
        }
    }

    /// The first bytes of an answer have come, and no ticket before them.
    pub(crate) fn answered_without_ticket(&self) {
        let mut kept = self.kept();
        kept.awaited = None;
        kept.is_silent = kept.good.is_none();
        drop(kept);
        self.changed.notify_waiters();
    }
}

impl Kept {
    /// Whether a handshake may begin, and whether a ticket was promised to it; or until when to wait for something to
    /// change, if the time is known.
    fn admit(&mut self, asked: Instant, now: Instant) -> Result<(Way, bool), Option<Instant>> {
        let is_promised = self.tls12.is_none() && self.tickets.len() > self.promised;
        let has_session = self.tls12.is_some() || is_promised;
        let is_good = self.good.is_some_and(|good| now < good + GOOD_FOR);
        let nobody_waits = self.is_silent || self.refused >= REFUSED_AT_MOST;
        let way = match has_session {
            true if is_good => Way::Resumes,
            _ if nobody_waits => Way::Free,
            true if self.leading == 0 => Way::Tries,
            _ => {
                let until = self.patience(asked, now);
                if until.is_none_or(|until| now < until) {
                    return Err(until);
                }
                // It was not worth the while: nobody waits again until a session comes after all.
                let in_vain = self.led.is_some_and(|(over, _)| over >= asked);
                self.is_silent |= in_vain && self.good.is_none();
                Way::Leads
            }
        };
        self.promised += usize::from(is_promised);
        self.under_way += 1;
        self.leading += usize::from(way.is_first());
        Ok((way, is_promised))
    }

    /// Until when it is waited for a session: now, if none is on its way; open, while the handshake that goes first
    /// has yet to begin.
    fn patience(&self, asked: Instant, now: Instant) -> Option<Instant> {
        let (over, within) = self.led.map_or((asked, AWAITED_FOR), |(over, took)| {
            (over.max(asked), took.max(AWAITED_FOR))
        });
        if self.leading > 0 && self.led.is_none_or(|(over, _)| over < asked) {
            return Some(self.begun?.max(asked) + ALONE_FOR);
        }
        if self.under_way > 0 {
            return Some(over + within);
        }
        let awaited = self.awaited.map_or(now, |awaited| awaited + within);
        Some(awaited.min(over + within))
    }

    /// A session has come.
    fn received(&mut self) {
        self.good = Some(Instant::now());
        self.awaited = None;
        self.is_silent = false;
    }
}

impl Turn {
    /// A turn where sessions are not kept.
    pub(crate) fn free() -> Self {
        Self {
            sessions: None,
            way: Way::Free,
            is_promised: false,
            begun: Instant::now(),
        }
    }

    /// Whether others wait for what becomes of it.
    pub(crate) fn leads(&self) -> bool {
        self.way.is_first()
    }

    /// The handshake begins.
    pub(crate) fn begin(&mut self) {
        self.begun = Instant::now();
        if let Some(sessions) = self.sessions.as_ref().filter(|_| self.leads()) {
            sessions.kept().begun = Some(self.begun);
            // Only now is it known until when to wait.
            sessions.changed.notify_waiters();
        }
    }

    /// The session that it was promised, it has taken.
    pub(crate) fn has_greeted(&mut self) {
        if let Some(sessions) = self.sessions.as_ref().filter(|_| self.is_promised) {
            sessions.kept().promised -= 1;
            self.is_promised = false;
        }
    }

    /// The handshake is over.
    pub(crate) fn ended(&mut self, how: Handshake) {
        let Some(sessions) = &self.sessions else {
            return;
        };
        let now = Instant::now();
        let mut kept = sessions.kept();
        match how {
            Handshake::Resumed => {
                kept.good = Some(now);
                kept.refused = 0;
            }
            Handshake::Full => {
                kept.led = Some((now, now.duration_since(self.begun)));
                match self.way {
                    Way::Resumes => kept.refused = kept.refused.saturating_add(1),
                    // What is older than an old ticket that was refused is no better.
                    Way::Tries => kept.tickets.clear(),
                    Way::Leads | Way::Free => {}
                }
            }
        }
        if kept.tls12.is_none() {
            kept.awaited = Some(now);
        }
        drop(kept);
        self.leave();
    }

    fn leave(&mut self) {
        self.has_greeted();
        let Some(sessions) = self.sessions.take() else {
            return;
        };
        let mut kept = sessions.kept();
        kept.under_way -= 1;
        kept.leading -= usize::from(self.leads());
        drop(kept);
        sessions.changed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        let mut kept = self.kept();
        kept.tls12 = Some(session);
        kept.received();
        drop(kept);
        self.changed.notify_waiters();
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() == TICKETS {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(ticket);
        kept.received();
        drop(kept);
        // It serves one.
        self.changed.notify_one();
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}

/// Says nothing of what it keeps: with it, a session could be resumed by somebody else.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
