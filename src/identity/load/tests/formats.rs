//! Every format that certificates and keys are delivered in.

use ::pkcs8::der::asn1::OctetString;
use ::pkcs8::der::{Decode as _, Encode as _};
use ::pkcs8::pkcs5::pbes2::{Kdf, Parameters, ScryptParams};
use ::pkcs8::{EncryptedPrivateKeyInfoOwned, PrivateKeyInfoRef};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use proptest::prelude::*;
use rcgen::KeyPair;

use super::*;
use crate::identity::profile::Usage;

const MODERN: (EncryptionAlgorithm, MacAlgorithm) = (
    EncryptionAlgorithm::PbeWithHmacSha256AndAes256,
    MacAlgorithm::HmacSha256,
);
const TRIPLE_DES: (EncryptionAlgorithm, MacAlgorithm) = (
    EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc,
    MacAlgorithm::HmacSha1,
);
const RC2: (EncryptionAlgorithm, MacAlgorithm) = (
    EncryptionAlgorithm::PbeWithShaAnd40BitRc4Cbc,
    MacAlgorithm::HmacSha1,
);

fn pkcs12(
    issued: &Issued,
    algorithms: (EncryptionAlgorithm, MacAlgorithm),
    password: &str,
) -> Vec<u8> {
    pkcs12_of_rounds(issued, algorithms, password, 20)
}

fn pkcs12_of_rounds(
    issued: &Issued,
    (encryption, mac): (EncryptionAlgorithm, MacAlgorithm),
    password: &str,
    mac_rounds: u32,
) -> Vec<u8> {
    let certificates = [&issued.cert_der, pki().issuing_der(), pki().root_der()];
    let chain = PrivateKeyChain::new(
        "1",
        PrivateKey::from_der(issued.key.serialized_der()).unwrap(),
        certificates.map(|der| Certificate::from_der(der).unwrap()),
    );
    let mut store = KeyStore::new();
    store.add_entry("dui", KeyStoreEntry::PrivateKeyChain(chain));
    (store
        .writer(password)
        .encryption_algorithm(encryption)
        .mac_algorithm(mac))
    .encryption_iterations(20)
    .mac_iterations(mac_rounds)
    .write()
    .unwrap()
}

fn encrypted_key(issued: &Issued, password: &str) -> Vec<u8> {
    let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(20, &[7; 16], [9; 16]).unwrap();
    let key = PrivateKeyInfoRef::from_der(issued.key.serialized_der()).unwrap();
    key.encrypt_with_params(parameters, password)
        .unwrap()
        .as_bytes()
        .to_vec()
}

#[test]
fn a_bundle_gives_its_chain_without_the_root() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder.write(
        "a.pem",
        format!(
            "{}{}{}",
            issued.cert_pem(),
            pki().authority_pem(),
            issued.key_pem()
        ),
    );
    let identity = folder.load_only(&issued);
    assert_eq!(identity.key().cert[1], *pki().issuing_der());
    assert_eq!(identity.key().cert.len(), 2);
    assert_eq!(identity.path, folder.path("a.pem"));
    assert_eq!(identity.profile.usage, Usage::AuthCli);
}

#[test]
fn a_chain_in_the_wrong_order_is_put_right() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder.write(
        "a.pem",
        format!(
            "{}{}{}",
            issued.key_pem(),
            pki().authority_pem(),
            issued.cert_pem()
        ),
    );
    let identity = folder.load_only(&issued);
    assert_eq!(
        identity.key().cert,
        [issued.cert_der.clone(), pki().issuing_der().clone()]
    );
}

#[test]
fn text_around_sections_long_lines_and_windows_line_ends_do_not_matter() {
    let issued = issue("1060785003", "DUI", 0);
    let one_line = issued
        .key_pem()
        .replace('\n', "")
        .replace("KEY-----", "KEY-----\n")
        .replace("-----END", "\n-----END");
    let text = format!(
        "\u{feff}Bag Attributes\n  friendlyName: été\n{}\n{one_line}",
        issued.cert_pem()
    );
    let folder = Folder::new();
    folder.write("a.pem", text.replace('\n', "\r\n"));
    folder.load_only(&issued);
}

