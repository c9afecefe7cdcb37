//! When a handshake may begin, and how long it is waited for what another brings.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A store to which one handshake, long since begun, is to bring a session.
fn led(now: Instant) -> Kept {
    let mut kept = Kept::default();
    assert_eq!(kept.admit(now, now), Ok((Way::Leads, false)));
    kept.begun = Some(now);
    kept
}

/// The end of it.
fn over(kept: &mut Kept, now: Instant, took: Duration) {
    (kept.under_way, kept.leading) = (0, 0);
    (kept.led, kept.awaited) = (Some((now, took)), Some(now));
}

#[test]
fn while_the_first_has_not_begun_others_wait_and_then_for_a_second_at_most() {
    let now = Instant::now();
    let mut kept = led(now);
    kept.begun = None;
    assert_eq!(kept.admit(now, now + ALONE_FOR * 9), Err(None));
    kept.begun = Some(now);
    assert_eq!(kept.admit(now, now), Err(Some(now + ALONE_FOR)));
    let beside = kept.admit(now, now + ALONE_FOR);
    assert_eq!(beside, Ok((Way::Leads, false)));
}

#[test]
fn for_a_ticket_nobody_waits_longer_than_the_handshake_took_that_it_saves() {
    for took in [MS, 300 * MS] {
        let now = Instant::now();
        let mut kept = led(now);
        over(&mut kept, now, took);
        let until = now + took.max(AWAITED_FOR);
        assert_eq!(kept.admit(now, now), Err(Some(until)));
        assert_eq!(kept.admit(now, until), Ok((Way::Leads, false)));
        // It was in vain, and is not done again.
        assert_eq!(kept.admit(until, until), Ok((Way::Free, false)));
    }
}

#[test]
fn where_no_ticket_is_on_its_way_nobody_waits() {
    let now = Instant::now();
    let mut kept = led(now);
    kept.received();
    over(&mut kept, now, MS);
    let later = now + 2 * AWAITED_FOR;
    assert_eq!(kept.admit(later, later), Ok((Way::Leads, false)));
}

#[test]
fn where_sessions_are_refused_nobody_waits() {
    let now = Instant::now();
    let mut kept = led(now);
    kept.received();
    kept.refused = REFUSED_AT_MOST;
    assert_eq!(kept.admit(now, now), Ok((Way::Free, false)));
}
