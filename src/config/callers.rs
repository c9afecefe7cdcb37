//! `[[callers]]`: the programs that may make requests, how they are recognised, and for whom they may speak.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use nix::unistd::{Group, User};
use rustc_hash::FxHashSet;

use super::ListenAddress;
use super::bindings::fingerprint;
use super::listeners::{self, Bound};
use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::Found;
use super::section::Section;
use crate::gateway::caller::{Caller, Proof, Tenants, TokenHash};
use crate::inbound::listener::describe;
use crate::inbound::peer::NOBODY;

/// The keys by which a caller is recognised.
const WAYS: [&str; 6] = [
    "tokens",
    "user",
    "group",
    "fingerprint",
    "subject",
    "listener",
];

/// Stands for all tenants, or all services.
const ALL: &str = "*";

/// Reads all callers, and checks them against each other, the listeners and the names of services.
pub(super) fn read(root: &mut Section<'_>, bound: &Bound, names: &[String]) -> Vec<Caller> {
    let mut callers: Vec<Found<Caller>> = Vec::new();
    for section in root.list_of_sections("callers") {
        let spot = section.spot.clone();
        let caller = caller(section, bound, names);
        callers.extend(caller.map(|value| Found { value, spot }));
    }
    refuse_confusable(root, &callers);
    callers.into_iter().map(|found| found.value).collect()
}

fn caller(mut section: Section<'_>, bound: &Bound, names: &[String]) -> Option<Caller> {
    let name = section.require("name", caller_name);
    let proof = proof(&mut section, bound);
    let (has_tenants, has_entities) = (section.has("tenants"), section.has("legal_entities"));
    if !has_tenants && !has_entities {
        let expected =
            "the FINESS numbers that the caller may speak for, [\"*\"] for all, or legal_entities";
        section.missing("tenants", expected, None);
    }
    let tenants = section.take("tenants", tenants);
    let legal_entities = section.take("legal_entities", finess_numbers);
    // Given each time, as tenants are: of a file that is read while it is written the end is missing, and what is
    // missing must not stand for everything.
    let services = section.require("services", |raw| names_of_services(raw, names));
    let requests = section.take("requests", parse::count(1..=1_000_000));
    let reader = section.reader;
    let spot = section.spot.clone();
    section.finish();
    let mut allowed = tenants.map(|found| found.value).unwrap_or_default();
    allowed.legal_entities = legal_entities
        .map(|found| found.value.into_iter().collect())
        .unwrap_or_default();
    let proof = proof?;
    let is_one = !allowed.all && allowed.listed.len() == 1 && allowed.legal_entities.is_empty();
    if matches!(proof, Proof::Listener(_)) && !is_one {
        let text =
            "whoever can connect to a listener would speak for several structures".to_owned();
        let hint =
            "give the listener's caller exactly one tenant, or recognise it by a token".to_owned();
        reader.error(&spot, What::Rule(text), Some(hint));
    }
    Some(Caller {
        name: name?.value.into(),
        proof,
        tenants: allowed,
        services: services?.value,
        requests: requests.map(|found| found.value),
    })
}

/// Exactly one way to recognise a caller.
fn proof(section: &mut Section<'_>, bound: &Bound) -> Option<Proof> {
    match WAYS.into_iter().filter(|way| section.has(way)).count() {
        0 => section.missing("tokens", format!("one of {}", WAYS.join(", ")), None),
        1 => {}
        _ => {
            let text = format!("several of {}", WAYS.join(", "));
            let hint = "give each a [[callers]] of its own".to_owned();
            (section.reader).error(&section.spot, What::Rule(text), Some(hint));
        }
    }
    let base = &section.reader.base;
    let found = [
        section.take("tokens", |raw| token_hashes(raw).map(Proof::Tokens)),
        section.take("user", |raw| user(raw).map(Proof::User)),
        section.take("group", |raw| group(raw).map(Proof::Group)),
        section.take("fingerprint", |raw| {
            fingerprint(raw).map(Proof::Certificate)
        }),
        section.take("subject", |raw| {
            parse::text(raw).map(|subject| Proof::Subject(subject.into()))
        }),
        section.take("listener", |raw| {
            let address = listeners::listen_address(raw, base)?;
            of_a_listener(address, bound).map(Proof::Listener)
        }),
    ];
    found.into_iter().flatten().next().map(|found| found.value)
}

/// It goes into each line of the log, as it is.
fn caller_name(raw: &Raw<'_>) -> Parsed<String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    let name = raw
        .text()
        .filter(|name| name.len() <= 64 && !name.is_empty() && name.bytes().all(is_plain));
    name.map(str::to_owned).ok_or_else(|| {
        Mismatch::expected(
            "a name for the log: letters without accents, digits and - _ . @, 64 at most, such as \"dui-site-1\"",
        )
    })
}

fn token_hashes(raw: &Raw<'_>) -> Parsed<Vec<TokenHash>> {
    let expected = "a list of hashes of tokens, such as [\"sha256:…\"]";
    let hashes = parse::list(expected, |text| {
        text.parse::<TokenHash>()
            .map_err(|error| Some(error.to_string()))
    })(raw);
    // It may well be a token.
    hashes.map_err(Mismatch::hidden)
}

