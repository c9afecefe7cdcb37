//! Keeps revocation lists fresh: files that change, URLs that are fetched before a list ends and kept on disk.
//!
//! What cannot be fetched or is not right never takes the place of what is in use.

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};

use crate::config::{CrlSource, Revocation};
use crate::identity::profile::Fingerprint;
use crate::identity::revocation::{Authorities, Crl, CrlProblem, LARGEST, List};
use crate::metrics::Metrics;
use crate::{fetch, files};

/// How often a file is looked at, in seconds.
const FILES_LOOKED_AT_EVERY: i64 = 60;

/// The shortest time between two fetches, in seconds. After failures it doubles each time.
const SOONEST: i64 = 60;

/// The longest time between two fetches that fail, in seconds.
const LATEST_AFTER_FAILURE: i64 = 3600;

/// One source of revocation lists, what it gave last, and when it is looked at next.
#[derive(Debug)]
pub struct Source {
    origin: CrlSource,
    rules: Rules,
    /// The rules by which it was looked at last.
    applied: Arc<Rule>,
    list: List,
    failures: u32,
    /// In seconds since 1970.
    due: i64,
}

/// What all sources share, and what a reload changes for all of them.
#[derive(Clone, Debug)]
pub struct Rules(Arc<ArcSwap<Rule>>);

#[derive(Debug)]
struct Rule {
    authorities: Authorities,
    /// The folder that keeps fetched lists.
    cache: Option<PathBuf>,
    /// In seconds.
    refresh: i64,
    timeout: Duration,
}

impl Rules {
    /// Those of a configuration, for the lists of these authorities.
    pub fn new(config: &Revocation, authorities: Authorities) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Rule::new(
            config,
            authorities,
        ))))
    }

    /// Puts others in their place. A source that has trouble is looked at again under them at once, since it may have
    /// none any more; others when they are due.
    pub fn renew(&self, config: &Revocation, authorities: Authorities) {
        self.0.store(Arc::new(Rule::new(config, authorities)));
    }

    /// Reads a file, or what was kept of a URL. Nothing is fetched yet, so that no server delays a start or a reload.
    pub fn open(&self, origin: &CrlSource, now: i64) -> Source {
        let mut source = Source::new(origin.clone(), self);
        source.read(now);
        source
    }
}

impl Source {
    fn new(origin: CrlSource, rules: &Rules) -> Self {
        Self {
            list: List::new(name_of(&origin)),
            origin,
            rules: rules.clone(),
            applied: rules.0.load_full(),
            failures: 0,
            due: 0,
        }
    }

    /// The file or URL.
    pub fn origin(&self) -> &CrlSource {
        &self.origin
    }

    /// What it gave last, and what is wrong with it.
    pub fn list(&self) -> &List {
        &self.list
    }

    /// Whether to look at it. A clock that was set back does not put it off for long.
    pub fn is_due(&self, now: i64) -> bool {
        let rules = self.rules.0.load();
        let may_help = self.list.problem.is_some() && !Arc::ptr_eq(&rules, &self.applied);
        now >= self.due || self.due - now > rules.refresh.max(SOONEST) || may_help
    }

    /// Looks whether there is another list. True if there is, and it is in use from now on.
    pub async fn look(&mut self, now: i64, metrics: &Metrics) -> bool {
        self.applied = self.rules.0.load_full();
        let (rules, current) = (Arc::clone(&self.applied), self.list.clone());
        let fetched = match &self.origin {
            CrlSource::Url(uri) => Some(fetch(uri, rules.timeout).await),
            CrlSource::File(_) => None,
        };
        let (origin, kept) = (self.origin.clone(), rules.kept(&self.origin));
        // A large list takes a second to read and verify.
        let looked = tokio::task::spawn_blocking(move || {
            let bytes = match (fetched, &origin) {
                (Some(fetched), _) => fetched?,
                (None, CrlSource::File(path)) => read_bounded(path)?.into(),
                (None, CrlSource::Url(_)) => return Ok(None),
            };
            let next = rules.examine(&bytes, &current, now)?;
            if let (Some(next), Some(kept)) = (&next, &kept) {
                keep(&file_of(next, kept), &bytes);
            }
            Ok(next)
        });
        let looked = looked.await.unwrap_or(Err(CrlProblem::Malformed));
        let outcome = match &looked {
            Ok(Some(_)) => "new",
            Ok(None) => "unchanged",
            Err(_) => "failure",
        };
        metrics.crl_refresh(&self.list.source, outcome);
        self.take(looked, now)
    }

    /// Reads the file, or what was kept of the URL.
    fn read(&mut self, now: i64) {
        let paths = match (&self.origin, self.applied.kept(&self.origin)) {
            (CrlSource::File(path), _) => vec![path.clone()],
            (CrlSource::Url(_), Some(kept)) => beginning_with(&kept),
            (CrlSource::Url(_), None) => return,
        };
        for path in paths {
            let read =
                read_bounded(&path).and_then(|bytes| self.applied.examine(&bytes, &self.list, now));
            self.take(read, now);
        }
        if matches!(self.origin, CrlSource::Url(_)) {
            self.due = now;
        }
    }

