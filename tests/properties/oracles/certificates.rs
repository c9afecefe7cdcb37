//! A file in the folder of certificates.

use std::cell::LazyCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use relais::config::{Config, Identities, KeyReaders};
use relais::identity::load::{self, Loaded};

use super::configuration::Folder;
use super::first_line;

/// A single file must not keep the others waiting; without optimisation, a key derivation takes its time.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 20 });

/// So much of a secret in a message would be worth something to somebody.
const SNIPPET: usize = 24;

thread_local! {
    static FOLDER: LazyCell<(Folder, Identities)> = LazyCell::new(|| {
        let folder = Folder::new();
        let text = "environment = \"test\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[identities]\n\
                    directory = \"certs\"\n[services.dmp]\nurl = \"https://dmp.example\"\ntrust = \"public\"\n";
        let loaded: Result<_, _> = folder.read(text);
        let Config { identities, .. } = loaded.expect("it is a configuration").config;
        let identities = Identities { key_readers: KeyReaders::Anyone, ..identities };
        (folder, identities)
    });
}

/// Loads a file whose name is the first line, its password (if any) the second, and its content the rest.
pub fn check(input: &[u8]) {
    if file(input).is_none() {
        return;
    }
    let begun = Instant::now();
    let first = load(input);
    let took = begun.elapsed();
    assert!(took < LONGEST, "{took:?}");
    assert_eq!(told(&first), told(&load(input)));
    for identity in &first.identities {
        // Whoever shows the certificate can prove that it is theirs.
        let matches = identity.key().keys_match();
        let is_anothers = matches!(matches, Err(rustls::Error::InconsistentKeys(_)));
        assert!(!is_anothers, "{matches:?} of {identity:?}");
    }
    keeps_secrets(&first, input);
}

/// Name, password and content, if the name is one that a file can have.
fn file(input: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = first_line(input);
    let (password, content) = first_line(rest);
    let is_name = !name.is_empty()
        && name.len() < 200
        && !name.contains(&b'/')
        && !name.contains(&0)
        && name != b"."
        && name != b"..";
    is_name.then_some((name, password, content))
}

/// What a folder gives in which there is nothing but such a file.
pub fn load(input: &[u8]) -> Loaded {
    let (name, password, content) = file(input).expect("it has a name");
    FOLDER.with(|scene| {
        let (folder, identities) = &**scene;
        let path = folder.path().join("certs").join(OsStr::from_bytes(name));
        let mut beside = path.clone().into_os_string();
        beside.push(".password");
        std::fs::write(&path, content).expect("the name will do");
        if !password.is_empty() {
            std::fs::write(&beside, password).expect("the name will do");
        }
        let loaded = load::load(identities).expect("the folder is there");
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(&beside);
        loaded
    })
}

/// All that can be told of what was loaded.
fn told(loaded: &Loaded) -> String {
    let fingerprints: Vec<_> = (loaded.identities.iter())
        .map(|one| one.profile.fingerprint)
        .collect();
    let problems: Vec<_> = (loaded.problems.iter())
        .map(|one| format!("{}: {} ({})", one.path.display(), one.kind, one.hint))
        .collect();
    format!("{fingerprints:?} {problems:?} {:?}", loaded.damaged)
}

/// Nothing that is said of a file quotes its content at length; its name may be told.
fn keeps_secrets(loaded: &Loaded, input: &[u8]) {
    let (name, _, content) = file(input).expect("it has a name");
    let said: String = (loaded.problems.iter())
        .map(|one| format!("{:?} {} {}\n", one.kind, one.kind, one.hint))
        .collect();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+';
    let has = |text: &[u8], snippet| text.windows(SNIPPET).any(|window| window == snippet);
    let is_quoted = content
        .windows(SNIPPET)
        .filter(|window| window.iter().all(is_digit))
        .any(|window| has(said.as_bytes(), window) && !has(name, window));
    assert!(!is_quoted, "{said}");
}
