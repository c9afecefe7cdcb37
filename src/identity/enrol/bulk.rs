//! Requests by the hundred: one for each structure of a CSV file, on all cores.
//!
//! A manifest beside the requests has a line for each that is done. A run that was interrupted goes on where it
//! stopped, and a line that is wrong stops no other.

mod manifest;
mod structures;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use self::manifest::Manifest;
use self::structures::{Line, structures};
use super::subject::{ServiceName, Subject};
use super::{Refusal, files, request};
use crate::identity::finess::Finess;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Requests made by this run.
    pub made: usize,
    /// Requests that the manifest had already.
    pub done_before: usize,
    /// The lines for which there is none.
    pub failures: Vec<Failure>,
    /// The manifest: `finess,name,common_name,key,csr,public_key_sha256,created`.
    pub manifest: PathBuf,
}

/// A line for which no request could be made.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Its number in the CSV file, counted from 1.
    pub line: u64,
    /// Why.
    #[serde(flatten)]
    pub refusal: Refusal,
}

struct Job {
    line: u64,
    subject: Subject,
    name: Option<String>,
}

/// Makes a request for `service_name` of each structure in `from`, a CSV file with a column `finess` or `nofinesset`,
/// and possibly one `name`, `rs` or `rslongue`. `progress` is told how many of how many are done.
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
    let lines = structures(from)?;
    files::make_folder(folder).map_err(|error| Refusal::system(folder, &error))?;
    let path = folder.join("manifest.csv");
    let manifest = Manifest::open(&path).map_err(|error| Refusal::system(&path, &error))?;
    let mut outcome = Outcome {
        made: 0,
        done_before: 0,
        failures: Vec::new(),
        manifest: path,
    };
    let mut jobs = Vec::new();
    let mut first_lines = HashMap::new();
    for line in lines {
        let number = line.number;
        match job(line, service_name, &mut first_lines) {
            Ok(job) if manifest.has(&job.subject) => outcome.done_before += 1,
            Ok(job) => jobs.push(job),
            Err(refusal) => outcome.failures.push(Failure {
                line: number,
                refusal,
            }),
        }
    }
    let failures = make_jobs(&jobs, folder, manifest, progress);
    outcome.made = jobs.len() - failures.len();
    outcome.failures.extend(failures);
    outcome.failures.sort_by_key(|failure| failure.line);
    Ok(outcome)
}

fn job(
    line: Line,
    service_name: &ServiceName,
    first_lines: &mut HashMap<Finess, u64>,
) -> Result<Job, Refusal> {
    let (finess, name) = line.structure?;
    let first = *first_lines.entry(finess).or_insert(line.number);
    if first != line.number {
        return Err(Refusal::new(
            format!("{finess} is on line {first} already"),
            "keep one of the two lines",
        ));
    }
    let organization = name.as_deref().map(str::parse).transpose();
    let organization = organization.map_err(|error| {
        Refusal::new(
            format!("the name of {finess} goes into no certificate: {error}"),
            "correct it or leave it out: the platform takes the name from its register",
        )
    })?;
    Ok(Job {
        line: line.number,
        subject: Subject {
            finess,
            service_name: service_name.clone(),
            organization,
            department: None,
        },
        name,
    })
}

/// On all cores: a key takes a tenth of a second, more or less.
fn make_jobs(
    jobs: &[Job],
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
                let line = job.line;
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(Failure { line, refusal });
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

fn make_one(job: &Job, folder: &Path, manifest: &Mutex<Manifest>) -> Result<(), Refusal> {
    let pending = request::make(&job.subject, folder)?;
    let mut manifest = manifest.lock().unwrap_or_else(PoisonError::into_inner);
    manifest
        .append(&job.subject, job.name.as_deref(), &pending)
        .map_err(|error| Refusal::system(folder, &error))
}
