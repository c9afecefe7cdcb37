//! The file of the access log: appended to, never cut, and made anew when it was renamed or removed (log rotation).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::book::Sink;

/// Who asked what of whom is nobody else's business; a group may collect logs.
const MODE: u32 = 0o640;

/// A file that is appended to, wherever its name leads at the time.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens a file to append to, or makes it.
    ///
    /// # Errors
    /// When neither can be done.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: append(path)?,
            path: path.to_owned(),
        })
    }
}

/// With `O_APPEND` the kernel puts each write at the end, whoever else writes (a predecessor that finishes its
/// requests) or has cut the file (logrotate's copytruncate).
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // The umask keeps new files to the account.
            file.set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        }
        // Also where it is a link that leads nowhere yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.create(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// What tells a file from another in its place.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for LogFile {
    fn renew(&mut self) -> io::Result<bool> {
        // A file that a network file system has lost (ESTALE) or a mount that is gone (ENOTCONN) never tells again.
        let own = self.file.metadata().ok().map(|own| identity(&own));
        match fs::metadata(&self.path) {
            Ok(there) if Some(identity(&there)) == own => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.file = append(&self.path)?;
        tracing::info!(path = %self.path.display(), "the access log goes on in a new file");
        Ok(true)
    }

    fn is_gone(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn is_torn(&self) -> bool {
        // It may be open to be written to only, so it is opened once more; what cannot be read counts as whole.
        let last = || {
            let file = File::open(&self.path).ok()?;
            let metadata = file.metadata().ok()?;
            let mut byte = [0];
            let at = metadata.len().checked_sub(1)?;
            (metadata.is_file() && file.read_exact_at(&mut byte, at).is_ok()).then_some(byte[0])
        };
        last().is_some_and(|byte| byte != b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access::book::Book;

    fn open(path: &Path) -> Book<LogFile> {
        Book::new(LogFile::open(path).unwrap())
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_renamed_file_keeps_its_lines_and_a_new_one_takes_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut book = open(&path);
        assert_eq!(book.write(b"one\n"), 0);
        fs::rename(&path, &old).unwrap();
        assert_eq!(book.write(b"two\n"), 0);
        assert_eq!((&*content(&old), &*content(&path)), ("one\n", "two\n"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        fs::remove_file(&path).unwrap();
        assert!(book.turn());
        assert_eq!(content(&path), "");
        // As logrotate's `create` does it.
        fs::rename(&path, &old).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(book.write(b"three\n"), 0);
        assert_eq!(content(&path), "three\n");
    }

    /// Removed in the very moment in which lines are written to it.
    struct Removed {
        log: LogFile,
        is_removed: bool,
    }

    impl Write for Removed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.is_removed, true) {
                fs::remove_file(&self.log.path)?;
            }
            self.log.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.log.flush()
        }
    }

    impl Sink for Removed {
        fn renew(&mut self) -> io::Result<bool> {
            self.log.renew()
        }

        fn is_gone(&self) -> bool {
            self.log.is_gone()
        }
    }

    #[test]
    fn lines_that_went_into_a_removed_file_are_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut book = Book::new(Removed {
            log: LogFile::open(&path).unwrap(),
            is_removed: false,
        });
        assert_eq!(book.write(b"one\ntwo\n"), 0);
        assert_eq!(book.write(b"three\n"), 0);
        assert_eq!(content(&path), "one\ntwo\nthree\n");
    }

    #[test]
    fn lines_that_can_be_put_nowhere_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let mut book = open(&inner.join("log"));
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(book.write(b"one\ntwo\n"), 2);
        fs::create_dir(&inner).unwrap();
        assert_eq!(book.write(b"three\n"), 0);
        assert_eq!(content(&inner.join("log")), "three\n");
    }

    #[test]
    fn a_line_that_a_crash_cut_off_spoils_none_of_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(open(&path).write(b"three\n"), 0);
        assert_eq!(content(&path), "one\ntw\nthree\n");
        assert_eq!(open(&path).write(b"four\n"), 0);
        assert_eq!(content(&path), "one\ntw\nthree\nfour\n");
    }
}