#[test]
fn a_certificate_in_der_finds_its_key() {
    let issued = issue("1060785003", "DUI", 0);
    for (certificate, key) in [("a.cer", "a.key"), ("A.CRT", "a.KEY"), ("a.der", "b.key")] {
        let folder = Folder::new();
        folder
            .write(certificate, &issued.cert_der)
            .write(key, issued.key.serialized_der());
        folder.load_only(&issued);
    }
}

#[test]
fn pkcs1_and_sec1_keys_are_read() {
    let rsa = issue("1060785003", "DUI", 0);
    let ec = pki().issue(&crate::simulator::pki::Request {
        key: Some(Arc::new(KeyPair::generate().unwrap())),
        ..shared::request("1060785003", "DUI", 0)
    });
    for (issued, label) in [(rsa, "RSA PRIVATE KEY"), (ec, "EC PRIVATE KEY")] {
        let inner = PrivateKeyInfoRef::from_der(issued.key.serialized_der()).unwrap();
        let folder = Folder::new();
        let key = pem(label, inner.private_key.as_bytes());
        folder.write("a.pem", format!("{}{key}", issued.cert_pem()));
        folder.load_only(&issued);
    }
}

#[test]
fn pkcs12_is_read_whether_modern_or_legacy() {
    let issued = issue("1060785003", "DUI", 0);
    for (rank, algorithms) in [MODERN, TRIPLE_DES, RC2].into_iter().enumerate() {
        let folder = Folder::new();
        let name = ["a.p12", "a.pfx", "a.P12"][rank];
        folder.write(name, pkcs12(&issued, algorithms, "sésame"));
        folder.write(&format!("{name}.password"), "sésame\n");
        assert_eq!(folder.load_only(&issued).key().cert.len(), 2);
    }
}

#[test]
fn pkcs12_without_password_needs_none() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder.write("a.p12", pkcs12(&issued, MODERN, ""));
    folder.load_only(&issued);
}

#[test]
fn pkcs12_tells_no_password_from_a_wrong_one() {
    let issued = issue("1060785003", "DUI", 0);
    for algorithms in [MODERN, TRIPLE_DES, RC2] {
        let folder = Folder::new();
        folder.write("a.p12", pkcs12(&issued, algorithms, "right"));
        assert!(matches!(
            folder.problem().kind,
            ProblemKind::PasswordMissing
        ));
        folder.write("a.p12.password", "wrong\nwronger\n");
        let problem = folder.problem();
        assert!(matches!(
            problem.kind,
            ProblemKind::WrongPassword { tried: 2 }
        ));
        assert!(!problem.to_string().contains("wronger"));
    }
}

#[test]
fn an_encrypted_key_opens_with_any_configured_password() {
    let issued = issue("1060785003", "DUI", 0);
    let mut folder = Folder::new();
    folder.write("a.crt", issued.cert_pem());
    folder.write(
        "a.key",
        pem("ENCRYPTED PRIVATE KEY", &encrypted_key(&issued, "relais")),
    );
    assert!(matches!(
        folder.problem().kind,
        ProblemKind::PasswordMissing
    ));

    folder.write("passwords", "first\nsecond\n");
    folder.config.password_file = Some(folder.path("passwords"));
    assert!(matches!(
        folder.problem().kind,
        ProblemKind::WrongPassword { tried: 2 }
    ));

    // Cargo sets this variable for tests: it holds the name of the package.
    folder.config.password_env = Some("CARGO_PKG_NAME".to_owned());
    folder.load_only(&issued);
}

#[test]
fn an_encrypted_key_in_der_opens_as_well() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder
        .write("a.crt", issued.cert_pem())
        .write("a.key", encrypted_key(&issued, "x"))
        .write("a.key.password", "x");
    folder.load_only(&issued);
}

