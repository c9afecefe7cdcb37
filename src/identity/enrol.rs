//! Enrolment: requests for certificates, and delivered certificates put where they are served.
//!
//! A private key is made on this machine, waits in a folder of its own beside the one that is loaded, and goes with
//! its certificate into one file of the loaded folder. It never leaves, and no file is ever half written.

pub mod bulk;
pub(crate) mod files;
pub mod install;
pub mod report;
pub mod request;
mod served;
pub mod subject;
mod verify;
mod waiting;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::load::Problem;
use crate::config::Identities;

/// Why something was not done; nothing was written then.
#[derive(Clone, Debug, Error, Serialize)]
#[error("{message}; {hint}")]
pub struct Refusal {
    /// What is wrong, and with what.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl Refusal {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A refusal by the system.
    fn system(path: &Path, error: &std::io::Error) -> Self {
        Self::new(
            format!("{}: {error}", path.display()),
            "check the folder, its permissions, and that the disk has room",
        )
    }
}

impl From<&Problem> for Refusal {
    fn from(problem: &Problem) -> Self {
        Self::new(
            format!("{}: {}", problem.path.display(), problem.kind),
            problem.hint.clone(),
        )
    }
}

/// Where keys wait for their certificates: the folder `pending` beside the one that is loaded. Inside it, each would
/// be reported as a key without certificate.
///
/// # Errors
/// When that is the loaded folder itself, or when the configuration file is in the loaded folder: what is beside it is
/// then somebody else's.
pub fn pending_folder(config: &Identities, configuration: &Path) -> Result<PathBuf, Refusal> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let served = real(&config.directory);
    let pending = config.directory.with_file_name("pending");
    if real(&pending) == served || real(configuration).starts_with(&served) {
        return Err(Refusal::new(
            format!(
                "there is no good place for keys that wait beside {}, which is loaded",
                config.directory.display()
            ),
            "name a folder with --out (csr) and --pending (install), or give certificates a folder of their own",
        ));
    }
    Ok(pending)
}
