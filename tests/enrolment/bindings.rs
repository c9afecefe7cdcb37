//! Certificates that `[[bindings]]` name, and those that lie beside them.

use std::fs;

use relais::identity::profile::Profile;
use relais::simulator::pki::Request;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::desk::{Desk, NEW};

const NAME: &str = "Logiciel de demonstration";
const SLUG: &str = "logiciel-de-demonstration";

/// A site whose certificate for the DMP is pinned, by what `by` says of its file and fingerprint.
fn pinned(by: impl Fn(&str, &str) -> String) -> Desk {
    let desk = Desk::new();
    let tenant = desk.site.tenants[0];
    let file = format!("certs/{tenant}/auth_cli.pem");
    let pem = fs::read(desk.path(&file)).unwrap();
    let profile = Profile::parse(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let by = by(&file, &profile.fingerprint.to_string());
    desk.configure(&format!(
        "\n[[bindings]]\nservice = \"dmp\"\ntenant = \"{tenant}\"\n{by}\n"
    ));
    desk
}

#[test]
fn a_renewal_of_a_certificate_pinned_by_file_or_fingerprint_replaces_nothing() {
    type By = fn(&str, &str) -> String;
    let by_file: By = |file, _| format!("file = {file:?}");
    let by_fingerprint: By = |_, fingerprint| format!("fingerprint = {fingerprint:?}");
    for by in [by_file, by_fingerprint] {
        let desk = pinned(by);
        let delivered = desk.renewed(NAME, SLUG, "STRUCTURE FICTIVE 1");
        let said = desk.install(&delivered, &[]).expect(
            0,
            &[
                "beside",
                "both stay",
                "warning: ",
                "goes on using",
                "auth_cli.pem for dmp",
                "[[bindings]]",
            ],
        );
        assert!(!said.out.contains("replaces"), "{}", said.out);
        assert!(!said.out.contains("remove it"), "{}", said.out);
    }
}

#[test]
fn a_renewal_of_a_certificate_pinned_by_its_name_replaces_it() {
    let desk = pinned(|_, _| format!("common_name = {NAME:?}"));
    let delivered = desk.renewed(NAME, SLUG, "STRUCTURE FICTIVE 1");
    let said = desk
        .install(&delivered, &[])
        .expect(0, &["replaces", "auth_cli.pem", "remove it once"]);
    assert!(!said.out.contains("warning"), "{}", said.out);
}

#[test]
fn a_certificate_of_another_name_lies_beside_the_one_that_is_there() {
    let desk = Desk::new();
    let delivered = desk.renewed("Autre logiciel", "autre-logiciel", "STRUCTURE FICTIVE 1");
    let said = desk.install(&delivered, &[]).expect(
        0,
        &[
            "beside",
            "subject CN: Logiciel de demonstration → Autre logiciel",
            "the ROR",
            "both stay",
        ],
    );
    assert!(!said.out.contains("replaces"), "{}", said.out);
    assert!(!said.out.contains("remove it"), "{}", said.out);
}

#[test]
fn certificates_of_one_second_that_bindings_tell_apart_are_both_installed() {
    let desk = Desk::new();
    desk.configure(&format!(
        "\n[[bindings]]\nservice = \"dmp\"\ntenant = \"{NEW}\"\ncommon_name = \"DUI 2\"\n"
    ));
    let begun = Some(jiff::Timestamp::now().as_second() - 60);
    for (name, slug, words) in [
        ("DUI", "dui", vec!["installed as"]),
        (
            "DUI 2",
            "dui-2",
            vec!["installed as", "warning: it began in the same second"],
        ),
    ] {
        desk.csr(NEW, name).expect(0, &[]);
        let issued = desk.site.pki.issue(&Request {
            key: Some(desk.pending_key(&format!("{NEW}-{slug}"))),
            not_before: begun,
            ..Request::new("1060785003", name)
        });
        desk.install(&desk.deliver(&issued), &[]).expect(0, &words);
    }
    desk.run("check", &[])
        .expect(0, &[&format!("{NEW} may use dmp")]);
}