    fn take(&mut self, looked: Result<Option<Crl>, CrlProblem>, now: i64) -> bool {
        let (next, problem) = match looked {
            Ok(next) => (next, None),
            Err(problem) => (None, Some(problem)),
        };
        let changed = next.is_some();
        if let Some(crl) = next {
            tracing::info!(
                source = %self.list.source,
                issuer = %crl.issuer,
                revoked = crl.entries(),
                "revocation list in use"
            );
            self.list.take(crl);
        }
        if let (Some(problem), Some(_)) = (&problem, &self.list.crl) {
            tracing::info!(
                source = %self.list.source,
                %problem,
                "no other revocation list: the one in use stays"
            );
        }
        let crl = self.list.crl.as_deref();
        let ended = crl.filter(|crl| crl.has_ended(now));
        let problem = problem.or_else(|| Some(CrlProblem::Ended(ended?.next_update)));
        self.failures = match problem {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
        self.due = now + self.pause(now);
        self.list.problem = problem.map(Arc::new);
        changed
    }

    /// How many seconds to wait before the next look. A list is fetched again each time that half of what is left of
    /// it has gone by, so that several attempts may fail before it ends.
    fn pause(&self, now: i64) -> i64 {
        let refresh = self.applied.refresh;
        match (&self.origin, self.failures, &self.list.crl) {
            (CrlSource::File(_), ..) => FILES_LOOKED_AT_EVERY,
            (CrlSource::Url(_), 0, Some(crl)) => {
                let half = (crl.next_update - now) / 2;
                refresh.min(half.max(SOONEST))
            }
            (CrlSource::Url(_), 0, None) => SOONEST,
            (CrlSource::Url(_), failures, _) => {
                let doubled = SOONEST << (failures - 1).min(6);
                doubled.min(LATEST_AFTER_FAILURE).min(refresh)
            }
        }
    }
}

impl Rule {
    fn new(config: &Revocation, authorities: Authorities) -> Self {
        Self {
            authorities,
            cache: config.cache.clone(),
            refresh: i64::try_from(config.refresh.as_secs()).unwrap_or(i64::MAX),
            timeout: config.timeout,
        }
    }

    /// Where what is fetched from a URL is kept: what the paths of the files begin with.
    fn kept(&self, origin: &CrlSource) -> Option<PathBuf> {
        match origin {
            CrlSource::File(_) => None,
            CrlSource::Url(uri) => {
                let name = Fingerprint::of(uri.to_string().as_bytes()).to_string();
                Some(self.cache.as_ref()?.join(name))
            }
        }
    }

    /// The decoder is others' code, fed with what a network gives: should it panic, the list is malformed.
    fn examine(&self, bytes: &[u8], current: &List, now: i64) -> Result<Option<Crl>, CrlProblem> {
        let read = || Crl::read_next(bytes, &self.authorities, current, now);
        catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(CrlProblem::Malformed))
    }
}

/// What a source is called in metrics and messages, and what tells its list from others.
pub fn name_of(origin: &CrlSource) -> Arc<str> {
    match origin {
        CrlSource::File(path) => path.display().to_string().into(),
        CrlSource::Url(uri) => uri.to_string().into(),
    }
}

async fn fetch(uri: &Uri, timeout: Duration) -> Result<Bytes, CrlProblem> {
    let request = Request::get(uri).body(Bytes::new());
    let request = request.map_err(|error| CrlProblem::Fetch(error.to_string()))?;
    let answer = fetch::exchange(request, None, timeout, LARGEST)
        .await
        .map_err(|error| CrlProblem::Fetch(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(CrlProblem::Fetch(format!("the server answers {status}"))),
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, CrlProblem> {
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|(file, metadata)| {
        files::read_bounded(file, &metadata, LARGEST as u64, &mut bytes)
    });
    match read {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(CrlProblem::TooLarge),
        Err(error) => Err(CrlProblem::Unreadable(error)),
    }
}

/// Where a list is kept: each authority has a file, since one must not push out another's.
fn file_of(crl: &Crl, kept: &Path) -> PathBuf {
    let slot = format!("{} {}", crl.of_authorities, crl.issuer);
    let mut path = kept.as_os_str().to_owned();
    path.push(format!("-{}.crl", Fingerprint::of(slot.as_bytes())));
    path.into()
}

/// What is kept under paths that begin so. A folder that cannot be read keeps nothing.
fn beginning_with(kept: &Path) -> Vec<PathBuf> {
    let folder = kept.parent().unwrap_or(kept);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let kept = kept.as_os_str().as_encoded_bytes();
    paths
        .filter(|path| path.as_os_str().as_encoded_bytes().starts_with(kept))
        .collect()
}

/// Keeps a list for the next start. A list that cannot be kept is used all the same.
fn keep(path: &Path, bytes: &[u8]) {
    let kept = || {
        let folder = path.parent().unwrap_or(path);
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        io::Result::Ok(())
    };
    if let Err(error) = kept() {
        tracing::warn!(path = %path.display(), %error, "a revocation list cannot be kept for the next start");
    }
}
