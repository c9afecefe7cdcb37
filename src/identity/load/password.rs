//! Where passwords come from: a file beside the encrypted one, a shared file, the environment, systemd.
//!
//! They are wiped when dropped, and no type here can print them.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::file;
use super::problem::{LoadError, Problem, ProblemKind};
use crate::config::{Identities, KeyReaders};

/// A password. The wrapper has no `Debug` on purpose.
pub(super) struct Password(Zeroizing<String>);

impl Password {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The passwords that any encrypted file may open with, in the order in which they are tried.
pub(super) struct Passwords {
    shared: Vec<Password>,
    readers: KeyReaders,
}

impl Passwords {
    /// Reads all configured sources; one that is missing is an error, not a password less.
    pub(super) fn gather(config: &Identities) -> Result<Self, LoadError> {
        let readers = config.key_readers;
        let mut shared = Vec::new();
        if let Some(path) = &config.password_file {
            shared.extend(read_lines(path, readers).map_err(LoadError::PasswordFile)?);
        }
        if let Some(name) = &config.password_env {
            // The name is not told: somebody may have written the password there.
            let value = env::var(name).map_err(|_| LoadError::PasswordEnv)?;
            shared.push(Password(Zeroizing::new(value)));
        }
        if let Some(name) = &config.password_credential {
            let directory = env::var_os("CREDENTIALS_DIRECTORY");
            shared.extend(credential(directory.as_deref(), name)?);
        }
        Ok(Self { shared, readers })
    }

    /// None but those beside files.
    pub(super) fn none(readers: KeyReaders) -> Self {
        Self {
            shared: Vec::new(),
            readers,
        }
    }

    /// The passwords for one file: those in `<file>.password` first.
    pub(super) fn own(&self, path: &Path) -> Result<Vec<Password>, Problem> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".password");
        let beside = PathBuf::from(beside);
        // A broken link is there, and will be reported as unreadable.
        if beside.symlink_metadata().is_err() {
            return Ok(Vec::new());
        }
        read_lines(&beside, self.readers)
    }

    /// The passwords for all files.
    pub(super) fn shared(&self) -> &[Password] {
        &self.shared
    }
}

fn credential(directory: Option<&OsStr>, name: &str) -> Result<Vec<Password>, LoadError> {
    let directory = directory.ok_or(LoadError::NoCredentials)?;
    // systemd gives the service access by an ACL that shows as group permission bits: it guards the folder itself.
    read_lines(&Path::new(directory).join(name), KeyReaders::Anyone)
        .map_err(LoadError::PasswordCredential)
}

fn read_lines(path: &Path, readers: KeyReaders) -> Result<Vec<Password>, Problem> {
    let problem = |kind| Problem::new(path, kind);
    let file = file::read(path).map_err(problem)?;
    file.check_secrecy(readers).map_err(problem)?;
    let text = str::from_utf8(&file.bytes).map_err(|_| problem(ProblemKind::PasswordNotText))?;
    // Windows editors start UTF-8 files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let passwords: Vec<_> = (text.lines())
        .filter(|line| !line.is_empty())
        .map(|line| Password(Zeroizing::new(line.to_owned())))
        .collect();
    if passwords.is_empty() {
        return Err(problem(ProblemKind::Empty));
    }
    Ok(passwords)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::pki::write_private;

    #[test]
    fn a_systemd_credential_is_read_line_by_line() {
        let directory = tempfile::tempdir().unwrap();
        write_private(&directory.path().join("p"), "one\r\n\ntwo ").unwrap();
        let passwords = credential(Some(directory.path().as_os_str()), "p").unwrap_or_default();
        let texts: Vec<_> = passwords.iter().map(Password::as_str).collect();
        // Blanks may be part of a password; ends of lines are not.
        assert_eq!(texts, ["one", "two "]);
    }

    #[test]
    fn a_missing_credential_is_an_error_that_says_what_to_do() {
        let error = credential(None, "hunter2").err().unwrap().to_string();
        assert!(error.contains("LoadCredential="), "{error}");
        // It may be the password that was written in place of a name.
        assert!(!error.contains("hunter2"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let error = credential(Some(directory.path().as_os_str()), "p")
            .err()
            .unwrap();
        assert!(matches!(error, LoadError::PasswordCredential(_)));
    }
}
