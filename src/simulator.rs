//! Stand-ins for the national services, and all that is needed to try Relais without them: for the demonstration,
//! for tests and for benchmarks.

pub mod pki;
pub mod requests;
pub mod server;
pub mod services;
pub mod site;
