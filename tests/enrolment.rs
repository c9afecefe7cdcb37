//! From a request to a certificate that is served, with the binary as an operator uses it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]
// Promises of files' modes and of signals are Unix's.
#![cfg(unix)]

mod enrolment {
    mod bindings;
    mod desk;
    mod installation;
    mod requests;
    mod trouble;
}
