//! A delivered certificate, matched with its key, verified, and put where it is served.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::report::Installed;
use super::served::{Known, Served};
use super::waiting::Waiting;
use super::{Refusal, files, verify};
use crate::config::{Config, Identities};
use crate::identity::generation::Generation;
use crate::identity::load::{BareKey, Certificate, LoadError, Problem, Unpacked, Unpacker};
use crate::identity::profile::Profile;
use crate::identity::registry::Registry;
use crate::identity::revocation::Revocations;
use crate::identity::states::now;
use crate::services::Environment;

/// The folder that is served, the requests that wait, and whom the configuration trusts.
pub struct Installer {
    directory: PathBuf,
    unpacker: Unpacker,
    served: Served,
    waiting: Waiting,
    trusted: Vec<Arc<Certificate>>,
    revocations: Revocations,
    environments: Vec<Environment>,
}

/// A verified certificate that is not in place yet.
pub struct Plan {
    /// What will be done.
    pub report: Installed,
    known: Known,
    /// Certificate, chain and key in PEM; nothing when it is there already.
    bundle: Option<Zeroizing<String>>,
    /// The key that waited for it.
    pending: Option<PathBuf>,
}

impl Installer {
    /// Reads what is there, beside the certificates that are served. `pending` is where keys wait; a password file
    /// takes the place of the configured one.
    ///
    /// # Errors
    /// When the folder of certificates, that of keys, or passwords cannot be read.
    pub fn new(
        config: &Config,
        generations: &[Arc<Generation>],
        revocations: Revocations,
        pending: PathBuf,
        password_file: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let given = password_file.or(config.identities.password_file.as_deref());
        let unpacker = Unpacker::new(&Identities {
            password_file: given.map(Path::to_owned),
            ..config.identities.clone()
        })?;
        let (bindings, vendor) = (config.bindings.clone(), config.vendor.clone());
        // What is wrong with the table of structures is for `relais check` to tell.
        let (registry, _) = Registry::load(&config.tenants, bindings, vendor);
        let environments = (config.services.iter()).map(|service| service.environment);
        let directory = config.identities.directory.clone();
        Ok(Self {
            served: Served::new(generations, registry),
            waiting: Waiting::read(&unpacker, pending, &directory)?,
            trusted: verify::trusted(config, &unpacker),
            revocations,
            environments: environments.chain([config.environment]).collect(),
            directory,
            unpacker,
        })
    }

