//! Profiles of certificates of every kind that the simulated PKI issues, and of things that are no certificates.

use proptest::prelude::*;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose,
};

use super::*;
use crate::identity::finess::Finess;
use crate::simulator::pki::shared::{KEYS, PRODUCTION, TEST, request};
use crate::simulator::pki::{Issued, Purpose, Request};

fn profile(issued: &Issued) -> Profile {
    Profile::parse(&issued.cert_der).unwrap()
}

#[test]
fn reads_an_org_auth_cli_certificate_whole() {
    let issued = TEST.issue(&Request {
        organization: "CENTRE DE SANTÉ, RPPS12718",
        not_before: Some(1_700_000_000),
        ..request("10B0127189", "Proxy DMP CHU Nantes", 0)
    });
    let profile = profile(&issued);
    assert_eq!(
        &*profile.subject,
        "CN=Proxy DMP CHU Nantes,OU=10B0127189,O=CENTRE DE SANTÉ\\, RPPS12718,ST=Rhône (69),C=FR"
    );
    assert_eq!(
        &*profile.issuer,
        "CN=TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS,OU=IGC-SANTE TEST,OU=0002 187512751,O=ASIP-SANTE,C=FR"
    );
    assert_eq!(profile.common_name.as_deref(), Some("Proxy DMP CHU Nantes"));
    assert_eq!(
        profile.organization.as_deref(),
        Some("CENTRE DE SANTÉ, RPPS12718")
    );
    let structure = profile.structure.as_ref().unwrap();
    assert_eq!(
        structure.finess(),
        Some(Finess::parse("0B0127189").unwrap())
    );
    assert_eq!(profile.usage, Usage::AuthCli);
    assert_eq!(profile.environment, Some(Environment::Test));
    assert_eq!(profile.insi, None);
    assert_eq!(profile.not_before, 1_700_000_000);
    assert_eq!(profile.not_after, 1_794_694_400);
    assert_eq!(profile.fingerprint, Fingerprint::of(&issued.cert_der));
    assert_eq!(profile.serial.len(), 32);
    assert!(
        profile
            .serial
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
    );
}

#[test]
fn tells_production_from_test_by_the_issuer_alone() {
    let issued = PRODUCTION.issue(&request("1060785003", "TEST IGC-SANTE TEST", 0));
    assert_eq!(profile(&issued).environment, Some(Environment::Production));
    let root = Profile::parse(PRODUCTION.root_der()).unwrap();
    assert_eq!(root.environment, Some(Environment::Production));
    assert_eq!(root.subject, root.issuer);
}

#[test]
fn usage_comes_from_extensions_and_not_from_names() {
    let names = vec!["dmp.test".to_owned(), "127.0.0.1".to_owned()];
    for (purpose, usage) in [
        (Purpose::AuthCli, Usage::AuthCli),
        (Purpose::Sign, Usage::Sign),
        (Purpose::Conf, Usage::Conf),
        (Purpose::SslServer(names), Usage::SslServer),
    ] {
        let issued = TEST.issue(&Request {
            purpose,
            ..request("1060785003", "ORG AUTH_CLI", 0)
        });
        assert_eq!(profile(&issued).usage, usage);
    }
    let authority = Profile::parse(TEST.issuing_der()).unwrap();
    assert_eq!(authority.usage, Usage::Authority);
    // Of its two OUs neither is a structure.
    assert_eq!(authority.structure, None);
}

#[test]
fn only_the_exact_common_name_is_insi() {
    let of = |common_name: &str| profile(&TEST.issue(&request("1060785003", common_name, 0)));
    assert_eq!(of("INSI-AUTO").insi, Some(InsiMode::Auto));
    assert_eq!(of("INSI-MANU").insi, Some(InsiMode::Manu));
    assert_eq!(of("INSI-AUTO").insi_near_miss(), None);
    for common_name in [
        "insi-auto",
        "Insi-Auto",
        "INSI-AUTO ",
        " INSI-AUTO",
        "INSI - AUTO",
        "INSI AUTO",
        "INSI_AUTO",
        "INSIAUTO",
        "INSI\u{2010}AUTO",
        "INSI\u{2011}AUTO",
        "INSI\u{2013}AUTO",
        "INSI\u{a0}\u{2014} AUTO",
        "INSI-\u{200b}AUTO",
    ] {
        let profile = of(common_name);
        assert_eq!(profile.insi, None, "{common_name:?}");
        assert_eq!(
            profile.insi_near_miss(),
            Some(InsiMode::Auto),
            "{common_name:?}"
        );
    }
    assert_eq!(of("insi-manu").insi_near_miss(), Some(InsiMode::Manu));
    assert_eq!(of("INSI-AUTO 2").insi_near_miss(), None);
    assert_eq!(of("DMP").insi_near_miss(), None);
}

#[test]
fn an_ou_that_is_no_structure_leaves_none() {
    for unit in ["33333333333", "IGC-SANTE", "1060785003 ", "12a0000154"] {
        assert_eq!(
            profile(&TEST.issue(&request(unit, "DUI", 0))).structure,
            None
        );
    }
}

/// The profile of a self-signed certificate with two OUs and such key usages: what no authority here would issue.
fn self_signed(
    units: [&str; 2],
    usages: &[KeyUsagePurpose],
    extended: &[ExtendedKeyUsagePurpose],
) -> Profile {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, units[0]);
    // rcgen keeps one value per type, and takes this for another.
    params
        .distinguished_name
        .push(DnType::CustomDnType(vec![2, 5, 4, 11]), units[1]);
    params.key_usages = usages.to_vec();
    params.extended_key_usages = extended.to_vec();
    Profile::parse(params.self_signed(&*KEYS[0]).unwrap().der()).unwrap()
}

