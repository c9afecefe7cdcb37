//! As whom.
pub mod finess;
pub mod profile;
pub mod structure;
