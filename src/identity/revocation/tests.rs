//! Which lists are believed, and what follows from them.

use rcgen::CrlScope::{CaCertsOnly, UserCertsOnly};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::crl::check_extensions;
use super::*;
use crate::services::Environment;
use crate::simulator::pki::{Pki, shared};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn believing(pki: &Pki) -> Authorities {
    Authorities::new([pki.root_der(), pki.issuing_der()], [])
}

fn list(pki: &Pki, serials: &[&[u8]], begun: i64, ends: i64) -> Vec<u8> {
    pki.revoke(serials, begun, ends).der().to_vec()
}

fn view(crl: Crl, must_know: bool) -> Revocations {
    let mut list = List::new("test".into());
    list.take(crl);
    Revocations::new(vec![list], must_know)
}

fn problem(bytes: &[u8], authorities: &Authorities) -> &'static str {
    Crl::read(bytes, authorities, NOW).unwrap_err().code()
}

#[test]
fn what_a_list_names_is_revoked_and_nothing_else_is() {
    let pki = &shared::TEST;
    let profile = |issuer: &Pki| {
        let issued = issuer.issue(&shared::request("1060785003", "DUI", 0));
        (issued.serial(), Profile::parse(&issued.cert_der).unwrap())
    };
    let (serial, revoked) = profile(pki);
    let (_, other) = profile(pki);
    let der = list(pki, &[&[1], &serial, &[0x80, 7]], NOW - DAY, NOW + DAY);
    let pem = pki.revoke(&[&serial], NOW - DAY, NOW + DAY).pem().unwrap();
    for bytes in [&der[..], pem.as_bytes()] {
        let view = view(Crl::read(bytes, &believing(pki), NOW).unwrap(), false);
        assert!(view.is_revoked(&revoked));
        assert!(!view.is_revoked(&other));
        // Another authority may give the same number.
        let elsewhere = Profile {
            issuer: "CN=Another".into(),
            ..revoked.clone()
        };
        assert!(!view.is_revoked(&elsewhere));
    }
    let view = view(Crl::read(&der, &believing(pki), NOW).unwrap(), false);
    // Of the high bit and of zeros in front, encoders think differently.
    assert!(view.revokes(&revoked.issuer, &[0, 0x80, 7]));
    assert!(view.revokes(&revoked.issuer, &[0x80, 7]));
    assert!(view.revokes(&revoked.issuer, &[0, 0, 1]));
    assert!(!view.revokes(&revoked.issuer, &[]));
}

#[test]
fn a_list_that_has_ended_goes_on_revoking_and_leaves_the_others_in_doubt() {
    let pki = &shared::TEST;
    let ended = list(pki, &[&[7]], NOW - 2 * DAY, NOW - DAY);
    let crl = Crl::read(&ended, &believing(pki), NOW).unwrap();
    assert!(crl.has_ended(NOW) && !crl.has_ended(NOW - DAY));
    let issuer = crl.issuer.clone();
    let view = view(crl, true);
    assert!(view.revokes(&issuer, &[7]));
    assert!(view.is_in_doubt(&issuer, NOW));
    assert!(!view.is_in_doubt(&issuer, NOW - DAY));
    assert!(view.is_in_doubt("CN=Another", NOW - DAY));
    assert!(!Revocations::new(Vec::new(), false).is_in_doubt(&issuer, NOW));
}

#[test]
fn a_list_is_believed_if_a_known_authority_has_signed_it() {
    let pki = &shared::TEST;
    let authorities = believing(pki);
    let good = list(pki, &[&[7]], NOW - DAY, NOW + DAY);
    let foreign = list(&shared::PRODUCTION, &[&[7]], NOW - DAY, NOW + DAY);
    assert_eq!(problem(&foreign, &authorities), "unknown_issuer");
    let namesake = Pki::new(Environment::Test);
    let forged = list(&namesake, &[&[7]], NOW - DAY, NOW + DAY);
    assert_eq!(problem(&forged, &authorities), "bad_signature");
    let mut changed = good.clone();
    let number = changed.iter().rposition(|byte| *byte == 7).unwrap();
    changed[number] = 8;
    assert_eq!(problem(&changed, &authorities), "bad_signature");
    let early = list(pki, &[], NOW + 1, NOW + DAY);
    assert_eq!(problem(&early, &authorities), "not_yet_valid");
    let twice = format!("{0}{0}", pki.revoke(&[], NOW - DAY, NOW).pem().unwrap());
    assert_eq!(problem(twice.as_bytes(), &authorities), "several");
    assert_eq!(problem(b"<html>", &authorities), "malformed");
    for length in 0..good.len() {
        assert_eq!(
            problem(&good[..length], &authorities),
            "malformed",
            "{length}"
        );
    }
    assert_eq!(
        problem(&[&good[..], b"\0"].concat(), &authorities),
        "malformed"
    );
}

#[test]
fn an_authority_from_a_chain_is_believed_only_if_an_anchor_has_signed_it() {
    let pki = &shared::TEST;
    let crl = list(pki, &[], NOW - DAY, NOW + DAY);
    let chained = Authorities::new([pki.root_der()], [pki.issuing_der()]);
    assert!(Crl::read(&crl, &chained, NOW).is_ok());
    let unfounded = Authorities::new([], [pki.issuing_der(), pki.root_der()]);
    assert_eq!(problem(&crl, &unfounded), "unknown_issuer");

    let namesake = Pki::new(Environment::Test);
    let forged = list(&namesake, &[], NOW - DAY, NOW + DAY);
    let smuggled = Authorities::new(
        [pki.root_der()],
        [namesake.issuing_der(), namesake.root_der()],
    );
    assert_eq!(problem(&forged, &smuggled), "unknown_issuer");
}

