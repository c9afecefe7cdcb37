//! As whom.
pub mod finess;
