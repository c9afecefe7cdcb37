//! A delivered certificate, matched with its key, verified, and put where it is served.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::report::Installed;
use super::{Refusal, files, verify};
use crate::config::{Config, Identities};
use crate::identity::load::{self, BareKey, Certificate, LoadError, PublicKey, Unpacked, Unpacker};
use crate::identity::profile::{Fingerprint, Profile};
use crate::identity::states::now;
use crate::services::Environment;

/// The folder that is served, the requests that wait, and whom the configuration trusts.
pub struct Installer {
    directory: PathBuf,
    unpacker: Unpacker,
    known: Vec<Known>,
    pending: Vec<(PublicKey, PathBuf)>,
    pending_folder: PathBuf,
    trusted: Vec<Arc<Certificate>>,
    environments: Vec<Environment>,
}

/// A certificate that is served, or will be.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) profile: Profile,
    pub(super) path: PathBuf,
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
    /// Reads what is there. `pending` is where keys wait; a password file takes the place of the configured one.
    ///
    /// # Errors
    /// When the folder of certificates, that of keys, or passwords cannot be read.
    pub fn new(
        config: &Config,
        pending: Option<&Path>,
        password_file: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let loaded = load::load(&config.identities)?;
        let given = password_file.or(config.identities.password_file.as_deref());
        let unpacker = Unpacker::new(&Identities {
            password_file: given.map(Path::to_owned),
            ..config.identities.clone()
        })?;
        let pending_folder =
            pending.map_or_else(|| super::pending_folder(&config.identities), Path::to_owned);
        let environments = (config.services.iter()).map(|service| service.environment);
        Ok(Self {
            directory: config.identities.directory.clone(),
            known: loaded.identities.into_iter().map(Known::of).collect(),
            pending: waiting_keys(&unpacker, &pending_folder, &config.identities.directory)?,
            pending_folder,
            trusted: verify::trusted(config, &unpacker),
            environments: environments.chain([config.environment]).collect(),
            unpacker,
        })
    }

    /// Verifies a delivered file, and tells what installing it means. Nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self, file: &Path) -> Result<Plan, Vec<Refusal>> {
        let delivered = (self.unpacker.unpack(file)).map_err(|problem| vec![problem.into()])?;
        let leaf = only_leaf(&delivered).map_err(|refusal| vec![refusal])?;
        if let Some(installed) = self.installed(leaf.profile.fingerprint) {
            return Ok(self.already_there(installed));
        }
        let new = Known {
            path: self.place_of(&leaf.profile),
            profile: leaf.profile.clone(),
        };
        let mut refusals = verify::objections(&new.profile, &self.environments, now());
        refusals.extend(self.tie(&new));
        let chain = verify::chain(leaf, &delivered.certificates, &self.trusted);
        // What is for another purpose fails here too, in words that tell less.
        let unverified = match refusals.len() {
            0 => verify::signatures(&chain, &self.trusted, now()),
            _ => Ok(None),
        };
        let unverified = unverified.map_err(|refusal| refusals.push(refusal));
        let key = self.key_of(leaf, &delivered.keys);
        let key = key.map_err(|refusal| refusals.push(refusal));
        match (unverified, key) {
            (Ok(unverified), Ok((key, pending))) if refusals.is_empty() => Ok(Plan {
                report: Installed::new(&new, &self.known, unverified, now()),
                bundle: Some(bundle(&chain, &key)),
                known: new,
                pending,
            }),
            _ => Err(refusals),
        }
    }

    fn already_there(&self, installed: &Known) -> Plan {
        Plan {
            report: Installed {
                was_there: true,
                ..Installed::new(installed, &self.known, None, now())
            },
            bundle: None,
            pending: self.waiting(installed.profile.public_key),
            known: installed.clone(),
        }
    }

    /// Of two that began in the same second none is used: better this one waits than that both fail.
    fn tie(&self, new: &Known) -> Option<Refusal> {
        let same = |old: &&Known| {
            old.kind() == new.kind() && old.profile.not_before == new.profile.not_before
        };
        let old = self.known.iter().find(same)?;
        Some(Refusal::new(
            format!(
                "it began in the same second as {}, and the gateway could not tell which is meant",
                old.path.display()
            ),
            "remove that one first, if this one is to be used",
        ))
    }

    /// Puts a verified certificate in place, and then removes the request that it answers.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn place(&mut self, plan: Plan) -> Result<Installed, Refusal> {
        let path = &plan.known.path;
        if let Some(bundle) = &plan.bundle {
            let folder = path.parent().unwrap_or(&self.directory);
            files::make_folder(folder).map_err(|error| Refusal::system(folder, &error))?;
            files::place(path, bundle.as_bytes()).map_err(|error| Refusal::system(path, &error))?;
            self.known.push(plan.known);
        }
        if let Some(key) = &plan.pending {
            // The certificate says what the request said, and the next one may have the same name.
            for file in [&key.with_extension("csr"), key] {
                files::remove(file).map_err(|error| Refusal::system(file, &error))?;
            }
            self.pending.retain(|(_, other)| other != key);
        }
        Ok(plan.report)
    }

    fn installed(&self, fingerprint: Fingerprint) -> Option<&Known> {
        (self.known.iter()).find(|old| old.profile.fingerprint == fingerprint)
    }

    /// The file of the key that waits for a certificate.
    fn waiting(&self, public: PublicKey) -> Option<PathBuf> {
        let found = self.pending.iter().find(|(other, _)| *other == public);
        found.map(|(_, file)| file.clone())
    }

    /// The key in the delivered file, or the one that waits; in PEM, and where one waits.
    fn key_of(
        &self,
        leaf: &Certificate,
        delivered: &[BareKey],
    ) -> Result<(Zeroizing<String>, Option<PathBuf>), Refusal> {
        let own = |keys: &[BareKey]| {
            let found = keys
                .iter()
                .find(|key| key.public == leaf.profile.public_key);
            found.map(BareKey::to_pem)
        };
        let pending = self.waiting(leaf.profile.public_key);
        if let Some(key) = own(delivered) {
            return Ok((key, pending));
        }
        if !delivered.is_empty() {
            return Err(Refusal::new(
                "the private key delivered with it is that of another certificate",
                "export it again, with its own key",
            ));
        }
        let waiting = pending.as_ref().map(|file| self.unpacker.unpack(file));
        let waiting = waiting.transpose()?;
        match waiting.and_then(|unpacked| own(&unpacked.keys)) {
            Some(key) => Ok((key, pending)),
            None => Err(Refusal::new(
                format!(
                    "none of the {} keys in {} is its own",
                    self.pending.len(),
                    self.pending_folder.display()
                ),
                "install it on the machine where its request was made; --pending names another folder of keys",
            )),
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

impl Known {
    /// What those that could take each other's place have in common.
    pub(super) fn kind(&self) -> impl PartialEq + use<'_> {
        let profile = &self.profile;
        let structure = profile.structure.as_ref();
        (structure, profile.environment, profile.usage, profile.insi)
    }

    fn of(identity: load::Identity) -> Self {
        Self {
            profile: identity.profile,
            path: identity.path,
        }
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

/// What waits is removed once it has its certificate, so nothing that is served counts, wherever one looks for keys.
fn waiting_keys(
    unpacker: &Unpacker,
    folder: &Path,
    served: &Path,
) -> Result<Vec<(PublicKey, PathBuf)>, LoadError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let served = real(served);
    let mut keys = unpacker.lone_keys(folder)?;
    keys.retain(|(_, file)| !real(file).starts_with(&served));
    Ok(keys)
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
