//! What may be shown to whom. Profiles are made up, because all that selection reads is in them.

use std::sync::OnceLock;
use std::time::Duration;

use http::uri::Authority;

use super::*;
use crate::identity::clock::Validity;
use crate::identity::load::Identity;
use crate::identity::profile::Fingerprint;
use crate::services::{
    Environment, HttpVersions, OnRejection, PoolLimits, RequestLimits, Retry, Target, Timeouts,
    TlsVersions, Trust,
};
use crate::simulator::pki::shared;

pub(crate) const NOW: i64 = 1_800_000_000;

/// The serial number of a revoked certificate.
const REVOKED: &str = "4BAD";

pub(crate) fn service(certificate: WantedCertificate) -> Service {
    let second = Duration::from_secs(1);
    Service {
        name: "any".into(),
        target: Target {
            authority: Authority::from_static("service.example"),
            base_path: "".into(),
            address: None,
        },
        environment: Environment::Test,
        certificate,
        owner: Owner::Structure,
        trust: Trust::Public,
        tls: TlsVersions::Tls12And13,
        http: HttpVersions::Auto,
        timeouts: Timeouts {
            connect: second,
            handshake: second,
            response: second,
            body: second,
        },
        pool: PoolLimits {
            idle_timeout: second,
            max_lifetime: second,
            max_connections: 1,
            prewarm: 0,
            drain: second,
        },
        retry: Retry::Never,
        on_rejection: OnRejection::Fail,
        limits: RequestLimits {
            request_body: 1,
            requests: None,
            requests_per_tenant: 1,
        },
        headers: Vec::new(),
        rate: None,
        rate_per_tenant: None,
        breaker: true,
    }
}

/// An AUTH_CLI certificate of the test environment, begun a thousand seconds ago, with a thousand to go.
pub(crate) fn profile_of(serial: &str) -> Profile {
    Profile {
        subject: "CN=DUI".into(),
        common_name: Some("DUI".into()),
        organization: None,
        structure: None,
        issuer: "CN=TEST AC".into(),
        serial: serial.into(),
        fingerprint: Fingerprint::of(serial.as_bytes()),
        not_before: NOW - 1000,
        not_after: NOW + 1000,
        usage: Usage::AuthCli,
        public_key: Fingerprint::of(serial.as_bytes()),
        offer: Some(Offer::Org),
        environment: Some(Environment::Test),
        hierarchy: None,
        insi: None,
    }
}

pub(crate) fn generation(profile: Profile) -> Arc<Generation> {
    let signer = crate::outbound::tls::provider()
        .key_provider
        .load_private_key(rustls_pki_types::PrivateKeyDer::from(
            rustls_pki_types::PrivatePkcs8KeyDer::from(shared::KEYS[0].serialize_der()),
        ))
        .unwrap();
    Generation::new(Identity {
        profile: profile.into(),
        chain: Box::default(),
        signing: signer,
        presented: OnceLock::new(),
        path: "made-up.pem".into(),
    })
}

fn begun(serial: &str, not_before: i64) -> Arc<Generation> {
    generation(Profile {
        not_before,
        ..profile_of(serial)
    })
}

fn insi(serial: &str, mode: InsiMode) -> Arc<Generation> {
    generation(Profile {
        insi: Some(mode),
        common_name: Some(mode.as_str().into()),
        ..profile_of(serial)
    })
}

fn chosen(
    generations: &[Arc<Generation>],
    certificate: WantedCertificate,
) -> Result<String, Refusal> {
    chosen_by(&service(certificate), Relation::Own, generations)
}

fn chosen_by(
    service: &Service,
    relation: Relation,
    generations: &[Arc<Generation>],
) -> Result<String, Refusal> {
    let choice = Choice {
        service,
        now: NOW,
        validity: &Validity::default(),
        revocations: &Revocations::naming("CN=TEST AC", &[0x4b, 0xad]),
        relation: &|_| relation,
    };
    (choice.among(generations)).map(|one| profile(one).serial.to_string())
}

fn rule(generations: &[Arc<Generation>], certificate: WantedCertificate) -> String {
    match chosen(generations, certificate) {
        Err(Refusal::Rule(_, text)) => text,
        other => panic!("{other:?}"),
    }
}