    /// Verifies a delivered file, and tells what installing it means. Nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self, file: &Path) -> Result<Plan, Vec<Refusal>> {
        let unpacked = self.unpacker.unpack(file);
        let delivered = unpacked.map_err(|problem| vec![refusal_of(file, &problem)])?;
        let leaf = only_leaf(&delivered).map_err(|refusal| vec![refusal])?;
        if let Some(installed) = self.served.find(leaf.profile.fingerprint) {
            return Ok(self.already_there(installed));
        }
        let new = Known {
            path: self.place_of(&leaf.profile),
            profile: Arc::clone(&leaf.profile),
        };
        let (environments, revocations) = (&self.environments, &self.revocations);
        let mut refusals = verify::objections(&new.profile, environments, revocations, now());
        refusals.extend(self.tie(&new));
        let chain = verify::chain(leaf, &delivered.certificates, &self.trusted);
        // What is for another purpose fails here too, in words that tell less.
        let unverified = match refusals.len() {
            0 => verify::signatures(&chain, &self.trusted, now()),
            _ => Ok(None),
        };
        let unverified = unverified.map_err(|refusal| refusals.push(refusal));
        let key = self.key_of(leaf, &delivered.keys);
        let key = key.map_err(|more| refusals.extend(more));
        match (unverified, key) {
            (Ok(unverified), Ok((key, pending))) if refusals.is_empty() => {
                let mut report = Installed::new(&new, &self.served, now());
                report.warnings.extend(unverified);
                report.warnings.extend(files::stranger(&self.directory));
                Ok(Plan {
                    report,
                    bundle: Some(bundle(&chain, &key)),
                    known: new,
                    pending,
                })
            }
            _ => Err(refusals),
        }
    }

    fn already_there(&self, installed: &Known) -> Plan {
        Plan {
            report: Installed {
                was_there: true,
                ..Installed::new(installed, &self.served, now())
            },
            bundle: None,
            pending: self.waiting.file_of(installed.profile.public_key),
            known: installed.clone(),
        }
    }

    /// Of two that began in the same second none is used, unless bindings tell them apart: better this one waits than
    /// that both fail.
    fn tie(&self, new: &Known) -> Option<Refusal> {
        let old = self.served.twin(new)?;
        let is_pinned = self.served.is_pinned(old) || self.served.is_pinned(new);
        (!is_pinned).then(|| {
            Refusal::new(
                format!(
                    "it began in the same second as {}, and the gateway could not tell which is meant",
                    old.path.display()
                ),
                "remove that one first, if this one is to be used; or say under [[bindings]] what each is for",
            )
        })
    }

    /// Puts a verified certificate in place, and then removes the request that it answers.
    ///
    /// # Errors
    /// When it cannot be written. A request that cannot be removed is a warning in the report.
    pub fn place(&mut self, plan: Plan) -> Result<Installed, Refusal> {
        let mut report = plan.report;
        let path = &plan.known.path;
        if let Some(bundle) = &plan.bundle {
            let folder = path.parent().unwrap_or(&self.directory);
            files::make_folder(folder).map_err(|error| Refusal::system(folder, &error))?;
            files::sweep(folder);
            files::place(path, bundle.as_bytes(), files::SECRET)
                .map_err(|error| Refusal::system(path, &error))?;
            self.served.add(plan.known);
        }
        if let Some(key) = &plan.pending {
            report.warnings.extend(self.waiting.remove(key));
        }
        Ok(report)
    }

    /// The key in the delivered file, or the one that waits; in PEM, and where one waits.
    fn key_of(
        &self,
        leaf: &Certificate,
        delivered: &[BareKey],
    ) -> Result<(Zeroizing<String>, Option<PathBuf>), Vec<Refusal>> {
        let own = |keys: &[BareKey]| {
            let found = keys
                .iter()
                .find(|key| key.public == leaf.profile.public_key);
            found.map(BareKey::to_pem)
        };
        let pending = self.waiting.file_of(leaf.profile.public_key);
        if let Some(key) = own(delivered) {
            return Ok((key, pending));
        }
        if !delivered.is_empty() {
            return Err(vec![Refusal::new(
                "the private key delivered with it is that of another certificate",
                "export it again, with its own key",
            )]);
        }
        let waiting = pending.as_ref().map(|file| self.unpacker.unpack(file));
        let waiting = waiting
            .transpose()
            .map_err(|problem| vec![(&problem).into()])?;
        match waiting.and_then(|unpacked| own(&unpacked.keys)) {
            Some(key) => Ok((key, pending)),
            None => Err(self.waiting.none_fits()),
        }
    }

    fn place_of(&self, profile: &Profile) -> PathBuf {
        let structure = profile.structure.as_ref();
        // Structures known by another number than FINESS keep the digit that says so.
        let folder = structure.map(|id| {
            id.finess()
                .map_or_else(|| id.to_string(), |finess| finess.to_string())
        });
        let name = files::slug(profile.common_name.as_deref().unwrap_or_default());
        let start: String = profile.fingerprint.to_string().chars().take(8).collect();
        let folder = self.directory.join(folder.unwrap_or_default());
        folder.join(format!("{name}-{start}.pem"))
    }
}

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installer")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Plan")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// A problem of the delivered file, whose name is told anyway, or of a file beside it.
fn refusal_of(delivered: &Path, problem: &Problem) -> Refusal {
    if problem.path == delivered {
        Refusal::new(problem.kind.to_string(), problem.hint.clone())
    } else {
        problem.into()
    }
}

/// The one certificate in a delivered file that is no authority's.
fn only_leaf(delivered: &Unpacked) -> Result<&Arc<Certificate>, Refusal> {
    let mut leaves = delivered
        .certificates
        .iter()
        .filter(|one| !one.is_authority());
    match (leaves.next(), leaves.count(), delivered.keys.len()) {
        (Some(leaf), 0, 0 | 1) => Ok(leaf),
        (None, ..) => Err(Refusal::new(
            "no certificate of a structure is in it",
            "give the file that the platform delivered, once the certificate was withdrawn there",
        )),
        (_, others, keys) => Err(Refusal::new(
            format!(
                "{} certificates and {keys} private keys are in it, and which is meant cannot be told",
                others + 1
            ),
            "take one certificate and its key out: `openssl pkcs12 -in FILE -nodes` writes all of it as text",
        )),
    }
}

fn bundle(chain: &[&Certificate], key: &str) -> Zeroizing<String> {
    let chain: String = chain.iter().map(|one| one.to_pem()).collect();
    // Sized at once: a text that grows leaves copies of secrets behind.
    let mut bundle = Zeroizing::new(String::with_capacity(chain.len() + key.len()));
    bundle.push_str(&chain);
    bundle.push_str(key);
    bundle
}
