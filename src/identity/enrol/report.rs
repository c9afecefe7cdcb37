//! What installing a certificate means: what it changes against the one that it replaces, and who has to know.

use std::path::PathBuf;

use serde::Serialize;

use super::served::{Known, Served};
use crate::identity::states::timestamp;

/// A certificate in its place.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// Its file.
    pub path: PathBuf,
    /// Its subject, in RFC 4514 order.
    pub subject: Box<str>,
    /// Its serial number.
    pub serial: Box<str>,
    /// Its SHA-256.
    pub sha256: String,
    /// Its start.
    pub not_before: String,
    /// Its end.
    pub not_after: String,
    /// Whether it was there already.
    pub was_there: bool,
    /// The one of the same name that requests have gone out under so far.
    pub replaces: Option<Previous>,
    /// Where there is none such: one of another name, or pinned, that the gateway chooses among with this one.
    pub beside: Option<Previous>,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

/// A certificate of the same structure and kind that was there before.
#[derive(Clone, Debug, Serialize)]
pub struct Previous {
    /// Its file, which stays.
    pub path: PathBuf,
    /// Its serial number.
    pub serial: String,
    /// Its end.
    pub not_after: String,
    /// Whether the new one certifies the same key.
    pub same_key: bool,
    /// The fields of the subject that differ, each as `O: before → after`. Empty: the subject is the same.
    pub subject: Vec<String>,
    /// Who must be told once requests go out under the new one, and of what.
    pub tell: Vec<String>,
    /// What to do with the old file.
    pub advice: String,
}

impl Installed {
    /// The report of a verified certificate among those that are served.
    pub(super) fn new(new: &Known, served: &Served, now: i64) -> Self {
        let profile = &new.profile;
        let later = later(new, served, now);
        let old = previous(new, served, now).filter(|_| later.is_none());
        let previous = old.map(|old| Previous::new(old, new, served, now));
        let (replaces, beside) = match old.is_some_and(|old| is_renewal(new, old, served)) {
            true => (previous, None),
            false => (None, previous),
        };
        Self {
            path: new.path.clone(),
            subject: profile.subject.clone(),
            serial: profile.serial.clone(),
            sha256: profile.fingerprint.to_string(),
            not_before: timestamp(profile.not_before),
            not_after: timestamp(profile.not_after),
            was_there: false,
            replaces,
            beside,
            warnings: warnings(new, served, later, now),
        }
    }
}

fn warnings(new: &Known, served: &Served, later: Option<&Known>, now: i64) -> Vec<String> {
    let profile = &new.profile;
    let mut warnings = Vec::new();
    if profile.not_before > now {
        let begins = timestamp(profile.not_before);
        warnings.push(format!("it begins on {begins}, and is not used before"));
    }
    let is_no_finess = (profile.structure.as_ref()).is_some_and(|id| id.finess().is_none());
    if is_no_finess && !served.is_vendors(new) {
        warnings.push(
            "its OU is no FINESS number, so no tenant is found by it; list it under [vendor] if it is the éditeur's"
                .to_owned(),
        );
    }
    warnings.extend(later.map(|later| {
        format!(
            "it is not used: of several, the gateway uses the one that began last, and that is {}",
            later.path.display()
        )
    }));
    warnings.extend(served.twin(new).map(|twin| {
        format!(
            "it began in the same second as {}: where [[bindings]] name neither, the gateway cannot tell which is meant",
            twin.path.display()
        )
    }));
    warnings.extend(still_pinned(new, served));
    warnings.extend(shared_key(new, served));
    warnings
}

/// A binding by file or fingerprint does not follow a renewal.
fn still_pinned(new: &Known, served: &Served) -> Vec<String> {
    let same_name = served.peers(new).filter(|old| has_same_name(new, old));
    let pins = same_name.flat_map(|old| served.exact_pins(old).map(move |pin| (old, pin)));
    pins.map(|(old, pin)| {
        let whose = pin.tenant.map_or_else(|| "all tenants".to_owned(), |finess| finess.to_string());
        format!(
            "{whose} goes on using {} for {}: [[bindings]] pin it by {}; change that if this one is to be used",
            old.path.display(),
            pin.service,
            pin.certificate
        )
    })
    .collect()
}

fn shared_key(new: &Known, served: &Served) -> Option<String> {
    let structure = &new.profile.structure;
    let other = served.iter().find(|other| {
        other.profile.public_key == new.profile.public_key && other.profile.structure != *structure
    })?;
    Some(format!(
        "the same key serves another structure ({}), which the ANS forbids: each needs a key of its own",
        other.path.display()
    ))
}

