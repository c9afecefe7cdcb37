//! A line of the access log: who asked what of whom, under which certificate, and how it ended.

use std::time::{Duration, SystemTime};

use http::Version;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::gateway::exchange::Exchange;
use crate::identity::profile::{Fingerprint, Profile};

/// As far as a line's time reaches.
const BEGINNING: usize = r#"{"time":"2026-11-21T15:57:13.123456Z"#.len();

/// Fields that are not known (a request refused before its tenant was read) are absent. Texts are borrowed: a line
/// costs no allocation.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "in_rfc_3339")]
    time: SystemTime,
    listener: &'a str,
    method: &'a str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_hex")]
    certificate_sha256: Option<Fingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    outcome: &'static str,
    bytes_received: u64,
    bytes_sent: u64,
    duration_ms: f64,
}

/// Adds the line of a request that `took` so long.
pub(super) fn write(out: &mut Vec<u8>, exchange: &Exchange, took: Duration) {
    let profile: Option<&Profile> = exchange
        .pool
        .as_ref()
        .and_then(|pool| pool.generation())
        .map(|one| &*one.identity().profile);
    let line = Line {
        time: exchange.at,
        listener: &exchange.listener,
        method: exchange.method.as_str(),
        version: name_of(exchange.version),
        tenant: exchange.tenant.as_ref().map(|finess| finess.as_str()),
        service: (exchange.offered.as_ref()).map(|offered| &*offered.service.name),
        certificate_serial: profile.map(|profile| &*profile.serial),
        certificate_sha256: profile.map(|profile| profile.fingerprint),
        connection: exchange.connection.map(|(origin, _)| origin.as_str()),
        upstream_version: exchange.connection.map(|(_, version)| name_of(version)),
        status: (exchange.status != 0).then_some(exchange.status),
        code: exchange.code.map(|code| code.as_str()),
        outcome: exchange.outcome.as_str(),
        bytes_received: exchange.received(),
        bytes_sent: exchange.sent,
        duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
    };
    serde_json::to_writer(&mut *out, &line)
        .expect("texts and numbers have a form in JSON, and a vector takes it");
    out.push(b'\n');
}

/// How many lines there are.
pub(super) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Writes lines in the order of their times, with which each begins in a form that sorts as text. Those of the same
/// microsecond stay as they are.
pub(super) fn sort(lines: &[u8], sorted: &mut Vec<u8>) {
    let mut each: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    each.sort_by_key(|line| line.get(..BEGINNING));
    sorted.clear();
    sorted.reserve(lines.len());
    each.iter().for_each(|line| sorted.extend_from_slice(line));
}

fn name_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "unknown",
    }
}

fn in_rfc_3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    match Timestamp::try_from(*time) {
        Ok(time) => serializer.collect_str(&format_args!("{time:.6}")),
        // A clock that is set before the year -9999 or after 9999.
        Err(_) => serializer.serialize_str(""),
    }
}

#[expect(clippy::ref_option, reason = "this is how serde calls it")]
fn in_hex<S: Serializer>(
    fingerprint: &Option<Fingerprint>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match fingerprint {
        Some(fingerprint) => serializer.collect_str(fingerprint),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_threads_are_put_in_the_order_of_their_times() {
        let line = |time: &str, rest: &str| format!("{{\"time\":\"2026-11-21T{time}Z\",{rest}}}\n");
        let lines = [
            line("23:59:59.000002", "1"),
            line("23:59:59.100000", "4"),
            line("23:59:59.000001", "0"),
            line("23:59:59.000002", "2"),
            line("23:59:59.000010", "3"),
        ]
        .concat();
        let mut sorted = Vec::new();
        sort(lines.as_bytes(), &mut sorted);
        let sorted = String::from_utf8(sorted).unwrap();
        let order: Vec<_> = sorted
            .lines()
            .filter_map(|line| line.split(',').nth(1))
            .collect();
        assert_eq!(order, ["0}", "1}", "2}", "3}", "4}"]);
        assert_eq!(count(sorted.as_bytes()), 5);
    }
}
