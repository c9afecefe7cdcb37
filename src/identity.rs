//! As whom.
pub mod finess;
pub mod structure;
