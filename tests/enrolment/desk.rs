//! A site, and the commands that an operator gives there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::KeyPair;
use relais::services::WantedCertificate;
use relais::simulator::pki::{Issued, Request};
use relais::simulator::site::{Ports, Site, Stand};
use tempfile::TempDir;

/// The structure that has no certificate yet.
pub(crate) const NEW: &str = "060785003";

const INSI: Stand = Stand {
    certificate: WantedCertificate::InsiAuto,
    ..Stand::new("insi-auto")
};

/// A site with one structure that is served already.
pub(crate) struct Desk {
    pub(crate) site: Site,
    _directory: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn expect(self, code: i32, parts: &[&str]) -> Self {
        let all = format!("{}{}", self.out, self.error);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "{part:?} in {all}");
        }
        self
    }
}

impl Desk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stands = [Stand::new("dmp"), INSI];
        let site = Site::build(directory.path(), 1, &stands, Ports::default()).unwrap();
        Self {
            site,
            _directory: directory,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.directory.join(name)
    }

    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command.arg(name).env_remove("RELAIS_CONFIG");
        command.arg("--config").arg(&self.site.configuration);
        command
    }

    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Said {
        self.command(name).args(arguments).output().unwrap().into()
    }

    pub(crate) fn csr(&self, finess: &str, service_name: &str) -> Said {
        self.run("csr", &["--finess", finess, "--service-name", service_name])
    }

    pub(crate) fn install(&self, file: &Path, more: &[&str]) -> Said {
        let mut arguments = vec![file.to_str().unwrap()];
        arguments.extend(more);
        self.run("install", &arguments)
    }

    /// A request, answered by the platform: the delivered file.
    pub(crate) fn ordered(&self, finess: &str, service_name: &str, slug: &str) -> PathBuf {
        self.csr(finess, service_name).expect(0, &[]);
        let key = self.pending_key(&format!("{finess}-{slug}"));
        let ou = format!("1{finess}");
        self.deliver(&self.site.pki.issue(&Request {
            key: Some(key),
            ..Request::new(&ou, service_name)
        }))
    }

    /// The same for the structure that is served already, with a certificate that began a minute ago: later than that
    /// one, which began an hour before the site was built.
    pub(crate) fn renewed(&self, service_name: &str, slug: &str, organization: &str) -> PathBuf {
        let tenant = self.site.tenants[0].to_string();
        self.csr(&tenant, service_name).expect(0, &[]);
        let ou = format!("1{tenant}");
        self.deliver(&self.site.pki.issue(&Request {
            key: Some(self.pending_key(&format!("{tenant}-{slug}"))),
            organization,
            not_before: Some(jiff::Timestamp::now().as_second() - 60),
            ..Request::new(&ou, service_name)
        }))
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, text: &str) {
        let mut all = fs::read_to_string(&self.site.configuration).unwrap();
        all.push_str(text);
        fs::write(&self.site.configuration, all).unwrap();
    }

    pub(crate) fn pending_key(&self, stem: &str) -> Arc<KeyPair> {
        Self::key_in(&self.path("pending"), stem)
    }

    pub(crate) fn key_in(folder: &Path, stem: &str) -> Arc<KeyPair> {
        let text = fs::read_to_string(folder.join(format!("{stem}.key"))).unwrap();
        Arc::new(KeyPair::from_pem(&text).unwrap())
    }

    pub(crate) fn deliver(&self, issued: &Issued) -> PathBuf {
        let file = self.path("delivered.crt");
        fs::write(&file, issued.cert_pem()).unwrap();
        file
    }

    pub(crate) fn files(&self, folder: &str) -> HashSet<PathBuf> {
        let mut found = HashSet::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Installing the file is refused in these words, and changes nothing.
    #[track_caller]
    pub(crate) fn refuses(&self, file: &Path, more: &[&str], words: &[&str]) {
        let before = (self.files("certs"), self.files("pending"));
        self.install(file, more)
            .expect(1, words)
            .expect(1, &["hint: "]);
        assert_eq!((self.files("certs"), self.files("pending")), before);
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
