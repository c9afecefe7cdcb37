//! What must hold of whatever anybody sends or puts into a file. Fuzz targets (`fuzz/`) and the property tests call the
//! same functions: each takes any bytes, and panics if a promise is broken.

pub mod addressing;
pub mod certificates;
pub mod configuration;
pub mod headers;
pub mod numbers;
pub mod structures;
pub mod tokens;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields that lines of `name: value` make. What HTTP's own parser would refuse before Relais sees it is left out.
pub fn fields(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The first line, and what follows it.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
    (line, rest.get(1..).unwrap_or_default())
}
