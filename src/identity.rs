//! As whom.
pub mod finess;
pub mod load;
pub mod profile;
pub mod structure;