#[test]
fn of_two_ous_the_structure_is_taken_unless_they_disagree() {
    let structure = |units| {
        self_signed(units, &[], &[])
            .structure
            .map(|id| id.to_string())
    };
    let expected = Some("1060785003".to_owned());
    assert_eq!(structure(["SERVICE INFORMATIQUE", "1060785003"]), expected);
    assert_eq!(structure(["1060785003", "SERVICE INFORMATIQUE"]), expected);
    assert_eq!(structure(["1060785003", "1060785003"]), expected);
    assert_eq!(structure(["1060785003", "10B0127189"]), None);
}

#[test]
fn an_issuer_of_both_hierarchies_is_of_neither() {
    let environment = |units| self_signed(units, &[], &[]).environment;
    assert_eq!(
        environment(["0002 187512751", "IGC-SANTE"]),
        Some(Environment::Production)
    );
    assert_eq!(environment(["IGC-SANTE", "IGC-SANTE TEST"]), None);
    assert_eq!(environment(["IGC-SANTE TEST ", "igc-sante"]), None);
}

#[test]
fn the_offer_comes_from_the_issuer_and_a_servers_certificate_is_of_serv() {
    let issued_by = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&*KEYS[0]).unwrap();
        Profile::parse(certificate.der()).unwrap().offer
    };
    let organisations = "TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS";
    assert_eq!(issued_by(organisations), Some(Offer::Org));
    assert_eq!(
        issued_by("AC IGC-SANTE ELEMENTAIRE PERSONNES"),
        Some(Offer::Pro)
    );
    assert_eq!(issued_by("AC RACINE IGC-SANTE ELEMENTAIRE"), None);
    let server = TEST.issue(&Request {
        purpose: Purpose::SslServer(vec!["localhost".to_owned()]),
        ..request("3187512751", "localhost", 0)
    });
    assert_eq!(profile(&server).offer, Some(Offer::Serv));
}

#[test]
fn every_register_of_structures_is_read_from_the_ou() {
    for unit in [
        "0123456789",
        "1060785003",
        "2732829320",
        "339172288100052",
        "499700735741008",
    ] {
        let read = profile(&TEST.issue(&request(unit, "DUI", 0))).structure;
        assert_eq!(read.map(|id| id.to_string()).as_deref(), Some(unit));
    }
}

#[test]
fn client_authentication_takes_both_usages_and_excludes_servers() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use KeyUsagePurpose::{DigitalSignature, KeyCertSign, KeyEncipherment};

    let usage = |usages: &[_], extended: &[_]| self_signed(["", "-"], usages, extended).usage;
    assert_eq!(usage(&[DigitalSignature], &[ClientAuth]), Usage::AuthCli);
    assert_eq!(usage(&[DigitalSignature], &[]), Usage::Other);
    assert_eq!(usage(&[], &[ClientAuth]), Usage::Other);
    assert_eq!(usage(&[KeyEncipherment], &[ClientAuth]), Usage::Other);
    assert_eq!(
        usage(&[DigitalSignature], &[ClientAuth, ServerAuth]),
        Usage::SslServer
    );
    assert_eq!(
        usage(&[DigitalSignature, KeyCertSign], &[ClientAuth]),
        Usage::Authority
    );
}

#[test]
fn serials_are_written_as_openssl_writes_them() {
    assert_eq!(&*serial(&[0, 0xff, 1]), "FF01");
    assert_eq!(&*serial(&[0]), "00");
}

#[test]
fn long_and_accented_names_are_kept_whole() {
    let long = "Établissement d’hébergement ".repeat(8);
    let long = long.trim_end();
    assert!(long.chars().count() > 200);
    let issued = TEST.issue(&Request {
        organization: long,
        ..request("1060785003", long, 0)
    });
    let profile = profile(&issued);
    assert_eq!(profile.common_name.as_deref(), Some(long));
    assert!(profile.subject.contains(long));
}

#[test]
fn refuses_what_is_no_certificate_or_more_than_one() {
    let der = TEST.issue(&request("1060785003", "DUI", 0)).cert_der;
    assert_eq!(Profile::parse(b"").unwrap_err(), ProfileError::Malformed);
    assert_eq!(
        Profile::parse(&der[..der.len() - 1]).unwrap_err(),
        ProfileError::Malformed
    );
    let twice = [&der[..], &der[..]].concat();
    assert_eq!(
        Profile::parse(&twice).unwrap_err(),
        ProfileError::TrailingBytes(der.len())
    );
}

#[test]
fn dates_bound_validity_inclusively() {
    let mut profile = profile(&TEST.issue(&request("1060785003", "DUI", 0)));
    (profile.not_before, profile.not_after) = (10, 20);
    assert!(!profile.is_valid_at(9) && profile.is_valid_at(10));
    assert!(profile.is_valid_at(20) && !profile.is_valid_at(21));
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Profile::parse(&bytes);
    }

    #[test]
    fn never_panics_on_a_damaged_certificate(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut der = TEST.issuing_der().to_vec();
        for (index, byte) in damage {
            let index = index.index(der.len());
            der[index] = byte;
        }
        if let Ok(profile) = Profile::parse(&der) {
            let _ = profile.insi_near_miss();
        }
    }

    #[test]
    fn any_common_name_comes_back(common_name in "\\PC{1,40}") {
        let issued = TEST.issue(&request("1060785003", &common_name, 0));
        let profile = Profile::parse(&issued.cert_der).unwrap();
        prop_assert_eq!(profile.common_name.as_deref(), Some(common_name.as_str()));
    }
}
