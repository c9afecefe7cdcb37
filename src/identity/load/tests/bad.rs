//! Everything that can be wrong with a file, each told by name, reason and hint, beside a good one that is loaded.

use super::*;
use crate::identity::profile::Usage;
use crate::simulator::pki::{Purpose, Request};

/// The problem of `bad` beside a good bundle.
fn problem_of(name: &str, bad: impl AsRef<[u8]>) -> Problem {
    let good = issue("1060785003", "GOOD", 3);
    let folder = Folder::new();
    folder.write("good.pem", good.pem()).write(name, bad);
    let problem = folder.problem();
    assert_eq!(problem.path, folder.path(name));
    assert_eq!(folder.load().identities.len(), 1);
    problem
}

#[test]
fn empty_files() {
    for (name, contents) in [("a.pem", ""), ("a.p12", ""), ("a.key", " \n")] {
        assert!(matches!(
            problem_of(name, contents).kind,
            ProblemKind::Empty
        ));
    }
}

#[test]
fn garbage() {
    assert!(matches!(
        problem_of("a.pem", "hello").kind,
        ProblemKind::NotRecognised
    ));
    assert!(matches!(
        problem_of("a.cer", [0x30, 3, 1, 2, 3]).kind,
        ProblemKind::Certificate(_)
    ));
    assert!(matches!(
        problem_of("a.key", [0x30, 3, 1, 2, 3]).kind,
        ProblemKind::Key
    ));
    assert!(matches!(
        problem_of("a.p12", "hello").kind,
        ProblemKind::Pkcs12(_)
    ));
    assert!(matches!(
        problem_of("a.key", pem("PRIVATE KEY", &[0x30, 0])).kind,
        ProblemKind::Key
    ));
    assert!(matches!(
        problem_of("a.pem", pem("CERTIFICATE", &[0x30, 0])).kind,
        ProblemKind::Certificate(_)
    ));
    let problem = problem_of(
        "a.pem",
        "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
    );
    assert!(matches!(problem.kind, ProblemKind::Damaged { .. }));
    let problem = problem_of("a.pem", pem("PKCS7", &[0x30, 0]));
    assert!(problem.hint.contains("openssl pkcs7"));
}

#[test]
fn truncated_pem() {
    let text = issue("1060785003", "DUI", 0).pem();
    // In the middle of the key, which comes last: the certificate's lack of a key is not news.
    let problem = problem_of("a.pem", &text[..text.len() - 200]);
    assert!(matches!(&problem.kind, ProblemKind::Truncated { label } if label == "PRIVATE KEY"));
    assert!(problem.to_string().contains("a.pem"));
}

#[test]
fn what_lies_beside_certificates_is_no_problem() {
    let folder = Folder::new();
    folder.write("request.pem", pem("CERTIFICATE REQUEST", &[0x30, 0]));
    folder
        .write("notes.txt", "")
        .write(".hidden.pem", "x")
        .write("authorities.pem", pki().authority_pem());
    assert_eq!(texts(&folder.load()), [] as [String; 0]);
}

#[test]
fn the_key_of_another_certificate() {
    let (one, other) = (issue("1060785003", "DUI", 0), issue("1060785003", "DUI", 1));
    let problem = problem_of("a.pem", format!("{}{}", one.cert_pem(), other.key_pem()));
    assert!(
        matches!(&problem.kind, ProblemKind::KeyMismatch { certificate } if *certificate == problem.path)
    );

    let folder = Folder::new();
    folder
        .write("a.crt", one.cert_pem())
        .write("a.key", other.key_pem());
    let problem = folder.problem();
    assert_eq!(problem.path, folder.path("a.key"));
    assert!(
        matches!(problem.kind, ProblemKind::KeyMismatch { certificate } if certificate == folder.path("a.crt"))
    );
}

#[test]
fn half_a_pair() {
    let issued = issue("1060785003", "DUI", 0);
    let problem = problem_of("a.crt", issued.cert_pem());
    assert!(
        matches!(&problem.kind, ProblemKind::CertificateWithoutKey { subject } if subject.contains("1060785003"))
    );
    let problem = problem_of("b.key", issued.key_pem());
    assert!(matches!(problem.kind, ProblemKind::KeyWithoutCertificate));
    // A directory is a closed world: keys are not matched across tenants' directories.
    let folder = Folder::new();
    folder
        .write("a/a.crt", issued.cert_pem())
        .write("b/a.key", issued.key_pem());
    assert_eq!(folder.load().problems.len(), 2);
}

