//! What installing a certificate means: what it changes against the one that it replaces, and who has to know.

use std::path::PathBuf;

use serde::Serialize;

use super::install::Known;
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
    /// The one that requests have gone out under so far.
    pub replaces: Option<Replaced>,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

/// The certificate that requests of its kind have gone out under so far.
#[derive(Clone, Debug, Serialize)]
pub struct Replaced {
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
    /// When the old file can go.
    pub removal: String,
    /// Who must be told, and of what.
    pub tell: Vec<String>,
}

impl Installed {
    /// The report of a verified certificate beside those that are known. `unverified` says what could not be.
    pub(super) fn new(new: &Known, known: &[Known], unverified: Option<String>, now: i64) -> Self {
        let profile = &new.profile;
        let mut warnings: Vec<_> = unverified.into_iter().collect();
        if profile.not_before > now {
            let begins = timestamp(profile.not_before);
            warnings.push(format!("it begins on {begins}, and is not used before"));
        }
        if (profile.structure.as_ref()).is_some_and(|id| id.finess().is_none()) {
            warnings.push("its OU is no FINESS number, so no tenant is found by it".to_owned());
        }
        let in_use = in_use(new, known, now);
        let later = in_use.filter(|old| old.profile.not_before > profile.not_before);
        warnings.extend(later.map(|later| {
            format!(
                "it is not used: of several, the gateway uses the one that began last, and that is {}",
                later.path.display()
            )
        }));
        warnings.extend(shared_key(new, known));
        Self {
            path: new.path.clone(),
            subject: profile.subject.clone(),
            serial: profile.serial.clone(),
            sha256: profile.fingerprint.to_string(),
            not_before: timestamp(profile.not_before),
            not_after: timestamp(profile.not_after),
            was_there: false,
            replaces: (in_use.filter(|_| later.is_none())).map(|old| Replaced::new(old, new, now)),
            warnings,
        }
    }
}

fn shared_key(new: &Known, known: &[Known]) -> Option<String> {
    let structure = &new.profile.structure;
    let other = (known.iter()).find(|other| {
        other.profile.public_key == new.profile.public_key && other.profile.structure != *structure
    })?;
    Some(format!(
        "the same key serves another structure ({}), which the ANS forbids: each needs a key of its own",
        other.path.display()
    ))
}

/// The latest of the same kind that has begun.
fn in_use<'a>(new: &Known, known: &'a [Known], now: i64) -> Option<&'a Known> {
    (known.iter())
        .filter(|old| old.kind() == new.kind() && old.profile.is_valid_at(now))
        .filter(|old| old.profile.fingerprint != new.profile.fingerprint)
        .max_by_key(|old| old.profile.not_before)
}

impl Replaced {
    fn new(old: &Known, new: &Known, now: i64) -> Self {
        let same_key = old.profile.public_key == new.profile.public_key;
        let subject = differences(&old.profile.subject, &new.profile.subject);
        let begins = new.profile.not_before;
        let removal = if begins > now {
            format!("once the new one has begun, on {}", timestamp(begins))
        } else {
            "once the gateway runs with the new one".to_owned()
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
            removal,
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
