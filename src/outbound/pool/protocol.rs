//! Which version of HTTP the connections of a pool speak.
//!
//! With few requests in flight HTTP/1.1 costs less: each has a connection to itself and nothing is framed. With many,
//! HTTP/2 does, because the frames of several requests go into one write and are read by one read. What is not known
//! beforehand is what a service speaks. So the first connections offer HTTP/1.1 alone, and HTTP/2 is offered by the
//! first connection that is opened because there are many requests: a service that does not speak it chooses HTTP/1.1
//! on that very connection and is not asked again.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::services::HttpVersions;

/// Requests in flight at which both versions cost the same CPU time. Measured with one tenant in front of nginx, over
/// TLS 1.3 with answers of 1 KiB (`docs/performance.md` has the table): HTTP/2 costs 1.2 times as much as HTTP/1.1 with
/// 4 in flight, the same with 8, and 0.87 times with 16.
const EVEN: usize = 8;

/// As few requests in flight, counted each second, let HTTP/1.1 be used again: half of what moved the pool to HTTP/2,
/// so that it does not go to and fro at the border.
const FEW: usize = EVEN / 2;

/// Seconds in a row with few requests. Moving back costs a handshake for each connection, which is paid back after some
/// hundred requests.
const FEW_FOR: u8 = 10;

/// HTTP/1.1, until there are many requests.
const SINGLY: u8 = 0;
/// HTTP/2, until there are few.
const TOGETHER: u8 = 1;
/// HTTP/1.1: nothing else is to be spoken, or is spoken there.
const H1: u8 = 2;
/// HTTP/2, for the same reasons.
const H2: u8 = 3;

/// The version that a pool uses, and whether the other may be tried.
#[derive(Debug)]
pub(super) struct Protocol {
    state: AtomicU8,
    /// Seconds with few requests, so far.
    few_for: AtomicU8,
}

impl Protocol {
    pub(super) fn of(http: HttpVersions) -> Self {
        Self::in_state(match http {
            HttpVersions::Auto => SINGLY,
            HttpVersions::H1 => H1,
            HttpVersions::H2 => H2,
        })
    }

    /// That of a pool which takes over from this one, at the same service. What the service does not speak today it may
    /// speak by then.
    pub(super) fn inherited(&self, http: HttpVersions) -> Self {
        match (http, self.state()) {
            (HttpVersions::Auto, state @ (TOGETHER | H2)) => Self::in_state(state),
            _ => Self::of(http),
        }
    }

    fn in_state(state: u8) -> Self {
        Self {
            state: AtomicU8::new(state),
            few_for: AtomicU8::new(0),
        }
    }

    /// What is decided here guards nothing: a request that reads it late is served all the same.
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Whether requests share connections of HTTP/2.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.state(), TOGETHER | H2)
    }

    /// Whether more requests than `limit` connections can carry, or than HTTP/1.1 serves cheaply, move it to HTTP/2.
    pub(super) fn weigh(&self, requests: usize, limit: usize) {
        if requests > EVEN.min(limit) {
            self.share();
        }
    }

    /// Connections are short: requests share them, if the service lets them.
    pub(super) fn share(&self) {
        self.few_for.store(0, Ordering::Relaxed);
        self.change(SINGLY, TOGETHER);
    }

    /// Whether to count the requests in flight, each second.
    pub(super) fn is_weighed(&self) -> bool {
        self.state() == TOGETHER
    }

    /// So many requests were in flight, this second.
    pub(super) fn counted(&self, requests: usize) {
        if requests > FEW {
            self.few_for.store(0, Ordering::Relaxed);
        } else if self.few_for.fetch_add(1, Ordering::Relaxed) + 1 >= FEW_FOR {
            self.change(TOGETHER, SINGLY);
        }
    }

    /// The service chose HTTP/1.1 where it was offered both.
    pub(super) fn needs_h1(&self) {
        self.state.store(H1, Ordering::Relaxed);
    }

    /// The service refuses HTTP/1.1.
    pub(super) fn needs_h2(&self) {
        self.change(SINGLY, H2);
    }

    fn change(&self, from: u8, to: u8) {
        // Somebody else may have learnt more meanwhile.
        let _ = (self.state).compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_to_http_2_moves_back_after_a_while_of_few_requests_and_no_sooner() {
        let protocol = Protocol::of(HttpVersions::Auto);
        protocol.weigh(EVEN, 64);
        assert!(!protocol.is_shared());
        protocol.weigh(EVEN + 1, 64);
        assert!(protocol.is_shared());
        for _ in 1..FEW_FOR {
            protocol.counted(0);
        }
        protocol.counted(FEW + 1);
        for _ in 1..FEW_FOR {
            protocol.counted(FEW);
            assert!(protocol.is_shared());
        }
        protocol.counted(FEW);
        assert!(!protocol.is_shared());
    }

    #[test]
    fn a_successor_opens_what_the_one_before_it_used() {
        let (auto, h1) = (HttpVersions::Auto, HttpVersions::H1);
        let many = Protocol::of(auto);
        many.weigh(EVEN + 1, 64);
        assert!(many.inherited(auto).is_shared());
        assert!(!many.inherited(h1).is_shared());
        // It moves back as the one before would have.
        assert!(many.inherited(auto).is_weighed());
        let alone = Protocol::of(auto);
        alone.needs_h2();
        assert!(alone.inherited(auto).is_shared());
        assert!(!Protocol::of(auto).inherited(auto).is_shared());
    }

    #[test]
    fn more_requests_than_connections_are_allowed_share_them() {
        let protocol = Protocol::of(HttpVersions::Auto);
        protocol.weigh(3, 2);
        assert!(protocol.is_shared());
    }

    #[test]
    fn what_is_configured_or_refused_is_not_weighed() {
        let h1 = Protocol::of(HttpVersions::H1);
        let refused = Protocol::of(HttpVersions::Auto);
        refused.needs_h1();
        for protocol in [h1, refused] {
            protocol.weigh(1000, 64);
            assert!(!protocol.is_shared());
        }
        let h2 = Protocol::of(HttpVersions::H2);
        for _ in 0..2 * FEW_FOR {
            h2.counted(0);
        }
        assert!(h2.is_shared());
    }
}
