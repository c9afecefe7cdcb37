//! Stand-ins for the national services and for the authority that certifies structures: demo, tests and benches.

pub mod pki;
