//! As whom: certificates, keys, what they say, and which of them may speak for a tenant to a service.
//!
//! Nothing here speaks HTTP or opens a socket. Private keys are read here and nowhere else.

pub mod clock;
pub mod enrol;
pub mod finess;
pub mod generation;
pub mod load;
pub mod profile;
pub mod registry;
pub mod revocation;
pub mod rules;
pub mod select;
pub mod states;
pub mod store;
pub mod structure;
pub mod tenants;