/// One that the gateway prefers; bindings may make use of the new one all the same.
fn later<'a>(new: &Known, served: &'a Served, now: i64) -> Option<&'a Known> {
    (served.peers(new))
        .filter(|old| old.profile.is_valid_at(now) && !served.is_pinned(new))
        .filter(|old| old.profile.not_before > new.profile.not_before)
        .max_by_key(|old| old.profile.not_before)
}

/// The one that it renews, or else the latest that it could take the place of.
fn previous<'a>(new: &Known, served: &'a Served, now: i64) -> Option<&'a Known> {
    (served.peers(new))
        .filter(|old| old.profile.is_valid_at(now))
        .filter(|old| old.profile.not_before < new.profile.not_before)
        .max_by_key(|old| (is_renewal(new, old, served), old.profile.not_before))
}

/// Structures have certificates side by side, one for each application: a renewal is known by its name, and by
/// nothing that goes on naming the old one.
fn is_renewal(new: &Known, old: &Known, served: &Served) -> bool {
    has_same_name(new, old) && served.exact_pins(old).next().is_none()
}

fn has_same_name(new: &Known, old: &Known) -> bool {
    old.profile.common_name == new.profile.common_name
}

impl Previous {
    fn new(old: &Known, new: &Known, served: &Served, now: i64) -> Self {
        let same_key = old.profile.public_key == new.profile.public_key;
        let subject = differences(&old.profile.subject, &new.profile.subject);
        let begins = new.profile.not_before;
        let advice = if !is_renewal(new, old, served) {
            "both stay: where [[bindings]] name neither, the gateway uses the one that began last"
                .to_owned()
        } else if begins > now {
            let begins = timestamp(begins);
            format!("the old file may stay; remove it once the new one has begun, on {begins}")
        } else {
            "the old file may stay; remove it once the gateway runs with the new one".to_owned()
        };
        Self {
            path: old.path.clone(),
            serial: old.profile.serial.to_string(),
            not_after: timestamp(old.profile.not_after),
            // INSi pins nothing, and its certificates go nowhere else.
            tell: match new.profile.insi {
                Some(_) => Vec::new(),
                None => to_tell(same_key, subject.is_empty()),
            },
            same_key,
            subject,
            advice,
        }
    }
}

fn to_tell(same_key: bool, same_subject: bool) -> Vec<String> {
    let mut tell = Vec::new();
    if !same_subject {
        tell.push(
            "the ROR, and services that follow CI-SIS: they know this client by its subject, which is another now"
                .to_owned(),
        );
    }
    if !same_key {
        tell.push(
            "the ROR, where it was given the public key (CSD ME2.4): it is another now".to_owned(),
        );
    }
    tell.push(
        "applications with Pro Santé Connect tokens: those bound to the old certificate stop working, and have to \
         be asked for again"
            .to_owned(),
    );
    tell
}

/// The fields in which two subjects in RFC 4514 text differ.
fn differences(old: &str, new: &str) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (old, new) = (fields(old), fields(new));
    let name = |field: &str| field.split('=').next().unwrap_or_default().to_owned();
    let value = |fields: &[&str], wanted: &str| {
        let found = fields.iter().find(|field| name(field) == wanted);
        found
            .map_or("none", |field| &field[wanted.len() + 1..])
            .to_owned()
    };
    let mut names: Vec<_> = old.iter().chain(&new).map(|field| name(field)).collect();
    names.sort();
    names.dedup();
    let mut found: Vec<_> = names
        .iter()
        .map(|name| (name, value(&old, name), value(&new, name)))
        .filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| format!("{name}: {old} → {new}"))
        .collect();
    if found.is_empty() {
        found.push("order or number of fields".to_owned());
    }
    found
}

/// Splits at commas that are not escaped.
fn fields(subject: &str) -> Vec<&str> {
    let mut is_escaped = false;
    subject
        .split(move |character| {
            let splits = character == ',' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            splits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_compared_field_by_field() {
        let old = "CN=DUI,OU=1060785003,O=FOYER\\, LES PINS,ST=Paris (75),C=FR";
        assert!(differences(old, old).is_empty());
        assert_eq!(
            differences(old, "CN=DUI 2,OU=1060785003,O=FOYER\\, LE PIN,C=FR"),
            [
                "CN: DUI → DUI 2",
                "O: FOYER\\, LES PINS → FOYER\\, LE PIN",
                "ST: Paris (75) → none"
            ]
        );
        assert_eq!(
            differences("CN=A,O=B", "O=B,CN=A"),
            ["order or number of fields"]
        );
    }
}