fn passed_over(generations: &[Arc<Generation>], certificate: WantedCertificate) -> String {
    match chosen(generations, certificate) {
        Err(refusal @ Refusal::Missing { .. }) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_elses_certificate_stands_in_for_a_missing_one() {
    let refusal = chosen(&[], WantedCertificate::InsiAuto).unwrap_err();
    let missing = Refusal::Missing {
        wanted: WantedCertificate::InsiAuto,
        environment: Environment::Test,
        legal_entity: None,
        passed_over: None,
    };
    assert_eq!(refusal, missing);
    assert_eq!(
        refusal.to_string(),
        "there is no insi-auto certificate for test"
    );
}

#[test]
fn of_several_that_are_right_the_latest_begun_is_chosen_in_whatever_order_they_come() {
    let mut all = [
        begun("A", NOW - 500),
        begun("B", NOW - 10),
        begun("C", NOW - 100),
    ];
    for _ in 0..all.len() {
        all.rotate_left(1);
        assert_eq!(
            chosen(&all, WantedCertificate::OrgAuthCli).as_deref(),
            Ok("B")
        );
    }
}

#[test]
fn two_that_began_at_once_are_ambiguous_and_neither_is_shown() {
    let both = [begun("A", NOW - 10), begun("B", NOW - 10)];
    let refusal = chosen(&both, WantedCertificate::OrgAuthCli).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Ambiguous(a, b) if a.contains("serial A") && b.contains("serial B")),
        "{refusal}"
    );
}

#[test]
fn a_tie_of_older_certificates_does_not_stand_in_the_way_of_their_renewal() {
    let mut all = [
        begun("A", NOW - 500),
        begun("B", NOW - 500),
        begun("C", NOW - 10),
    ];
    for _ in 0..all.len() {
        all.rotate_left(1);
        assert_eq!(
            chosen(&all, WantedCertificate::OrgAuthCli).as_deref(),
            Ok("C")
        );
    }
}

#[test]
fn a_renewal_that_has_not_begun_or_has_ended_leaves_its_predecessor_in_service() {
    let ended = generation(Profile {
        not_before: NOW - 5,
        not_after: NOW - 1,
        ..profile_of("B")
    });
    let all = [begun("A", NOW - 500), ended, begun("C", NOW + 1)];
    assert_eq!(
        chosen(&all, WantedCertificate::OrgAuthCli).as_deref(),
        Ok("A")
    );
}

#[test]
fn an_expired_certificate_is_never_shown() {
    // RFC 5280 section 4.1.2.5: the last second still counts.
    let last_second = generation(Profile {
        not_after: NOW,
        ..profile_of("A")
    });
    assert!(chosen(&[last_second], WantedCertificate::OrgAuthCli).is_ok());
    for not_after in [NOW - 1, NOW - 1_000_000] {
        let ended = generation(Profile {
            not_after,
            ..profile_of("A")
        });
        let refusal = chosen(&[ended], WantedCertificate::OrgAuthCli).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Expired("certificate \"DUI\" (serial A)".to_owned())
        );
    }
}

#[test]
fn a_certificate_is_shown_from_the_second_in_which_it_begins() {
    let early = [begun("A", NOW + 1)];
    assert!(matches!(
        chosen(&early, WantedCertificate::OrgAuthCli),
        Err(Refusal::NotYetValid(text)) if text.contains("serial A")
    ));
    let now = [begun("A", NOW)];
    assert_eq!(
        chosen(&now, WantedCertificate::OrgAuthCli).as_deref(),
        Ok("A")
    );
}

#[test]
fn each_insi_service_takes_its_own_certificate_and_others_take_none_of_them() {
    let all = [
        insi("AUTO", InsiMode::Auto),
        insi("MANU", InsiMode::Manu),
        generation(profile_of("PLAIN")),
    ];
    let pairs = [
        (WantedCertificate::InsiAuto, "AUTO"),
        (WantedCertificate::InsiManu, "MANU"),
        (WantedCertificate::OrgAuthCli, "PLAIN"),
    ];
    for (wanted, serial) in pairs {
        assert_eq!(chosen(&all, wanted).as_deref(), Ok(serial));
        let others: Vec<_> = all
            .iter()
            .filter(|one| &*profile(one).serial != serial)
            .cloned()
            .collect();
        let text = passed_over(&others, wanted);
        assert!(text.contains("INSI"), "{wanted:?}: {text}");
    }
}