#[test]
fn encryption_that_is_not_supported_comes_with_the_command_that_converts_it() {
    let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                       -----END RSA PRIVATE KEY-----\n";
    let algorithm = [
        &[
            0x30, 0x1c, 0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03,
        ][..],
        &[
            0x30, 0x0e, 0x04, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0x02, 0x02, 0x08, 0x00,
        ],
    ]
    .concat();
    let sealed = [
        &[0x30, 0x28][..],
        &algorithm,
        &[0x04, 0x08, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    for text in [
        traditional.to_owned(),
        pem("ENCRYPTED PRIVATE KEY", &sealed),
    ] {
        let problem = problem_of("l'été.key", text);
        assert!(
            matches!(problem.kind, ProblemKind::UnsupportedEncryption(_)),
            "{problem}"
        );
        assert!(
            problem
                .hint
                .contains("openssl pkcs8 -topk8 -v2 aes-256-cbc -in '"),
            "{problem}"
        );
        assert!(problem.hint.contains("l'\\''été.key'"), "{problem}");
    }
    assert!(matches!(
        problem_of("a.key", sealed).kind,
        ProblemKind::UnsupportedEncryption(_)
    ));
}

#[test]
fn certificates_out_of_their_dates_or_purpose_are_loaded_all_the_same() {
    let expired = pki().issue(&Request {
        not_before: Some(1_600_000_000),
        not_after: Some(1_700_000_000),
        ..shared::request("1060785003", "DUI", 0)
    });
    let future = pki().issue(&Request {
        not_before: Some(4_000_000_000),
        ..shared::request("1060785003", "DUI", 1)
    });
    let signature = pki().issue(&Request {
        purpose: Purpose::Sign,
        ..shared::request("1060785003", "DUI", 2)
    });
    let folder = Folder::new();
    folder
        .write("a.pem", expired.pem())
        .write("b.pem", future.pem())
        .write("c.pem", signature.pem());
    let loaded = folder.load();
    assert_eq!(loaded.identities.len(), 3);
    assert_eq!(loaded.identities[2].profile.usage, Usage::Sign);
    // What may be done with them is for selection, and told by `relais check`.
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
}

#[test]
fn a_certificate_found_twice_is_loaded_once_and_reported() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder
        .write("a.pem", issued.pem())
        .write("b/b.pem", issued.pem())
        .write("c/c.pem", issued.cert_pem());
    let loaded = folder.load();
    assert_eq!(loaded.identities.len(), 1);
    assert_eq!(loaded.problems.len(), 2);
    for (problem, name) in loaded.problems.iter().zip(["b/b.pem", "c/c.pem"]) {
        assert_eq!(problem.path, folder.path(name));
        assert!(
            matches!(&problem.kind, ProblemKind::Duplicate { first, .. } if *first == folder.path("a.pem"))
        );
    }
}

#[test]
fn too_large_a_file_is_not_read() {
    assert!(matches!(
        problem_of("a.pem", vec![b'a'; 2 << 20]).kind,
        ProblemKind::TooLarge { .. }
    ));
}

#[test]
fn missing_sources_stop_the_loading_and_say_what_to_do() {
    let mut folder = Folder::new();
    folder.config.password_file = Some(folder.path("passwords"));
    assert!(matches!(
        load(&folder.config).unwrap_err(),
        LoadError::PasswordFile(_)
    ));
    folder.config.password_file = None;
    // What is no variable's name may be the password itself.
    folder.config.password_env = Some("RELAIS_TEST_NO_SUCH_VARIABLE".to_owned());
    let error = load(&folder.config).unwrap_err().to_string();
    assert!(error.contains("`password_env`"), "{error}");
    assert!(!error.contains("NO_SUCH"), "{error}");
    folder.config.password_env = None;
    folder.config.directory = folder.path("nowhere");
    let error = load(&folder.config).unwrap_err();
    assert!(
        error.to_string().contains("`directory` under [identities]"),
        "{error}"
    );
}

#[cfg(unix)]
mod unix {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(folder: &Folder, name: &str, mode: u32) {
        fs::set_permissions(folder.path(name), Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let issued = issue("1060785003", "DUI", 0);
        for (name, contents) in [
            ("a.pem", issued.pem().into_bytes()),
            ("a.key", issued.key.serialized_der().to_vec()),
            ("a.p12", b"anything".to_vec()),
            (
                "b.key",
                pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]).into_bytes(),
            ),
        ] {
            let folder = Folder::new();
            folder.write(name, contents);
            chmod(&folder, name, 0o644);
            let problem = folder.problem();
            assert!(
                matches!(
                    problem.kind,
                    ProblemKind::ReadableByOthers { mode: 0o644, .. }
                ),
                "{problem}"
            );
            assert!(problem.hint.starts_with("run: chmod 600 "), "{problem}");
            assert!(folder.load().identities.is_empty());
        }
    }

    #[test]
    fn certificates_may_be_read_by_all() {
        let issued = issue("1060785003", "DUI", 0);
        let folder = Folder::new();
        folder
            .write("a.crt", issued.cert_pem())
            .write("a.key", issued.key_pem());
        chmod(&folder, "a.crt", 0o644);
        folder.load_only(&issued);
    }

    #[test]
    fn whom_the_configuration_lets_read_may_read() {
        let issued = issue("1060785003", "DUI", 0);
        let mut folder = Folder::new();
        folder.write("a.pem", issued.pem());
        chmod(&folder, "a.pem", 0o640);
        assert!(folder.load().identities.is_empty());
        folder.config.key_readers = KeyReaders::Group;
        folder.load_only(&issued);
        chmod(&folder, "a.pem", 0o644);
        assert!(folder.problem().hint.starts_with("run: chmod 640 "));
        folder.config.key_readers = KeyReaders::Anyone;
        folder.load_only(&issued);
    }

    #[test]
    fn password_files_are_secrets_too() {
        let mut folder = Folder::new();
        folder.write("passwords", "x");
        chmod(&folder, "passwords", 0o604);
        folder.config.password_file = Some(folder.path("passwords"));
        let error = load(&folder.config).unwrap_err().to_string();
        assert!(
            error.contains("chmod 600") && error.contains("0604"),
            "{error}"
        );
    }

    #[test]
    fn pipes_and_broken_links_are_reported_and_not_waited_for() {
        let folder = Folder::new();
        std::os::unix::fs::symlink("nowhere", folder.path("a.pem")).unwrap();
        assert!(matches!(folder.problem().kind, ProblemKind::Unreadable(_)));
        fs::remove_file(folder.path("a.pem")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            folder.path("b.pem"),
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
        assert!(matches!(folder.problem().kind, ProblemKind::NotAFile));
    }
}