#[test]
fn identities_do_not_show_their_keys() {
    let issued = issue("1060785003", "DUI", 0);
    let folder = Folder::new();
    folder.write("a.pem", issued.pem());
    let debug = format!("{:?}", folder.load_only(&issued));
    assert!(debug.contains("1060785003"));
    assert!(
        !debug.contains(" key:") && !debug.contains("SigningKey"),
        "{debug}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_and_damage_are_problems_and_never_panics(
        noise in prop::collection::vec(any::<u8>(), 1..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let issued = issue("1060785003", "DUI", 0);
        let folder = Folder::new();
        for (name, mut bytes) in [
            ("a.pem", issued.pem().into_bytes()),
            ("b.p12", pkcs12(&issued, MODERN, "")),
            ("c.key", encrypted_key(&issued, "x")),
        ] {
            for (index, byte) in &damage {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            folder.write(name, bytes);
        }
        folder.write("d.pem", &noise).write("e.p12", &noise).write("f.cer", &noise).write("c.key.password", "y");
        let loaded = folder.load();
        prop_assert!(loaded.problems.len() >= 3);
        prop_assert!(loaded.problems.iter().all(|problem| !matches!(problem.kind, ProblemKind::Internal)));
    }
}

/// The problem of a file, with a password to try.
fn problem_with_password(name: &str, content: Vec<u8>) -> Problem {
    let folder = Folder::new();
    folder
        .write(name, content)
        .write(&format!("{name}.password"), "password\n");
    let problem = folder.problem();
    assert!(problem.hint.contains("export it again"), "{problem}");
    problem
}

#[test]
fn an_encrypted_key_that_would_keep_the_loading_busy_for_hours_is_refused_at_once() {
    let cheap = Parameters::generate_pbkdf2_sha256_aes256cbc(20, &[7; 16], [9; 16]).unwrap();
    let Kdf::Pbkdf2(pbkdf2) = cheap.kdf.clone() else {
        panic!("{cheap:?}");
    };
    let scrypt = ScryptParams {
        salt: pbkdf2.salt,
        cost_parameter: 1 << 40,
        block_size: 8,
        parallelization: 1,
        key_length: None,
    };
    let mut rounds = pbkdf2;
    rounds.iteration_count = 1 << 31;
    let lanes = ScryptParams {
        cost_parameter: 1 << 14,
        parallelization: 17,
        ..scrypt
    };
    for (kdf, expected) in [
        (
            Kdf::from(rounds),
            "2147483648 rounds of PBKDF2, more than 10000000",
        ),
        (
            Kdf::from(scrypt),
            "1 times 1125899906842624 bytes of memory for scrypt, more than 16 times 268435456",
        ),
        (
            Kdf::from(lanes),
            "17 times 16777216 bytes of memory for scrypt, more than 16 times 268435456",
        ),
    ] {
        let parameters = Parameters {
            kdf,
            encryption: cheap.encryption,
        };
        let sealed = EncryptedPrivateKeyInfoOwned {
            encryption_algorithm: parameters.into(),
            encrypted_data: OctetString::new([0; 32]).unwrap(),
        };
        let problem = problem_with_password("a.key", sealed.to_der().unwrap());
        let told = problem.to_string();
        assert!(
            told.contains("a.key: ") && told.contains(expected),
            "{told}"
        );
    }
}

#[test]
fn a_pkcs12_file_that_would_keep_the_loading_busy_for_hours_is_refused_at_once() {
    let issued = issue("1060785003", "DUI", 0);
    // As long in DER as a number that would take minutes.
    let mut file = pkcs12_of_rounds(&issued, MODERN, "password", 0x1_0000);
    let rounds = file.len() - 3;
    assert_eq!(file[rounds - 2..], [2, 3, 1, 0, 0]);
    file[rounds..].copy_from_slice(&[0x7f, 0xff, 0xff]);
    let told = problem_with_password("a.p12", file).to_string();
    assert!(told.contains("more than 1000000 rounds"), "{told}");
}
