//! The ways in which people and tools lay out certificates in folders.

use super::*;
use crate::identity::finess::Finess;
use crate::simulator::pki::Request;

#[test]
fn pairs_are_found_by_stem_and_by_public_key() {
    let (one, two) = (issue("1060785003", "ONE", 0), issue("1060785003", "TWO", 1));
    let folder = Folder::new();
    folder
        .write("fullchain.pem", one.chain_pem())
        .write("privkey.pem", one.key_pem());
    folder
        .write("b/two.crt", two.cert_pem())
        .write("b/two.key", two.key_pem());
    let loaded = folder.load();
    assert_eq!(texts(&loaded), [] as [String; 0]);
    assert_eq!(loaded.identities.len(), 2);
    assert_eq!(loaded.identities[0].path, folder.path("b/two.crt"));
    assert_eq!(loaded.identities[1].key().cert.len(), 2);
}

#[test]
fn chains_are_completed_from_the_directory_and_those_above_it() {
    let issued = issue("1060785003", "DUI", 0);
    for authority in ["t/06/issuing.crt", "t/chain.pem", "chain.pem"] {
        let folder = Folder::new();
        folder
            .write("t/06/a.crt", issued.cert_pem())
            .write("t/06/a.key", issued.key_pem());
        folder.write(authority, pki().authority_pem());
        assert_eq!(
            folder.load_only(&issued).key().cert[1..],
            [pki().issuing_der().clone()]
        );
    }
    // Beside it, and not above: another tenant's material.
    let folder = Folder::new();
    folder.write(
        "t/06/a.pem",
        issued.cert_pem().to_owned() + &issued.key_pem(),
    );
    folder.write("t/07/chain.pem", pki().authority_pem());
    assert_eq!(folder.load_only(&issued).key().cert.len(), 1);
}

#[test]
fn an_authority_of_the_same_name_but_another_key_is_no_issuer() {
    let other = Pki::new(crate::services::Environment::Test);
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder.write(
        "a.pem",
        format!("{}{}", issued.cert_pem(), issued.key_pem()),
    );
    folder.write("chain.pem", other.authority_pem());
    assert_eq!(folder.load_only(&issued).key().cert.len(), 1);
}

#[test]
fn a_renewal_with_the_same_key_is_another_identity() {
    let (old, new) = (issue("1060785003", "DUI", 0), issue("1060785003", "DUI", 0));
    let folder = Folder::new();
    folder
        .write("old.crt", old.cert_pem())
        .write("new.crt", new.cert_pem())
        .write("old.key", old.key_pem());
    let loaded = folder.load();
    assert_eq!(texts(&loaded), [] as [String; 0]);
    assert_eq!(loaded.identities.len(), 2);
    assert_ne!(
        loaded.identities[0].profile.fingerprint,
        loaded.identities[1].profile.fingerprint
    );
}

#[test]
fn three_hundred_certificates_load_in_order() {
    let folder = Folder::new();
    for rank in 0..300 {
        let structure = format!("10B{rank:07}");
        let issued = pki().issue(&Request {
            organization: &"Établissement ".repeat(15),
            ..shared::request(&structure, "DUI", rank % 4)
        });
        match rank % 3 {
            0 => folder.write(&format!("{rank:03}.pem"), issued.pem()),
            1 => folder.write(&format!("{}/{rank:03}.pem", rank % 10), issued.pem()),
            _ => folder
                .write(&format!("{rank:03}/tls.crt"), issued.chain_pem())
                .write(&format!("{rank:03}/tls.key"), issued.key_pem()),
        };
    }
    folder.write("bad.pem", "");
    let loaded = folder.load();
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.identities.len(), 300);
    for identity in &loaded.identities {
        identity.key().keys_match().unwrap();
        assert_eq!(identity.key().cert.len(), 2);
    }
    let mut finess: Vec<Finess> = (loaded.identities.iter())
        .map(|identity| {
            identity
                .profile
                .structure
                .as_ref()
                .unwrap()
                .finess()
                .unwrap()
        })
        .collect();
    finess.sort();
    finess.dedup();
    assert_eq!(finess.len(), 300);
    let again: Vec<_> = folder
        .load()
        .identities
        .into_iter()
        .map(|identity| identity.path.clone())
        .collect();
    let first: Vec<_> = loaded
        .identities
        .into_iter()
        .map(|identity| identity.path.clone())
        .collect();
    assert_eq!(first, again);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_kubernetes_secret_is_loaded_once() {
        let issued = issue("1060785003", "DUI", 0);
        let folder = Folder::new();
        folder
            .write("s/..2026_11_20/tls.crt", issued.chain_pem())
            .write("s/..2026_11_20/tls.key", issued.key_pem());
        symlink("..2026_11_20", folder.path("s/..data")).unwrap();
        symlink("..data/tls.crt", folder.path("s/tls.crt")).unwrap();
        symlink("..data/tls.key", folder.path("s/tls.key")).unwrap();
        assert_eq!(folder.load_only(&issued).path, folder.path("s/tls.crt"));
    }

    #[test]
    fn links_between_directories_neither_loop_nor_load_twice() {
        let issued = issue("1060785003", "DUI", 0);
        let folder = Folder::new();
        folder.write("z/a.pem", issued.pem());
        symlink(".", folder.path("a")).unwrap();
        symlink("z", folder.path("b")).unwrap();
        symlink("..", folder.path("z/up")).unwrap();
        assert_eq!(folder.load_only(&issued).path, folder.path("z/a.pem"));
    }

    #[test]
    fn a_linked_directory_is_followed() {
        let issued = issue("1060785003", "DUI", 0);
        let (folder, elsewhere) = (Folder::new(), Folder::new());
        elsewhere.write("a.pem", issued.pem());
        symlink(elsewhere.directory.path(), folder.path("linked")).unwrap();
        assert_eq!(folder.load_only(&issued).path, folder.path("linked/a.pem"));
    }
}
