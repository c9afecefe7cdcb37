//! Tokens, their hashes, and whom a token makes a request's caller.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::HeaderMap;
use relais::config::ListenAddress;
use relais::gateway::caller::{Caller, Callers, Proof, Tenants, TokenHash};
use relais::gateway::credentials::{Credentials, Shown};
use relais::gateway::headers::Overview;
use relais::gateway::reply::Code;
use relais::identity::finess::Finess;
use relais::identity::registry::Registry;
use relais::inbound::peer::Peer;

use super::{fields, first_line};

/// Reads lines: the hash of a token, tokens that are known (one a caller, separated by blanks), a tenant and a service
/// that are asked for, and the fields of a request.
pub fn check(input: &[u8]) {
    let (hash, rest) = first_line(input);
    if let Ok(text) = str::from_utf8(hash) {
        hashes(text);
    }
    let (known, rest) = first_line(rest);
    let known: BTreeSet<&[u8]> = known
        .split(u8::is_ascii_whitespace)
        .filter(|token| !token.is_empty())
        .collect();
    let (asked, head) = first_line(rest);
    let headers = fields(head);
    recognition(&known, &headers);
    permission(asked);
}

/// A hash is read in one form alone, whatever the case of its digits.
fn hashes(text: &str) {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let is_hash = digits.len() == 64
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        // That of nothing is what a script makes that forgot its secret.
        && text.to_ascii_lowercase() != TokenHash::of(b"").to_string();
    match text.parse::<TokenHash>() {
        Ok(hash) => {
            assert!(is_hash, "{text:?}");
            assert_eq!(hash.to_string(), text.to_ascii_lowercase());
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        Err(_) => assert!(!is_hash, "{text:?}"),
    }
    let own = TokenHash::of(text.as_bytes());
    assert_ne!(own, TokenHash::of(format!("{text}.").as_bytes()));
    // What is hashed at all has the form of what `relais token` prints.
    let has_form = text.len() == 50
        && (text.strip_prefix("relais_"))
            .is_some_and(|random| random.bytes().all(is_url_safe) && text.ends_with(LAST));
    let hash = TokenHash::of_shown(text.as_bytes());
    assert_eq!(hash, has_form.then_some(own), "{text:?}");
}

/// Digits of Base64 for URLs.
fn is_url_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Those of which the last two bits are 0: 43 digits hold two bits more than 32 bytes do (RFC 4648, section 3.5).
const LAST: [char; 16] = [
    'A', 'E', 'I', 'M', 'Q', 'U', 'Y', 'c', 'g', 'k', 'o', 's', 'w', '0', '4', '8',
];

/// A token that is shown makes the caller, and only the one that has it; the listener speaks for who shows none.
fn recognition(known: &BTreeSet<&[u8]>, headers: &HeaderMap) {
    let Ok(credentials) = Credentials::read(headers, Overview::of(headers)) else {
        return;
    };
    let shown = credentials.shown;
    let address = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    let caller = |name: &str, proof| Caller {
        name: name.into(),
        proof,
        tenants: Tenants::default(),
        services: None,
        requests: None,
    };
    let with_tokens = known.iter().map(|token| {
        let hash = TokenHash::of(token);
        caller(&hash.to_string(), Proof::Tokens(vec![hash]))
    });
    let of_listener = caller("listener", Proof::Listener(address.clone()));
    let callers = Callers::new(with_tokens.chain([of_listener]));
    for is_proxied in [false, true] {
        let listener = (!is_proxied).then_some(&address);
        let recognised = callers.recognise(listener, &Peer::default(), shown);
        match (shown, recognised) {
            (Shown::Token(hash), Ok(Some(caller))) => {
                assert_eq!(*caller.name, hash.to_string());
                let token = known.iter().find(|token| TokenHash::of(token) == hash);
                let token = token.expect("it is known");
                assert!(is_in(headers, token), "{token:?} comes from nowhere");
            }
            (Shown::Token(hash), Err(problem)) => {
                assert!(!known.iter().any(|token| TokenHash::of(token) == hash));
                assert_eq!(problem.code, Code::CallerUnauthenticated);
            }
            (Shown::Else, Err(problem)) => assert_eq!(problem.code, Code::CallerUnauthenticated),
            (Shown::Nothing, Ok(Some(caller))) if !is_proxied => {
                assert_eq!(&*caller.name, "listener");
            }
            (Shown::Nothing, Err(_)) if is_proxied => {}
            (shown, other) => panic!("{shown:?} came to {other:?}"),
        }
    }
}

/// Whether a token was shown: as a field says it, or in Basic credentials.
fn is_in(headers: &HeaderMap, token: &[u8]) -> bool {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let has = |bytes: &[u8]| token.is_empty() || bytes.ends_with(token);
    headers.values().any(|value| {
        let value = value.as_bytes();
        let last = value.rsplit(|byte| *byte == b' ').next();
        has(value)
            || last
                .and_then(|word| engine.decode(word).ok())
                .is_some_and(|pair| has(&pair))
    })
}

/// A caller is let through for what is listed, and for nothing else. `asked` is a tenant and a service.
fn permission(asked: &[u8]) {
    let text = String::from_utf8_lossy(asked);
    let (tenant, service) = text.split_once(' ').unwrap_or((&text, ""));
    let tenant: Option<Finess> = tenant.parse().ok();
    let listed: Finess = "060785003".parse().expect("it has the shape");
    let entity: Finess = "010780054".parse().expect("it has the shape");
    let caller = Caller {
        name: "one".into(),
        proof: Proof::User(0),
        tenants: Tenants {
            all: false,
            listed: [listed].into_iter().collect(),
            legal_entities: [entity].into_iter().collect(),
        },
        services: Some(["dmp".to_owned()].into_iter().collect()),
        requests: None,
    };
    let may = service == "dmp" && tenant.is_none_or(|one| one == listed || one == entity);
    let admitted = caller.admit(tenant, service, &Registry::default());
    assert_eq!(admitted.is_ok(), may, "{text:?}");
    if let Err(problem) = admitted {
        assert_eq!(problem.code, Code::CallerForbidden);
    }
}
