//! Makes the tree of example certificates that `config/relais.toml` refers to.
//!
//! `cargo run --example make-certs-example -- certs-example` makes all of it anew, with a PKI of its own: files of
//! an earlier run are replaced together, because certificates of two PKIs do not go together.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use relais::services::Environment;
use relais::simulator::pki::{AUTHORITIES_END, Issued, Pki, Request, write_private};
use relais::simulator::site::sample_finess;

/// No secret: it stands in the file beside what it opens.
const PASSWORD: &str = "mot de passe d'exemple";

/// What openssl does by default, so that the file can be opened in no more time than usual.
const ITERATIONS: u32 = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: make-certs-example DIRECTORY")?;
    let pki = Pki::new(Environment::Test);
    write(
        &root.join("trust/igc-sante-test.pem"),
        pki.authority_pem().as_bytes(),
    )?;

    let home = structure(0, "EHPAD FICTIF LES TILLEULS");
    let folder = root.join("certs").join(&home.finess);
    let auth_cli = home.issue(&pki, "Dossier usager informatise");
    write(&folder.join("auth_cli.pem"), auth_cli.pem().as_bytes())?;
    let insi = home.issue(&pki, "INSI-AUTO");
    write(&folder.join("insi-auto.p12"), &pkcs12(&pki, &insi)?)?;
    write(
        &folder.join("insi-auto.p12.password"),
        format!("{PASSWORD}\n").as_bytes(),
    )?;

    let pharmacy = structure(1, "PHARMACIE FICTIVE DU PORT");
    let folder = root.join("certs").join(&pharmacy.finess);
    let auth_cli = pharmacy.issue(&pki, "Logiciel de gestion d'officine");
    write(
        &folder.join("auth_cli.crt"),
        auth_cli.chain_pem().as_bytes(),
    )?;
    write(&folder.join("auth_cli.key"), auth_cli.key_pem().as_bytes())?;
    let insi = pharmacy.issue(&pki, "INSI-AUTO");
    write(&folder.join("insi-auto.pem"), insi.pem().as_bytes())?;
    Ok(())
}

struct Structure {
    finess: String,
    ou: String,
    name: &'static str,
}

fn structure(number: usize, name: &'static str) -> Structure {
    let finess = sample_finess(number).to_string();
    Structure {
        ou: format!("1{finess}"),
        finess,
        name,
    }
}

impl Structure {
    fn issue(&self, pki: &Pki, common_name: &str) -> Issued {
        pki.issue(&Request {
            organization: self.name,
            not_after: Some(AUTHORITIES_END),
            ..Request::new(&self.ou, common_name)
        })
    }
}

fn pkcs12(pki: &Pki, issued: &Issued) -> Result<Vec<u8>, p12_keystore::error::Error> {
    let chain = [&issued.cert_der, pki.issuing_der(), pki.root_der()]
        .into_iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKey::from_der(issued.key.serialized_der())?;
    let mut store = KeyStore::new();
    let entry = KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("1", key, chain));
    store.add_entry("insi-auto", entry);
    store
        .writer(PASSWORD)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write_private(path, contents)?;
    println!("{}", path.display());
    Ok(())
}