#[test]
fn certificates_and_services_of_different_environments_do_not_meet() {
    for environment in [Some(Environment::Production), None] {
        let foreign = generation(Profile {
            environment,
            ..profile_of("A")
        });
        let text = rule(&[foreign], WantedCertificate::OrgAuthCli);
        let reason = match environment {
            Some(_) => "is a production certificate, and the service is test",
            None => "was not issued by IGC-Santé",
        };
        assert!(text.ends_with(reason), "{text}");
    }
}

#[test]
fn only_a_client_certificate_authenticates_a_client() {
    for usage in [
        Usage::Sign,
        Usage::Conf,
        Usage::SslServer,
        Usage::Authority,
        Usage::Other,
    ] {
        let one = generation(Profile {
            usage,
            ..profile_of("A")
        });
        let text = rule(&[one], WantedCertificate::OrgAuthCli);
        assert!(
            text.contains("only AUTH_CLI opens TLS connections"),
            "{usage}"
        );
    }
}

#[test]
fn a_service_that_wants_no_certificate_is_shown_none() {
    let all = [
        generation(profile_of("A")),
        insi("B", InsiMode::Auto),
        insi("C", InsiMode::Manu),
    ];
    for one in all {
        let text = passed_over(&[one], WantedCertificate::None);
        assert!(text.contains("is not wanted"), "{text}");
    }
}

#[test]
fn of_a_wrong_certificate_and_one_that_has_ended_the_latter_is_the_reason() {
    let wrong = generation(Profile {
        usage: Usage::Sign,
        ..profile_of("A")
    });
    let ended = generation(Profile {
        not_after: NOW - 1,
        ..profile_of("B")
    });
    let refusal = chosen(&[wrong, ended], WantedCertificate::OrgAuthCli).unwrap_err();
    assert!(matches!(refusal, Refusal::Expired(text) if text.contains("serial B")));
}

#[test]
fn a_revoked_certificate_gives_way_to_an_older_one_or_is_the_reason() {
    let revoked = begun(REVOKED, NOW - 10);
    let both = [begun("A", NOW - 500), Arc::clone(&revoked)];
    let wanted = WantedCertificate::OrgAuthCli;
    assert_eq!(chosen(&both, wanted).as_deref(), Ok("A"));
    assert!(matches!(
        chosen(&[revoked], wanted),
        Err(Refusal::Revoked(text)) if text.contains(REVOKED)
    ));
}

#[test]
fn a_certificate_speaks_for_its_holder_and_for_whom_the_service_lets_it() {
    use Relation::{LegalEntity, Own, SilentLegalEntity, Stranger, Vendor};
    let one = [generation(profile_of("A"))];
    let rule_of = |relation, owner| {
        let service = Service {
            owner,
            ..service(WantedCertificate::OrgAuthCli)
        };
        match chosen_by(&service, relation, &one) {
            Ok(_) => None,
            Err(Refusal::Rule(rule, _)) => Some(rule),
            Err(other) => panic!("{other:?}"),
        }
    };
    for (relation, structures, vendors) in [
        (Own, None, None),
        (LegalEntity, None, None),
        (
            SilentLegalEntity,
            Some(Rule::SectorSite),
            Some(Rule::SectorSite),
        ),
        (Vendor, Some(Rule::Vendor), None),
        (Stranger, Some(Rule::OwnStructure), Some(Rule::OwnStructure)),
    ] {
        assert_eq!(
            rule_of(relation, Owner::Structure),
            structures,
            "{relation:?}"
        );
        assert_eq!(rule_of(relation, Owner::Vendor), vendors, "{relation:?}");
    }
}

#[test]
fn certificates_of_persons_and_servers_open_no_connection_whatever_their_key_usage() {
    for offer in [Offer::Pro, Offer::Serv] {
        let one = generation(Profile {
            offer: Some(offer),
            ..profile_of("A")
        });
        let text = rule(&[one], WantedCertificate::OrgAuthCli);
        assert!(text.contains("only ORG AUTH_CLI"), "{text}");
    }
}