#[test]
fn the_next_list_is_taken_unless_it_goes_back() {
    let pki = &shared::TEST;
    let authorities = believing(pki);
    let at = |begun| list(pki, &[&[7]], begun, NOW + DAY);
    let mut current = List::new("test".into());
    current.take(Crl::read(&at(NOW - 100), &authorities, NOW).unwrap());
    let next = |bytes: &[u8]| Crl::read_next(bytes, &authorities, &current, NOW);
    assert!(next(&at(NOW - 100)).unwrap().is_none());
    assert_eq!(next(&at(NOW - 50)).unwrap().unwrap().this_update, NOW - 50);
    assert_eq!(next(&at(NOW - 101)).unwrap_err().code(), "older");
}

/// An authority of its own, its certificate, and a list that it signs with an issuing distribution point.
fn scoped(
    usages: Vec<KeyUsagePurpose>,
    entries: u32,
    scope: CrlScope,
) -> (CertificateDer<'static>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Scoped");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages;
    let authority = params.self_signed(&key).unwrap();
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://crl.example/list.crl".to_owned()],
            },
            scope: Some(scope),
        }),
        revoked_certs: (0..entries)
            .map(|number| RevokedCertParams {
                serial_number: SerialNumber::from(u64::from(number) * 2 + 1),
                revocation_time: rcgen::date_time_ymd(2025, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    // The issuer is told without usages, so that it signs whatever it may.
    params.key_usages = Vec::new();
    let signed = list.signed_by(&Issuer::new(params, key)).unwrap();
    (authority.der().clone(), signed.der().to_vec())
}

#[test]
fn an_authority_that_may_not_sign_lists_is_not_believed() {
    let (authority, list) = scoped(vec![KeyUsagePurpose::KeyCertSign], 1, UserCertsOnly);
    let authorities = Authorities::new([&authority], []);
    assert_eq!(problem(&list, &authorities), "unknown_issuer");
}

#[test]
fn a_hundred_thousand_entries_are_found() {
    let (authority, list) = scoped(Vec::new(), 100_000, UserCertsOnly);
    let authorities = Authorities::new([&authority], []);
    let crl = Crl::read(&list, &authorities, NOW).unwrap();
    assert_eq!(crl.entries(), 100_000);
    for number in [1_u32, 3, 99_999, 199_999] {
        assert!(crl.has(&number.to_be_bytes()), "{number}");
        assert!(!crl.has(&(number + 1).to_be_bytes()), "{number}");
    }
}

#[test]
fn a_list_that_does_not_say_what_it_seems_to_is_refused() {
    let (_, list) = scoped(Vec::new(), 1, UserCertsOnly);
    let with = |from: &[u8], to: &[u8]| {
        let mut list = list.clone();
        let at = list.windows(from.len()).position(|window| window == from);
        let at = at.unwrap();
        list[at..at + to.len()].copy_from_slice(to);
        let (_, crl) = CertificateRevocationList::from_der(&list).unwrap();
        check_extensions(&crl).map_err(|problem| problem.code())
    };
    // The CRL number's object identifier, that of a delta list's indicator.
    assert_eq!(with(&[0x55, 0x1d, 0x14], &[0x55, 0x1d, 0x1b]), Err("delta"));
    // onlyContainsUserCerts, indirectCRL.
    assert_eq!(with(&[0x81, 1, 0xff], &[0x84, 1, 0xff]), Err("indirect"));
    // onlyContainsUserCerts, onlyContainsAttributeCerts.
    assert_eq!(with(&[0x81, 1, 0xff], &[0x85, 1, 0xff]), Err("partial"));
    // onlyContainsUserCerts, onlySomeReasons (with none).
    assert_eq!(with(&[0x81, 1, 0xff], &[0x83, 1, 0]), Err("partial"));
    // The issuing distribution point's object identifier, one that means nothing.
    assert_eq!(
        with(&[0x55, 0x1d, 0x1c], &[0x55, 0x1d, 0x63]),
        Err("extension")
    );
    assert_eq!(with(&[0x81, 1, 0xff], &[0x81, 1, 0xff]), Ok(false));
}

#[test]
fn what_a_revoked_authority_has_issued_is_revoked_unless_its_certificate_was_renewed() {
    let pki = &shared::TEST;
    let issued = pki.issue(&shared::request("1060785003", "DUI", 0));
    let profile = Profile::parse(&issued.cert_der).unwrap();
    let list = pki.revoke_issuing(NOW - DAY, NOW + DAY).der().to_vec();
    let revoked = |authorities: Authorities| {
        let view = view(Crl::read(&list, &authorities, NOW).unwrap(), false);
        assert!(!view.revokes("CN=Another", &[7]));
        view.is_revoked(&profile)
    };
    assert!(revoked(believing(pki)));
    let chained = Authorities::new([pki.root_der()], [pki.issuing_der()]);
    assert!(revoked(chained));
    // A namesake's certificate stands for one that the authority has been given since.
    let namesake = Pki::new(Environment::Test);
    let all = [pki.root_der(), pki.issuing_der(), namesake.issuing_der()];
    assert!(!revoked(Authorities::new(all, [])));
}

#[test]
fn a_list_of_authorities_leaves_other_certificates_in_doubt() {
    for (scope, in_doubt) in [(UserCertsOnly, false), (CaCertsOnly, true)] {
        let (authority, list) = scoped(Vec::new(), 1, scope);
        let authorities = Authorities::new([&authority], []);
        let crl = Crl::read(&list, &authorities, NOW).unwrap();
        let issuer = crl.issuer.clone();
        assert_eq!(view(crl, true).is_in_doubt(&issuer, NOW), in_doubt);
    }
}
