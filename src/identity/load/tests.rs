//! Folders, good and bad.
