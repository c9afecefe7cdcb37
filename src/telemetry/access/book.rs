//! What lines are written to, and how that went last.

use std::io::{self, Write};

use super::super::line;

/// What lines can be written to.
pub(super) trait Sink: Write {
    /// Makes sure that what is written now is found where it belongs. True if it goes elsewhere than before.
    ///
    /// # Errors
    /// When it does not.
    fn renew(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether what was written last can be found by nobody.
    fn is_gone(&self) -> bool {
        false
    }

    /// Whether it ends in the middle of a line, as after a crash.
    fn is_torn(&self) -> bool {
        false
    }
}

impl Sink for io::Stdout {}

/// What is written to, and how it went last.
pub(super) struct Book<S> {
    out: S,
    is_failing: bool,
    /// It could not be renewed; what is there is written to.
    is_stuck: bool,
    /// The last thing written is the beginning of a line.
    is_torn: bool,
}

impl<S: Sink> Book<S> {
    pub(super) fn new(out: S) -> Self {
        Self {
            is_torn: out.is_torn(),
            out,
            is_failing: false,
            is_stuck: false,
        }
    }

    /// Writes lines, and returns how many of them were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        self.turn();
        let (mut taken, mut written) = self.write_all(lines);
        // Removed before it was written to, but after it was looked at: nobody has read these lines. One that is only
        // renamed keeps them.
        while self.out.is_gone() {
            if !self.turn() {
                (taken, written) = (0, Err(io::ErrorKind::NotFound.into()));
                break;
            }
            (taken, written) = self.write_all(lines);
        }
        if let Err(error) = &written
            && !self.is_failing
        {
            // A full disk is no reason to stop serving, and every reason to be told of.
            tracing::error!(%error, "the access log cannot be written: lines are lost and counted");
        }
        self.is_failing = written.is_err();
        line::count(&lines[taken..])
    }

    /// Takes up a new file if the last one was renamed or removed. True if there is another.
    pub(super) fn turn(&mut self) -> bool {
        let renewed = self.out.renew();
        if let Err(error) = &renewed
            && !self.is_stuck
        {
            tracing::error!(%error, "the access log is not in its place, and no new file can be made there");
        }
        self.is_stuck = renewed.is_err();
        let is_another = renewed.unwrap_or(false);
        if is_another {
            self.is_torn = self.out.is_torn();
        }
        is_another
    }

    /// How many bytes were taken, and why not all.
    fn write_all(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.is_torn {
            // What was cut off is lost; what follows shall not be.
            if let Err(error) = self.out.write_all(b"\n") {
                return (0, Err(error));
            }
            self.is_torn = false;
        }
        let mut taken = 0;
        while taken < lines.len() {
            match self.out.write(&lines[taken..]) {
                Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
                Ok(some) => taken += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (taken, Err(error)),
            }
            self.is_torn = lines[taken - 1] != b'\n';
        }
        (taken, self.out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sink for io::PipeWriter {}

    /// Takes so many bytes, and then nothing until there is room again.
    struct Disk {
        room: usize,
        content: Vec<u8>,
    }

    impl Sink for Disk {}

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.content.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_off_by_a_full_disk_spoils_no_other() {
        let mut book = Book::new(Disk {
            room: 6,
            content: Vec::new(),
        });
        assert_eq!(book.write(b"one\ntwo\nthree\n"), 2);
        assert_eq!(book.write(b"four\n"), 1);
        book.out.room = 100;
        assert_eq!(book.write(b"five\n"), 0);
        assert_eq!(book.write(b"six\n"), 0);
        assert_eq!(book.out.content, b"one\ntw\nfive\nsix\n");
    }
}
