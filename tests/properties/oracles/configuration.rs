//! Configuration files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;

use relais::config::Problems;
use relais::config::{Config, ListenAddress, Loaded, Place, Problem};
use tempfile::TempDir;

/// Enough of a certificate for who looks no further.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// A folder with what configurations name.
pub struct Folder(TempDir);

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

impl Folder {
    /// With an empty folder of certificates, and files whose content is not looked at.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("certs")).expect("it is new");
        for (name, content) in [
            ("tenants.csv", "finess\n"),
            ("passwords.txt", "one\n"),
            ("igc-sante.cer", ""),
            ("igc-sante.pem", PEM),
        ] {
            std::fs::write(folder.path().join(name), content).expect("it is new");
        }
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads a configuration that would lie in it.
    pub fn read(&self, text: &str) -> Result<Loaded, Problems> {
        Config::from_toml(text, &self.path().join("relais.toml"), [])
    }
}

/// A configuration is understood whole and the same each time, or every error names a place in it.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    // Devices and the kernel's own files are not what is being tested.
    if ["/dev", "/proc", "/sys"]
        .iter()
        .any(|folder| text.contains(folder))
    {
        return;
    }
    let lines = text.lines().count().max(1);
    let is_inside = |problem: &Problem| match &problem.place {
        Place::File { line, column, .. } => {
            assert!(
                *line >= 1 && *line <= lines + 1 && *column >= 1,
                "{problem}"
            );
        }
        Place::Variable(name) => panic!("no variable {name} was set"),
    };
    match (FOLDER.read(text), FOLDER.read(text)) {
        (Ok(first), Ok(second)) => {
            assert!(first.config == second.config && first.warnings == second.warnings);
            first.warnings.iter().for_each(is_inside);
            usable(&first.config);
        }
        (Err(first), Err(second)) => {
            assert_eq!(first, second);
            assert!(!first.errors.is_empty());
            first
                .errors
                .iter()
                .chain(&first.warnings)
                .for_each(is_inside);
        }
        other => panic!("it is understood one time only: {other:?}"),
    }
}

/// What nothing checks any more once a configuration was read.
fn usable(config: &Config) {
    assert!(!config.listeners.is_empty() && !config.services.is_empty());
    let is_loopback = |address: &SocketAddr| assert!(address.ip().is_loopback(), "{address}");
    let has = |name: &str| config.services.iter().any(|service| *service.name == *name);
    for listener in &config.listeners {
        match &listener.address {
            ListenAddress::Tcp(address) => is_loopback(address),
            ListenAddress::Unix(path) => assert!(path.is_absolute()),
        }
        assert!(listener.service.as_deref().is_none_or(has));
    }
    if let Some(admin) = &config.admin {
        is_loopback(&admin.address);
    }
    for binding in &config.bindings {
        assert!(has(&binding.service));
    }
    for (at, service) in config.services.iter().enumerate() {
        assert!(relais::services::is_service_name(&service.name));
        assert!(
            config.services[..at]
                .iter()
                .all(|other| other.name != service.name)
        );
        // What the application sent stands behind it, and must not become part of it.
        assert!(service.target.base_path.is_empty() || service.target.base_path.starts_with('/'));
        assert!(!service.target.base_path.ends_with('/'));
        for (_, value) in &service.headers {
            assert!(
                value.is_sensitive(),
                "a service's own field may be a secret"
            );
        }
    }
    for (at, caller) in config.callers.iter().enumerate() {
        let others = &config.callers[..at];
        assert!(
            others
                .iter()
                .all(|other| other.name != caller.name && other.proof != caller.proof)
        );
        for service in caller.services.iter().flatten() {
            assert!(has(service));
        }
    }
    assert!(config.identities.directory.is_absolute());
}