fn user(raw: &Raw<'_>) -> Parsed<u32> {
    let named = |name: &str| User::from_name(name).ok().flatten();
    account(raw, "user", |name| {
        named(name).map(|user| user.uid.as_raw())
    })
}

fn group(raw: &Raw<'_>) -> Parsed<u32> {
    let named = |name: &str| Group::from_name(name).ok().flatten();
    account(raw, "group", |name| {
        named(name).map(|group| group.gid.as_raw())
    })
}

/// A number, or a name that this machine knows.
fn account(raw: &Raw<'_>, what: &str, named: impl Fn(&str) -> Option<u32>) -> Parsed<u32> {
    let number = raw.integer().and_then(|number| u32::try_from(number).ok());
    let found = number.or_else(|| {
        let text = raw.text()?;
        named(text).or_else(|| text.parse().ok())
    });
    let expected = || {
        Mismatch::expected(format!(
            "a {what} of this machine, by its name or its number"
        ))
    };
    match found {
        Some(NOBODY) => Err(expected().hint(
            "this one stands for all whom the kernel cannot tell apart here, those of another user namespace for one",
        )),
        found => found.ok_or_else(expected),
    }
}

fn of_a_listener(address: ListenAddress, bound: &Bound) -> Parsed<ListenAddress> {
    let all = bound.listeners.as_deref().unwrap_or_default();
    let found = all.iter().filter(|one| one.address == address).count();
    if bound.listeners.is_none() || found == 1 {
        return Ok(address);
    }
    if found > 1 {
        let expected = "the address of exactly one of [[listeners]]";
        return Err(Mismatch::expected(expected).hint("give the listener a port of its own"));
    }
    let known: Vec<_> = all.iter().map(|one| describe(&one.address)).collect();
    Err(Mismatch::expected("the address of one of [[listeners]]")
        .hint(format!("there are: {}", known.join(", "))))
}

fn tenants(raw: &Raw<'_>) -> Parsed<Tenants> {
    let expected = "a list of FINESS numbers, such as [\"060785003\"], or [\"*\"] for all tenants";
    let items = parse::list(expected, |text| match text {
        ALL => Ok(None),
        text => finess(text).map(Some),
    })(raw)?;
    if items.is_empty() {
        return Err(Mismatch::expected(expected));
    }
    Ok(Tenants {
        all: items.contains(&None),
        listed: items.into_iter().flatten().collect(),
        ..Tenants::default()
    })
}

fn finess_numbers(raw: &Raw<'_>) -> Parsed<Vec<crate::identity::finess::Finess>> {
    let expected = "a list of FINESS numbers of legal entities (EJ), such as [\"010780054\"]";
    let numbers = parse::list(expected, finess)(raw)?;
    match numbers.is_empty() {
        true => Err(Mismatch::expected(expected)),
        false => Ok(numbers),
    }
}

fn finess(text: &str) -> Result<crate::identity::finess::Finess, Option<String>> {
    text.parse()
        .map_err(|error: crate::identity::finess::FinessError| Some(error.to_string()))
}

fn names_of_services(raw: &Raw<'_>, names: &[String]) -> Parsed<Option<FxHashSet<String>>> {
    let expected =
        "a list of services of this configuration, such as [\"dmp\"], or [\"*\"] for all of them";
    let known = |text: &str| text == ALL || names.iter().any(|name| name == text);
    let list = parse::list(expected, |text| match known(text) {
        true => Ok(text.to_owned()),
        false => Err(Some(format!("there are: {}", names.join(", ")))),
    })(raw)?;
    match list.is_empty() {
        true => Err(Mismatch::expected(expected)),
        false if list.iter().any(|name| name == ALL) => Ok(None),
        false => Ok(Some(list.into_iter().collect())),
    }
}

/// What one caller is recognised by, another is not, and no two have the same name.
fn refuse_confusable(root: &Section<'_>, callers: &[Found<Caller>]) {
    let mut names: HashMap<Arc<str>, &Found<Caller>> = HashMap::new();
    let mut proofs: HashMap<String, &Found<Caller>> = HashMap::new();
    let refuse = |what: &dyn Display, first: &Found<Caller>, later: &Found<Caller>| {
        let text = format!("{what} as {} ({})", first.spot.key, first.spot.place);
        let hint = "each caller has its own; what one program may do goes into one [[callers]]";
        (root.reader).error(&later.spot, What::Rule(text), Some(hint.to_owned()));
    };
    for later in callers {
        if let Some(first) = names.insert(Arc::clone(&later.value.name), later) {
            refuse(&"same name", first, later);
        }
        let marks = match &later.value.proof {
            Proof::Tokens(hashes) => hashes.iter().map(ToString::to_string).collect(),
            proof => vec![format!("{proof:?}")],
        };
        for mark in marks {
            if let Some(first) = proofs.insert(mark, later) {
                refuse(&"recognised by the same", first, later);
            }
        }
    }
}
