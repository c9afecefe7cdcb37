//! A delivered certificate, matched with its key, verified, and put where it is served.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use super::changes::{self, Replaced};
use super::verify::{self, date};
use super::{Refusal, files};
use crate::config::{Config, Identities};
use crate::identity::load::{
    self, BareKey, Certificate, LoadError, PublicKey, Unpacked, Unpacker, sha256,
};
use crate::identity::profile::{Fingerprint, Profile};
use crate::identity::states::now;
use crate::services::{Environment, Trust};

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
    pub(super) public: PublicKey,
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

/// A certificate in its place.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// Its file.
    pub path: PathBuf,
    /// Its subject, in RFC 4514 order.
    pub subject: Box<str>,
    /// Its serial number.
    pub serial: Box<str>,
    /// Its SHA-256.
    pub sha256: String,
    /// Its start.
    pub not_before: String,
    /// Its end.
    pub not_after: String,
    /// Whether it was there already.
    pub was_there: bool,
    /// The one that requests have gone out under so far.
    pub replaces: Option<Replaced>,
    /// What may not be meant.
    pub warnings: Vec<String>,
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
            known: loaded
                .identities
                .into_iter()
                .filter_map(Known::of)
                .collect(),
            pending: unpacker.keys_in(&pending_folder)?,
            pending_folder,
            trusted: trusted(config, &unpacker),
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
        let leaf = Arc::clone(only_leaf(&delivered).map_err(|refusal| vec![refusal])?);
        let authorities: Vec<_> = (delivered.certificates.iter())
            .filter(|one| one.is_authority())
            .chain(&self.trusted)
            .map(Arc::clone)
            .collect();
        let chain = verify::chain(&leaf, &authorities);
        let mut refusals = verify::objections(&leaf.profile, &self.environments, now());
        let installed = self.installed(leaf.profile.fingerprint);
        // What is for another purpose fails here too, in words that tell less.
        let verified = match refusals.len() {
            0 => verify::signatures(&chain, &self.trusted, now()),
            _ => Ok(None),
        };
        let unverified = verified.unwrap_or_else(|refusal| {
            refusals.push(refusal);
            None
        });
        let (key, pending) = self
            .key_of(&leaf, delivered.keys)
            .unwrap_or_else(|refusal| {
                // One that is installed has its key with it.
                refusals.extend(installed.is_none().then_some(refusal));
                (None, None)
            });
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let known = Known {
            path: installed.map_or_else(|| self.place_of(&leaf.profile), |old| old.path.clone()),
            public: leaf.public,
            profile: leaf.profile.clone(),
        };
        let bundle = key
            .filter(|_| installed.is_none())
            .map(|key| bundle(&chain, &key));
        let mut report = self.report(&known, unverified);
        report.was_there = installed.is_some();
        Ok(Plan {
            report,
            known,
            bundle,
            pending,
        })
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

    /// The key in the delivered file, or the one that waits for this certificate, and where.
    fn key_of(
        &self,
        leaf: &Certificate,
        delivered: Vec<BareKey>,
    ) -> Result<(Option<BareKey>, Option<PathBuf>), Refusal> {
        let waiting = self
            .pending
            .iter()
            .find(|(public, _)| *public == leaf.public);
        let pending = waiting.map(|(_, file)| file.clone());
        let keys = match &pending {
            _ if !delivered.is_empty() => delivered,
            Some(file) => self.unpacker.unpack(file)?.keys,
            None => {
                return Err(Refusal::new(
                    format!(
                        "none of the {} keys in {} is its own",
                        self.pending.len(),
                        self.pending_folder.display()
                    ),
                    "install it on the machine where its request was made; --pending names another folder of keys",
                ));
            }
        };
        match keys.into_iter().find(|key| key.public == leaf.public) {
            Some(key) => Ok((Some(key), pending)),
            None => Err(Refusal::new(
                "the private key delivered with it is that of another certificate",
                "export it again, with its own key",
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

    fn report(&self, new: &Known, unverified: Option<String>) -> Installed {
        let profile = &new.profile;
        let old = changes::replaced_by(new, &self.known, now());
        let mut warnings: Vec<_> = unverified.into_iter().collect();
        if profile.not_before > now() {
            warnings.push(format!(
                "it begins on {}, and is not used before",
                date(profile.not_before)
            ));
        }
        if profile
            .structure
            .as_ref()
            .is_some_and(|id| id.finess().is_none())
        {
            warnings.push("its OU is no FINESS number, so no tenant can be found by it".to_owned());
        }
        if let Some(old) = old.filter(|old| old.profile.not_before >= profile.not_before) {
            warnings.push(format!(
                "{} did not begin earlier: of several, the gateway uses the one that began last",
                old.path.display()
            ));
        }
        let is_shared = |other: &&Known| {
            other.public == new.public && other.profile.structure != profile.structure
        };
        if let Some(other) = self.known.iter().find(is_shared) {
            warnings.push(format!(
                "the same key serves another structure ({}), which the ANS forbids: each needs a key of its own",
                other.path.display()
            ));
        }
        Installed {
            path: new.path.clone(),
            subject: profile.subject.clone(),
            serial: profile.serial.clone(),
            sha256: profile.fingerprint.to_string(),
            not_before: date(profile.not_before),
            not_after: date(profile.not_after),
            was_there: false,
            replaces: old.map(|old| Replaced::new(old, new, now())),
            warnings,
        }
    }
}

impl Known {
    fn of(identity: load::Identity) -> Option<Self> {
        let public = identity.key.key.public_key()?;
        Some(Self {
            public: sha256(public.as_ref()),
            profile: identity.profile,
            path: identity.path,
        })
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

/// The authorities in the `trust` files of all services. That each can be read was seen with the configuration.
fn trusted(config: &Config, unpacker: &Unpacker) -> Vec<Arc<Certificate>> {
    let mut files: Vec<_> = (config.services.iter())
        .filter_map(|service| match &service.trust {
            Trust::File(path) => Some(path),
            Trust::Public => None,
        })
        .collect();
    files.sort();
    files.dedup();
    (files.into_iter())
        .filter_map(|file| unpacker.unpack(file).ok())
        .flat_map(|unpacked| unpacked.certificates)
        .collect()
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

fn bundle(chain: &[&Certificate], key: &BareKey) -> Zeroizing<String> {
    let key = key.to_pem();
    let chain: String = chain.iter().map(|one| one.to_pem()).collect();
    // Sized at once: a text that grows leaves copies of secrets behind.
    let mut bundle = Zeroizing::new(String::with_capacity(chain.len() + key.len()));
    bundle.push_str(&chain);
    bundle.push_str(&key);
    bundle
}
