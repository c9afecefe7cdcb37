//! Requests by the hundred: one for each structure of a CSV file, on all cores.
//!
//! A manifest beside the requests has a line for each that is done. A run that was interrupted goes on where it
//! stopped, and a line that is wrong stops no other.

mod manifest;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use self::manifest::Manifest;
use super::subject::{ServiceName, Subject, doubt};
use super::{Refusal, request};
use crate::config::Tenants;
use crate::identity::finess::Finess;
use crate::identity::tenants::{self, Mistake, MistakeKind, Structure};

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Requests made by this run.
    pub made: usize,
    /// Requests that the manifest had already.
    pub done_before: usize,
    /// The lines and structures for which there is no request.
    pub failures: Vec<Failure>,
    /// What may not be meant.
    pub warnings: Vec<String>,
    /// The manifest: `finess,name,common_name,key,csr,public_key_sha256,created`.
    pub manifest: PathBuf,
}

/// A line that is wrong, or a structure for which no request could be made.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The file and line, or the structure.
    pub place: String,
    /// Why.
    #[serde(flatten)]
    pub refusal: Refusal,
}

impl From<&Mistake> for Failure {
    fn from(mistake: &Mistake) -> Self {
        Self {
            place: mistake.place.to_string(),
            refusal: Refusal::new(mistake.kind.to_string(), mistake.hint()),
        }
    }
}

/// Makes a request for `service_name` of each structure in `from`, a table of structures as `[tenants]` names it.
/// `progress` is told how many of how many are done.
///
/// # Errors
/// When the file cannot be read, lacks the column of numbers, or the manifest cannot be opened. What is wrong with
/// single lines is in the outcome.
pub fn make_all(
    from: &Path,
    service_name: &ServiceName,
    folder: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Outcome, Refusal> {
    let (structures, mistakes) = tenants::load(&Tenants {
        files: vec![from.to_owned()],
        inline: Vec::new(),
    });
    let mut errors = (mistakes.iter()).filter(|mistake| leaves_out(&mistake.kind));
    if structures.is_empty()
        && let Some(mistake) = errors.next()
    {
        let Failure { place, refusal } = mistake.into();
        return Err(Refusal::new(
            format!("{place}: {}", refusal.message),
            refusal.hint,
        ));
    }
    request::prepare(folder)?;
    let path = folder.join("manifest.csv");
    let manifest = Manifest::open(folder, &path).map_err(|error| Refusal::system(&path, &error))?;
    let mut outcome = Outcome {
        made: 0,
        done_before: 0,
        failures: errors.map(Failure::from).collect(),
        warnings: (structures.iter())
            .filter_map(|(finess, _)| doubt(finess))
            .collect(),
        manifest: path,
    };
    let mut jobs = Vec::new();
    for (finess, structure) in structures.iter() {
        match subject(finess, structure, service_name) {
            Ok(subject) if manifest.has(&subject) => outcome.done_before += 1,
            Ok(subject) => jobs.push(subject),
            Err(refusal) => outcome.failures.push(Failure {
                place: finess.to_string(),
                refusal,
            }),
        }
    }
    let failures = make_jobs(&jobs, folder, manifest, progress);
    outcome.made = jobs.len() - failures.len();
    outcome.failures.extend(failures);
    Ok(outcome)
}

/// Whether a mistake may leave a structure out. The others are about legal entities and sectors, which no request has.
fn leaves_out(kind: &MistakeKind) -> bool {
    !matches!(
        kind,
        MistakeKind::NoLegalEntityColumn
            | MistakeKind::LegalEntity(_)
            | MistakeKind::Sector(_)
            | MistakeKind::Repeated { .. }
            | MistakeKind::Contradicted { .. }
            | MistakeKind::SiteWithSites { .. }
            | MistakeKind::Others { errors: 0, .. }
    )
}

fn subject(
    finess: Finess,
    structure: &Structure,
    service_name: &ServiceName,
) -> Result<Subject, Refusal> {
    let organization = structure.name.as_deref().map(str::parse).transpose();
    let organization = organization.map_err(|error| {
        Refusal::new(
            format!("its name goes into no certificate: {error}"),
            "correct it or leave it out: the platform takes the name from its register",
        )
    })?;
    Ok(Subject {
        finess,
        service_name: service_name.clone(),
        organization,
        department: None,
    })
}

/// On all cores: a key takes a tenth of a second, more or less.
fn make_jobs(
    jobs: &[Subject],
    folder: &Path,
    manifest: Manifest,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Failure> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let manifest = Mutex::new(manifest);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(refusal) = make_one(job, folder, &manifest) {
                let place = job.finess.to_string();
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(Failure { place, refusal });
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(work);
        }
    });
    failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn make_one(job: &Subject, folder: &Path, manifest: &Mutex<Manifest>) -> Result<(), Refusal> {
    let pending = request::complete(job, folder)?;
    let mut manifest = manifest.lock().unwrap_or_else(PoisonError::into_inner);
    manifest
        .append(job, &pending)
        .map_err(|error| Refusal::system(folder, &error))
}
