//! `[[bindings]]`: certificates chosen by hand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::parse;
use super::problem::What;
use super::raw::{Mismatch, Parsed, Raw};
use super::reader::{Found, Reader};
use super::section::Section;
use super::{Binding, BoundBy, services};
use crate::identity::profile::Fingerprint;

/// Reads all bindings, and checks them against each other and against the names of services.
pub(super) fn read(root: &mut Section<'_>, names: &[String]) -> Vec<Binding> {
    let mut bindings = Vec::new();
    for section in root.list_of_sections("bindings") {
        let spot = section.spot.clone();
        let binding = binding(section, names);
        bindings.extend(binding.map(|value| Found { value, spot }));
    }
    refuse_two_certificates(root.reader, &bindings);
    refuse_two_client_ids(root.reader, &bindings);
    bindings.into_iter().map(|found| found.value).collect()
}

fn binding(mut section: Section<'_>, names: &[String]) -> Option<Binding> {
    let service = section.require("service", |raw| services::declared(raw, names));
    let is_for_one = section.has("tenant");
    let tenant = section.take_finess("tenant").map(|found| found.value);
    let certificate = certificate(&mut section);
    let client_id = section.take("client_id", parse::text);
    section.finish();
    // A tenant that cannot be read must not become all of them, not even for the checks that follow.
    if is_for_one && tenant.is_none() {
        return None;
    }
    Some(Binding {
        service: service?.value,
        tenant,
        certificate: certificate?,
        client_id: client_id.map(|found| found.value),
    })
}

fn certificate(section: &mut Section<'_>) -> Option<BoundBy> {
    let ways = ["fingerprint", "file", "common_name"];
    match ways.into_iter().filter(|way| section.has(way)).count() {
        0 => section.missing("fingerprint", "one of fingerprint, file, common_name", None),
        1 => {}
        _ => {
            let text = "several of fingerprint, file, common_name".to_owned();
            let hint = "keep the one that is meant".to_owned();
            (section.reader).error(&section.spot, What::Rule(text), Some(hint));
        }
    }
    let base = &section.reader.base;
    let by_fingerprint = section.take("fingerprint", |raw| {
        fingerprint(raw).map(BoundBy::Fingerprint)
    });
    let by_file = section.take("file", |raw| parse::path(base)(raw).map(BoundBy::File));
    let by_name = section.take("common_name", |raw| {
        parse::text(raw).map(BoundBy::CommonName)
    });
    let found = by_fingerprint.or(by_file).or(by_name);
    found.map(|found| found.value)
}

pub(super) fn fingerprint(raw: &Raw<'_>) -> Parsed<Fingerprint> {
    let fingerprint = raw.text().and_then(|text| text.parse().ok());
    fingerprint.ok_or_else(|| {
        Mismatch::expected(
            "the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons",
        )
        .hint("openssl x509 -noout -fingerprint -sha256 -in FILE prints it")
    })
}

/// Which of two certificates a tenant shows to a service cannot be left to their order.
fn refuse_two_certificates(reader: &Reader<'_>, bindings: &[Found<Binding>]) {
    let mut seen = HashMap::new();
    for later in bindings {
        let Binding {
            service, tenant, ..
        } = &later.value;
        let first = match seen.entry((tenant, service)) {
            Entry::Vacant(entry) => {
                entry.insert(later);
                continue;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let whose = tenant.map_or_else(|| "all tenants".to_owned(), |finess| finess.to_string());
        let text = format!(
            "{whose} and {service} are bound in {} already ({})",
            first.spot.key, first.spot.place
        );
        let hint = "keep one; a second Pro Santé Connect client_id needs a service of its own, with the same url";
        reader.error(&later.spot, What::Rule(text), Some(hint.to_owned()));
    }
}

/// ANS, "Commande de certificat web" (questions and answers): a certificate for each Pro Santé Connect service.
fn refuse_two_client_ids(reader: &Reader<'_>, bindings: &[Found<Binding>]) {
    let mut seen: HashMap<&BoundBy, (&str, &Found<Binding>)> = HashMap::new();
    for later in bindings {
        let certificate = &later.value.certificate;
        // Many certificates have the same CN.
        let is_exact = !matches!(certificate, BoundBy::CommonName(_));
        let Some(client_id) = later.value.client_id.as_deref().filter(|_| is_exact) else {
            continue;
        };
        let (other, first) = *seen.entry(certificate).or_insert((client_id, later));
        if client_id != other {
            let text = format!(
                "the certificate of client_id {other:?} in {} ({}) is bound to {client_id:?} as well",
                first.spot.key, first.spot.place
            );
            let hint = "order a certificate for each client_id".to_owned();
            reader.error(&later.spot, What::Rule(text), Some(hint));
        }
    }
}
