//! What was done, a line a request: for the person who uploads them, and for the run that goes on.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::identity::enrol::request::Pending;
use crate::identity::enrol::subject::Subject;

const HEADER: [&str; 7] = [
    "finess",
    "name",
    "common_name",
    "key",
    "csr",
    "public_key_sha256",
    "created",
];

/// A manifest that is open for more.
pub(super) struct Manifest {
    file: File,
    folder: PathBuf,
    /// Key and request by (FINESS, CN).
    done: HashMap<(String, String), [String; 2]>,
}

impl Manifest {
    /// Opens the manifest, or begins it.
    pub(super) fn open(folder: &Path, path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let written = fs::read(path)?;
        if written.is_empty() {
            write_line(&mut file, &HEADER)?;
        } else if !written.ends_with(b"\n") {
            // A line that an interruption cut short: what it told of is there, and is told of again.
            file.write_all(b"\n")?;
        }
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .from_reader(&written[..]);
        let whole = (reader.records().flatten()).filter(|record| record.len() == HEADER.len());
        let done = whole
            .map(|record| {
                let of = |column: usize| record[column].to_owned();
                ((of(0), of(2)), [of(3), of(4)])
            })
            .collect();
        Ok(Self {
            file,
            folder: folder.to_owned(),
            done,
        })
    }

    /// Whether a request of this structure and name waits. One that has got its certificate is no longer there, and
    /// the next is its renewal.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        let (finess, name) = (
            subject.finess.to_string(),
            subject.service_name.as_str().to_owned(),
        );
        let files = self.done.get(&(finess, name));
        files.is_some_and(|files| (files.iter()).all(|file| self.folder.join(file).exists()))
    }

    /// Adds a request, once its files are there.
    pub(super) fn append(&mut self, subject: &Subject, pending: &Pending) -> io::Result<()> {
        let file_name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        write_line(
            &mut self.file,
            &[
                subject.finess.as_str(),
                subject
                    .organization
                    .as_ref()
                    .map_or("", |name| name.as_str()),
                subject.service_name.as_str(),
                &file_name(&pending.key),
                &file_name(&pending.csr),
                &pending.public_key_sha256,
                &Timestamp::now().to_string(),
            ],
        )?;
        self.file.sync_data()
    }
}

/// In one write to a file opened for appending, so that lines of two runs do not mix.
fn write_line(file: &mut File, fields: &[&str; 7]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields)?;
    let line = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    file.write_all(&line)
}
