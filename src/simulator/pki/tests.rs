use super::params::years_later;
use super::*;

#[test]
fn a_certificate_is_valid_for_three_years_to_the_second() {
    // 29 February 2028, and the last day of its month three years later.
    assert_eq!(years_later(1_835_395_200, 3), 1_930_003_200);
    assert_eq!(years_later(1_700_000_000, 3), 1_794_694_400);
}

#[test]
fn keys_are_made_in_the_number_asked_for() {
    assert_eq!(generate_keys(0).len(), 0);
    assert_eq!(generate_keys(3).len(), 3);
}

#[test]
fn what_holds_a_key_does_not_show_it() {
    let issued = shared::TEST.issue(&shared::request("1060785003", "DUI", 0));
    assert_eq!(format!("{issued:?}"), "Issued { .. }");
}

#[cfg(unix)]
#[test]
fn private_files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.key");
    write_private(&path, "x").unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_list_names_what_is_revoked_by_the_issuing_authority() {
    use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

    let issued = shared::TEST.issue(&shared::request("1060785003", "DUI", 0));
    let other = shared::TEST.issue(&shared::request("1060785003", "DUI", 0));
    let list = shared::TEST.revoke(&[&issued.serial()], 1_700_000_000, 1_700_086_400);
    assert!(list.pem().unwrap().contains("BEGIN X509 CRL"));
    let (_, list) = CertificateRevocationList::from_der(list.der()).unwrap();
    let revoked: Vec<_> = (list.iter_revoked_certificates())
        .map(|revoked| revoked.raw_serial().to_vec())
        .collect();
    assert_eq!(revoked, [issued.serial()]);
    assert_ne!(issued.serial(), other.serial());
    assert_eq!(list.last_update().timestamp(), 1_700_000_000);
    assert_eq!(list.next_update().unwrap().timestamp(), 1_700_086_400);
    let issuer = shared::TEST.issuing_der();
    let (_, issuer) = X509Certificate::from_der(issuer).unwrap();
    assert_eq!(list.issuer(), issuer.subject());
}

#[test]
fn a_list_may_be_empty() {
    let list = shared::TEST.revoke(&[], 1_700_000_000, 1_700_086_400);
    assert!(!list.der().is_empty());
}

#[test]
fn a_request_gives_its_key_and_nothing_of_its_subject() {
    let mut asked = rcgen::CertificateParams::default();
    asked.distinguished_name = rcgen::DistinguishedName::new();
    (asked.distinguished_name).push(rcgen::DnType::CommonName, "as the software wrote it");
    let request = asked.serialize_request(&*shared::KEYS[1]).unwrap();
    let order = shared::request("1060785003", "INSI-AUTO", 0);
    let certificate = (shared::TEST)
        .certify(&request.pem().unwrap(), &order)
        .unwrap();
    let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
    let subject = certificate.subject().to_string();
    assert!(subject.contains("OU=1060785003, CN=INSI-AUTO"), "{subject}");
    assert_eq!(
        *certificate.public_key().subject_public_key.data,
        *shared::KEYS[1].public_key_raw()
    );
}

#[test]
fn what_is_no_request_is_refused() {
    let order = shared::request("1060785003", "DUI", 0);
    let issued = shared::TEST.issue(&order);
    for text in ["", "-----BEGIN", issued.cert_pem(), &issued.key_pem()] {
        assert!(shared::TEST.certify(text, &order).is_err(), "{text}");
    }
}
