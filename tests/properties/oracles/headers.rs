//! What of a head crosses the gateway.

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, UPGRADE};
use relais::gateway::headers::{Overview, for_application, for_service, of_trailers};

use super::fields;

/// Speaks of one connection (RFC 9110 section 7.6.1), or to Relais: never to be seen by the other side.
const NEVER: [&str; 8] = [
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "x-finess",
    "x-relais-token",
];

/// Passes a head in each direction.
pub fn check(input: &[u8]) {
    let before = fields(input);
    let mut after = before.clone();
    let is_upgrade = for_service(&mut after, Overview::of(&before));
    assert!(!after.contains_key(HOST));
    crossing(&before, &after, &NEVER, is_upgrade, true);
    if before.get_all(COOKIE).iter().count() > 0 && !connection_names(&before).contains("cookie") {
        let joined = after.get_all(COOKIE).iter().count();
        assert_eq!(joined, 1, "one field of cookies (RFC 9113 section 8.2.3)");
    }
    let mut again = after.clone();
    assert_eq!(for_service(&mut again, Overview::of(&after)), is_upgrade);
    assert_eq!(again, after, "a second gateway passes what the first does");

    for switching in [false, true] {
        let mut after = before.clone();
        for_application(&mut after, switching);
        let is_upgrade = after.contains_key(UPGRADE);
        assert!(switching || !is_upgrade);
        assert!(!after.contains_key(TE));
        // What a service says under the names of Relais's own fields means nothing to applications.
        crossing(&before, &after, &NEVER[..6], is_upgrade, false);
    }

    let mut after = before.clone();
    of_trailers(&mut after);
    for name in [CONNECTION, TE, UPGRADE, HOST] {
        assert!(!after.contains_key(&name), "{name} in trailers");
    }
    crossing(&before, &after, &NEVER, false, false);
}

/// What must hold of every crossing: `never` is gone, and what `Connection` named; the rest is as it was.
fn crossing(
    before: &HeaderMap,
    after: &HeaderMap,
    never: &[&str],
    is_upgrade: bool,
    is_request: bool,
) {
    for name in never {
        assert!(!after.contains_key(*name), "{name} has crossed");
    }
    let named = connection_names(before);
    let own = [CONNECTION, TE, UPGRADE];
    for name in after.keys() {
        assert!(
            before.contains_key(name) || *name == CONNECTION,
            "{name} is new"
        );
        let may_stay = own.contains(name) || *name == CONTENT_LENGTH || *name == HOST;
        assert!(
            may_stay || !named.contains(name.as_str()),
            "{name} has crossed though Connection names it"
        );
        if own.contains(name) || is_request && *name == COOKIE {
            continue;
        }
        let values = |map: &HeaderMap| map.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(values(before), values(after), "{name}");
    }
    for name in before.keys() {
        let is_stripped = never.contains(&name.as_str())
            || named.contains(name.as_str())
            || own.contains(name)
            || *name == HOST;
        assert!(is_stripped || after.contains_key(name), "{name} is lost");
    }
    for te in after.get_all(TE) {
        assert_eq!(te, "trailers");
    }
    for option in after.get_all(CONNECTION) {
        assert!(
            option == "te" && after.contains_key(TE)
                || option == "upgrade" && after.contains_key(UPGRADE)
        );
    }
    assert_eq!(after.contains_key(UPGRADE), is_upgrade);
    if let Some(protocol) = after.get(UPGRADE) {
        assert!(named.contains("upgrade") && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"));
    }
}

/// What `Connection` names, whatever else stands there: a peer that ignores what it does not understand reads it so.
fn connection_names(headers: &HeaderMap) -> BTreeSet<String> {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| str::from_utf8(option.trim_ascii()).ok())
        .map(str::to_ascii_lowercase)
        .collect()
}
