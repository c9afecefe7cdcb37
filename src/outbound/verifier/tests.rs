use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;

use super::*;
use crate::outbound::tls::provider;
use crate::services::Environment;
use crate::simulator::pki::{Issued, Pki, Purpose, Request as Order};

/// How long before now certificates begin, and after now they end, in seconds: within their authority's time.
const AROUND: i64 = 1_800;

fn now() -> i64 {
    UnixTime::now().as_secs().cast_signed()
}

fn verifier(pki: &Pki) -> Verifier {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root_der().clone()).unwrap();
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Verifier::new(&chain.build().unwrap(), None)
}

fn issued(pki: &Pki) -> Issued {
    pki.issue(&Order {
        purpose: Purpose::SslServer(vec!["dmp.example".to_owned()]),
        not_before: Some(now() - AROUND),
        not_after: Some(now() + AROUND),
        ..Order::new("3187512751", "dmp")
    })
}

fn says(
    verifier: &Verifier,
    leaf: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    name: &str,
    at: i64,
) -> Result<(), Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.cast_unsigned()));
    (verifier.verify_server_cert(leaf, chain, &name, &[], at)).map(drop)
}

#[test]
fn a_chain_that_was_verified_is_believed_for_its_name_in_its_time_and_no_further() {
    let pki = Pki::new(Environment::Test);
    let (verifier, issued) = (verifier(&pki), issued(&pki));
    let (leaf, chain) = (&issued.cert_der, [pki.issuing_der().clone()]);
    let says = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &str, at| {
        says(&verifier, leaf, chain, name, at)
    };
    // Twice each: before and after it is known.
    for _ in 0..2 {
        assert_eq!(says(leaf, &chain, "dmp.example", now()), Ok(()));
        for at in [now() - 2 * AROUND, now() + 2 * AROUND] {
            assert!(says(leaf, &chain, "dmp.example", at).is_err(), "{at}");
        }
        assert!(says(leaf, &chain, "other.example", now()).is_err());
        assert!(says(leaf, &[], "dmp.example", now()).is_err());
        // Each byte counts: the last is of the signature.
        let mut forged = leaf.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(says(&forged.into(), &chain, "dmp.example", now()).is_err());
    }
}

#[test]
fn what_one_set_of_anchors_believes_another_does_not() {
    let pki = Pki::new(Environment::Test);
    let issued = issued(&pki);
    let chain = [pki.issuing_der().clone()];
    let (own, foreign) = (verifier(&pki), verifier(&Pki::new(Environment::Test)));
    for _ in 0..2 {
        let believed = says(&own, &issued.cert_der, &chain, "dmp.example", now());
        assert_eq!(believed, Ok(()));
        assert!(says(&foreign, &issued.cert_der, &chain, "dmp.example", now()).is_err());
    }
}

#[test]
fn chains_that_come_and_go_are_forgotten() {
    let pki = Pki::new(Environment::Test);
    let verifier = verifier(&pki);
    let chain = [pki.issuing_der().clone()];
    let at = UnixTime::now();
    let name = ServerName::try_from("dmp.example").unwrap();
    let leaves: Vec<_> = (0..40).map(|_| issued(&pki).cert_der).collect();
    for leaf in &leaves {
        assert_eq!(says(&verifier, leaf, &chain, "dmp.example", now()), Ok(()));
        assert!(verifier.known.has(leaf, &chain, &name, at));
        // What is used goes on being known.
        assert!(verifier.known.has(&leaves[0], &chain, &name, at));
    }
    let known = |leaf: &&CertificateDer<'static>| verifier.known.has(leaf, &chain, &name, at);
    assert!(leaves.iter().filter(known).count() < 20);
}
