//! A line of the access log: who asked what of whom, under which certificate, and how it ended.

use std::time::{Duration, SystemTime};

use http::Version;
use jiff::Timestamp;

use crate::gateway::exchange::Exchange;
use crate::identity::profile::Profile;

/// The second in which the last line was, as text: thousands are in the same one.
#[derive(Debug, Default)]
pub(super) struct Second {
    since_1970: u64,
    text: String,
}

impl Second {
    /// To the second, without a zone: RFC 3339 up to its fraction.
    fn text(&mut self, since_1970: u64) -> &str {
        if self.since_1970 != since_1970 || self.text.is_empty() {
            let time = i64::try_from(since_1970).map(Timestamp::from_second);
            // A clock that is set after the year 9999.
            let time = time.ok().and_then(Result::ok).unwrap_or_default();
            self.text = format!("{time:.0}").trim_end_matches('Z').to_owned();
            self.since_1970 = since_1970;
        }
        &self.text
    }
}

/// Adds the line of a request that `took` so long. Fields that are not known (a request refused before its tenant was
/// read) are absent.
///
/// Written by hand, field by field, because it is a tenth of what Relais does for a request otherwise: almost all that
/// is in it is known to need no escape. `listener` is the listener's name as JSON has it.
pub(super) fn write(
    out: &mut Vec<u8>,
    second: &mut Second,
    listener: &str,
    exchange: &Exchange,
    took: Duration,
) {
    let at = (exchange.at)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // A line has some 430 bytes: room for one is made once, and not piece by piece.
    out.reserve(512);
    out.extend_from_slice(br#"{"time":""#);
    out.extend_from_slice(second.text(at.as_secs()).as_bytes());
    number(out, ".", u64::from(at.subsec_micros()), 6);
    out.extend_from_slice(br#"Z","listener":"#);
    out.extend_from_slice(listener.as_bytes());
    text(out, r#","method":""#, exchange.method.as_str());
    text(out, r#","version":""#, name_of(exchange.version));
    if let Some(caller) = &exchange.caller {
        text(out, r#","caller":""#, caller);
    }
    if let Some(tenant) = &exchange.tenant {
        text(out, r#","tenant":""#, tenant.as_str());
    }
    if let Some(offered) = &exchange.offered {
        text(out, r#","service":""#, &offered.service.name);
    }
    if let Some(pool) = &exchange.pool {
        let fields = pool.certificate_in_log(certificate);
        out.extend_from_slice(fields.unwrap_or_default().as_bytes());
    }
    if let Some((origin, version)) = exchange.connection {
        text(out, r#","connection":""#, origin.as_str());
        text(out, r#","upstream_version":""#, name_of(version));
    }
    if exchange.status != 0 {
        number(out, r#","status":"#, u64::from(exchange.status), 1);
    }
    if let Some(code) = exchange.code {
        text(out, r#","code":""#, code.as_str());
    }
    text(out, r#","outcome":""#, exchange.outcome.as_str());
    number(out, r#","bytes_received":"#, exchange.received(), 1);
    number(out, r#","bytes_sent":"#, exchange.sent, 1);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    number(out, r#","duration_ms":"#, micros / 1_000, 1);
    number(out, ".", micros % 1_000, 3);
    out.extend_from_slice(b"}\n");
}

/// The fields that tell of a certificate, the same for all its requests.
fn certificate(profile: &Profile) -> Box<str> {
    let (serial, sha256) = (&profile.serial, &profile.fingerprint);
    format!(r#","certificate_serial":"{serial}","certificate_sha256":"{sha256}""#).into()
}

/// Adds a field whose value needs no escape: words of Relais's own, and what was checked to consist of letters,
/// digits and the like when it was read (methods are tokens, RFC 9110 section 9.1). `before` is all that comes before
/// the value.
#[inline(always)]
fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    debug_assert!(is_plain(value));
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

/// Whether it is written in JSON as it is.
fn is_plain(value: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    value.bytes().all(is_plain)
}

/// Adds a number of so many digits at least.
#[inline(always)]
fn number(out: &mut Vec<u8>, before: &str, mut value: u64, digits: usize) {
    out.extend_from_slice(before.as_bytes());
    // As many as the largest number has.
    let mut text = [b'0'; 20];
    let mut first = text.len();
    while value > 0 || text.len() - first < digits {
        first -= 1;
        text[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[first..]);
}

/// How many lines there are.
pub(super) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_as_rfc_3339_has_it() {
        let mut second = Second::default();
        for (since_1970, text) in [
            (0, "1970-01-01T00:00:00"),
            (1_795_276_633, "2026-11-21T15:57:13"),
            (1_795_276_633, "2026-11-21T15:57:13"),
            (1_795_276_632, "2026-11-21T15:57:12"),
        ] {
            assert_eq!(second.text(since_1970), text);
        }
    }

    #[test]
    fn a_line_is_json_and_says_what_is_known() {
        let exchange = Exchange {
            at: SystemTime::now(),
            begun: std::time::Instant::now(),
            method: http::Method::GET,
            version: Version::HTTP_11,
            caller: Some("dui".into()),
            tenant: None,
            offered: None,
            pool: None,
            connection: None,
            status: 404,
            code: None,
            places: None,
            upload: None,
            sent: 5,
            outcome: crate::gateway::exchange::Outcome::Complete,
        };
        let (mut out, took) = (Vec::new(), Duration::from_micros(1_007));
        let listener = r#""127.0.0.1:8080""#;
        write(&mut out, &mut Second::default(), listener, &exchange, took);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["listener"], "127.0.0.1:8080");
        assert_eq!(line["caller"], "dui");
        assert_eq!(
            (&line["status"], &line["bytes_sent"]),
            (&404.into(), &5.into())
        );
        assert_eq!(line["duration_ms"], 1.007);
    }

    #[test]
    fn numbers_are_written_whole() {
        for (value, digits, written) in [
            (0, 1, "0"),
            (7, 3, "007"),
            (1_234, 3, "1234"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Vec::new();
            number(&mut out, "=", value, digits);
            assert_eq!(out, format!("={written}").as_bytes());
        }
    }
}
