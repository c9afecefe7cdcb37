//! The bottom layer: what a key is worth when neither file nor environment says, and why that much.
//!
//! Values are written as a user would write them, and read by the same reader.
//! Keys without a sensible value for everybody (`environment`, `identities.directory`…) have none.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use ::config::{Map, Value};

use crate::services::BuiltIn;

/// Section, key, value; the comment gives the reason.
const PROCESS: &[(&str, &str, &str)] = &[
    // A key that others can read is a key to replace; sharing it must be somebody's decision.
    ("identities", "key_readers", "owner"),
    // A renewal should need nothing but the new file.
    ("identities", "reload", "auto"),
    // Clocks that are kept by NTP differ by less than a second, and nearly all requests take less than this; of a
    // certificate of three years it is nothing.
    ("identities", "retire_before_expiry", "30s"),
    // Whether a document that was cut off has arrived is hard to find out; the service decides what it still takes.
    ("identities", "withdrawal", "finish"),
    // Authorities make lists daily or more seldom; a certificate is found revoked within a quarter of a day.
    ("revocation", "refresh", "6h"),
    // A list of some megabytes arrives in time over the slowest line.
    ("revocation", "timeout", "60s"),
    // A late list must not stop patients' documents (MSSanté, Référentiel #2: a failed fetch breaks no connection).
    ("revocation", "unknown", "accept"),
    // One line per event that an operator would act upon.
    ("log", "level", "info"),
    ("log", "format", "text"),
    // Who acted for which structure must be on record without having been asked for; supervisors keep
    // standard output.
    ("log", "access", "stdout"),
    // Two file descriptors a request make 20,000, well below what systemd grants a service (524,288).
    ("limits", "inbound_connections", "10000"),
    ("limits", "upstream_connections", "10000"),
    // Bearer tokens and SOAP headers fit many times over; nginx and Apache allow as much.
    ("limits", "request_head", "32KiB"),
    // Long enough for an idle keep-alive connection between two consultations, short enough to shed dead ones.
    ("limits", "head_timeout", "60s"),
    // As many as connections to services: what is beyond would only wait for one, and hold memory.
    ("limits", "requests", "10000"),
    // A core file is a copy of every private key, in a place that nobody guards.
    ("process", "core_dumps", "false"),
    // It depends on the kernel, and keeps folders that are named later from being read; the unit file has it on.
    ("process", "sandbox", "false"),
    // systemd kills after 90 s and Kubernetes after 30 s.
    ("shutdown", "grace", "30s"),
];

/// Section within a service (empty for its own keys), key, value.
const SERVICE: &[(&str, &str, &str)] = &[
    ("", "http", "auto"),
    // A connection found dead before a byte left costs nothing to replace, and business requests (POST) can
    // be repeated only then.
    ("", "retry", "unsent"),
    // A renewed certificate that a service does not know yet must not stop a structure whose old one it still takes.
    ("", "on_rejection", "previous"),
    // A service that is down holds requests for seconds each; who asks in vain should know at once.
    ("", "breaker", "true"),
    // Over a WAN a connection takes below 100 ms; three SYN retransmissions (1 + 2 s…) fit.
    ("timeouts", "connect", "5s"),
    ("timeouts", "handshake", "5s"),
    // Slow document queries take tens of seconds; DMP clients in the field wait 30 s.
    ("timeouts", "response", "60s"),
    ("timeouts", "body", "60s"),
    // Front ends commonly drop idle connections after 60 to 75 s: be the one that closes first.
    ("pool", "idle_timeout", "60s"),
    // DNS changes and new certificates of the service are taken up within the hour.
    ("pool", "max_lifetime", "1h"),
    // One structure's burst must not open hundreds of connections to a national service.
    ("pool", "max_connections", "64"),
    // What a busy structure uses at once; what is beyond resumes the session of the first.
    ("pool", "prewarm", "8"),
    // The longest response timeout in use, and the largest document over a slow line after it.
    ("pool", "drain", "5m"),
    // As much as the largest message known of any service, the DMP's.
    ("limits", "request_body", "50MB"),
    // Four times the connections that it can have: a burst may wait, but not without end.
    ("limits", "requests_per_tenant", "256"),
];

/// The default layer, given the names of the services that the other layers speak of.
pub(super) fn table<'a>(services: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
    let mut root = Map::new();
    let workers = available_parallelism().map_or(1, NonZeroUsize::get);
    // Beyond 1024 threads `workers` would be refused; nobody has to know on such a machine.
    root.insert("workers".to_owned(), value(&workers.min(1024).to_string()));
    insert_all(&mut root, PROCESS);
    let mut sections: Map<String, Value> = Map::new();
    for name in services {
        let mut section = Map::new();
        insert_all(&mut section, SERVICE);
        if let Some(built_in) = BuiltIn::find(name) {
            insert_all(&mut section, built_in.defaults);
        }
        sections.insert(name.to_owned(), section.into());
    }
    // An empty table would hide that the file has no services at all.
    if !sections.is_empty() {
        root.insert("services".to_owned(), sections.into());
    }
    root
}

fn insert_all(root: &mut Map<String, Value>, entries: &[(&str, &str, &str)]) {
    for &(section, key, text) in entries {
        if section.is_empty() {
            root.insert(key.to_owned(), value(text));
            continue;
        }
        let below = root
            .entry(section.to_owned())
            .or_insert_with(|| Map::<String, Value>::new().into());
        if let ::config::ValueKind::Table(table) = &mut below.kind {
            table.insert(key.to_owned(), value(text));
        }
    }
}

/// Text, as in the environment: whole numbers are read from it too.
fn value(text: &str) -> Value {
    Value::new(Some(&super::layers::TEXT_ORIGIN.to_owned()), text)
}
