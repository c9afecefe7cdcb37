//! A folder that is read time and again: what was known of it is never seen in what it gives.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::identity::profile::Fingerprint;

/// Later than all changes by long enough for files to be told by their stamps.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

/// Everything that a reading tells.
fn told(loaded: &Loaded) -> Vec<String> {
    let identities = loaded.identities.iter().map(|one| {
        one.key().keys_match().unwrap();
        let chain = one.key().cert.iter().map(|der| Fingerprint::of(der));
        format!("{} {:?}", one.path.display(), chain.collect::<Vec<_>>())
    });
    let problems = loaded.problems.iter().map(Problem::to_string);
    let damaged = loaded.damaged.iter().map(|path| format!("{path:?}"));
    identities.chain(problems).chain(damaged).collect()
}

/// As a deployment should: written aside, then renamed. It is another file than the one before.
fn put(folder: &Folder, name: &str, contents: impl AsRef<[u8]>) {
    folder.write(".aside", contents);
    fs::rename(folder.path(".aside"), folder.path(name)).unwrap();
}

fn remove(folder: &Folder, name: &str) {
    fs::remove_file(folder.path(name)).unwrap();
}

fn rename(folder: &Folder, from: &str, to: &str) {
    fs::rename(folder.path(from), folder.path(to)).unwrap();
}

#[test]
fn a_folder_read_again_gives_what_a_first_reading_gives() {
    for at in [SystemTime::now, later] {
        let folder = Folder::new();
        let mut known = super::super::Folder::default();
        let mut check = |what: &str, identities: usize, problems: usize| {
            let again = known.read_at(&folder.config, at()).unwrap();
            assert_eq!(told(&again), told(&folder.load()), "{what}");
            let found = (again.identities.len(), again.problems.len());
            assert_eq!(found, (identities, problems), "{what}: {:?}", told(&again));
        };
        let [one, two, third] = [0, 1, 2].map(|key| issue("1060785003", "DUI", key));
        let renewed = issue("1060785003", "DUI", 0);
        for directory in ["a", "b/c"] {
            fs::create_dir_all(folder.path(directory)).unwrap();
        }
        check("nothing", 0, 0);
        put(&folder, "a/one.crt", one.cert_pem());
        check("a certificate without its key", 0, 1);
        put(&folder, "a/one.key", one.key_pem());
        check("its key that comes later", 1, 0);
        put(
            &folder,
            "b/c/two.pem",
            two.cert_pem().to_owned() + &two.key_pem(),
        );
        check("another", 2, 0);
        check("nothing new", 2, 0);
        put(&folder, "chain.pem", pki().authority_pem());
        check("an issuer above both", 2, 0);
        rename(&folder, "chain.pem", "b/chain.pem");
        check("an issuer that is above one of them alone", 2, 0);
        remove(&folder, "b/chain.pem");
        check("an issuer that has gone", 2, 0);
        put(&folder, "a/one.crt", renewed.chain_pem());
        check("a renewal with the same key, and its issuer", 2, 0);
        put(&folder, "a/one.key", third.key_pem());
        check("another key in the place of its own", 1, 1);
        put(&folder, "a/other.key", one.key_pem());
        check("its own under another name", 2, 1);
        remove(&folder, "a/one.key");
        check("and alone", 2, 0);
        rename(&folder, "a/other.key", "b/other.key");
        check("a key moved to another directory", 1, 2);
        rename(&folder, "a/one.crt", "b/one.crt");
        check("its certificate moved after it", 2, 0);
        put(&folder, "a/copy.pem", two.pem());
        check("a copy that comes first", 2, 1);
        remove(&folder, "a/copy.pem");
        check("no copy", 2, 0);
        rename(&folder, "b/c/two.pem", "b/c/zwei.pem");
        check("another name", 2, 0);
        rename(&folder, "b/c", "d");
        check("another directory", 2, 0);
        rename(&folder, "b/one.crt", "b/uno.crt");
        check("another name beside the same key", 2, 0);
        rename(&folder, "b/uno.crt", "b/one.crt");
        put(&folder, "d/zwei.pem", &two.pem()[..300]);
        check("a half", 1, 1);
        check("the same half", 1, 1);
        put(&folder, "d/zwei.pem", two.pem());
        check("all of it", 2, 0);
        let open = |mode| {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(folder.path("d/zwei.pem"), permissions).unwrap();
        };
        open(0o644);
        check("a secret that others can read", 1, 1);
        open(0o600);
        check("no longer", 2, 0);
        fs::create_dir(folder.path("e")).unwrap();
        rename(&folder, "d/zwei.pem", "e/..zwei.pem");
        symlink("..zwei.pem", folder.path("e/zwei.pem")).unwrap();
        check("a link to it", 2, 0);
        put(&folder, "e/..drei.pem", third.pem());
        remove(&folder, "e/zwei.pem");
        symlink("..drei.pem", folder.path("e/zwei.pem")).unwrap();
        check("a link to another", 2, 0);
        fs::remove_dir_all(folder.path("e")).unwrap();
        check("no directory", 1, 0);
        remove(&folder, "b/one.crt");
        remove(&folder, "b/other.key");
        check("nothing again", 0, 0);
        assert!(known.authorities.is_empty() && known.pairs.is_empty());
    }
}

#[test]
fn a_file_rewritten_at_once_with_as_many_bytes_is_another() {
    let [one, two] = [0, 1].map(|key| issue("1060785003", "DUI", key).pem());
    let length = one.len().max(two.len());
    let folder = Folder::new();
    folder.write("a.pem", "");
    let mut known = super::super::Folder::default();
    for text in [&one, &two, &one, &two] {
        // In place, and of one size: neither inode nor size tells.
        let mut file = fs::File::create(folder.path("a.pem")).unwrap();
        file.write_all(format!("{text:\n<length$}").as_bytes())
            .unwrap();
        drop(file);
        let again = known.read(&folder.config).unwrap();
        assert_eq!(again.identities.len(), 1);
        assert_eq!(told(&again), told(&folder.load()));
    }
}

#[test]
fn what_is_as_it_was_is_the_very_same_whenever_its_file_was_touched() {
    let folder = Folder::new();
    let pems: Vec<_> = (0..4)
        .map(|key| issue("1060785003", "DUI", key).pem())
        .collect();
    for (rank, pem) in pems.iter().enumerate() {
        folder.write(&format!("{rank}.pem"), pem);
    }
    let mut known = super::super::Folder::default();
    let before = known.read(&folder.config).unwrap().identities;
    assert_eq!(before.len(), 4);
    // Its stamp proves nothing yet; written again as it was; put in its place as it was; renewed.
    folder.write("1.pem", &pems[1]);
    put(&folder, "2.pem", &pems[2]);
    put(&folder, "3.pem", issue("1060785003", "DUI", 3).pem());
    for at in [SystemTime::now, later] {
        let after = known.read_at(&folder.config, at()).unwrap().identities;
        let is_same = before.iter().zip(&after).map(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(is_same.collect::<Vec<_>>(), [true, true, true, false]);
    }
}
