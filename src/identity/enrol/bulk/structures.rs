//! The structures to make requests for, out of a CSV file.

use std::path::Path;

use crate::identity::enrol::Refusal;
use crate::identity::finess::Finess;

/// A line of the file, and the structure on it.
pub(super) struct Line {
    /// Counted from 1, the header included.
    pub(super) number: u64,
    pub(super) structure: Result<(Finess, Option<String>), Refusal>,
}

/// Reads the columns `finess` (or `nofinesset`) and `name` (or `rs`, `rslongue`), separated by commas or semicolons.
pub(super) fn structures(from: &Path) -> Result<Vec<Line>, Refusal> {
    let bytes = std::fs::read(from).map_err(|error| Refusal::system(from, &error))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let header = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let delimiter = if header.contains(&b';') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let unreadable = |error: csv::Error| {
        Refusal::new(
            format!("{}: {error}", from.display()),
            "write it as CSV in UTF-8",
        )
    };
    let header = reader.headers().map_err(unreadable)?.clone();
    let column = |names: &[&str]| header.iter().position(|found| names.contains(&found));
    let numbers = column(&["finess", "nofinesset"]).ok_or_else(|| {
        Refusal::new(
            format!(
                "{}: no column is called finess or nofinesset",
                from.display()
            ),
            "give the columns names on the first line, such as finess,name",
        )
    })?;
    let names = column(&["name", "rs", "rslongue"]);
    let lines = reader.records().map(|record| {
        let number = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
        match record {
            Ok(record) => Line {
                number: number(record.position()),
                structure: structure(&record, numbers, names),
            },
            Err(error) => Line {
                number: number(error.position()),
                structure: Err(unreadable(error)),
            },
        }
    });
    Ok(lines.collect())
}

fn structure(
    record: &csv::StringRecord,
    numbers: usize,
    names: Option<usize>,
) -> Result<(Finess, Option<String>), Refusal> {
    let finess = record.get(numbers).unwrap_or_default().parse();
    let finess = finess.map_err(|error: crate::identity::finess::FinessError| {
        Refusal::new(
            error.to_string(),
            "correct the line and run the command again",
        )
    })?;
    let name = names.and_then(|column| record.get(column));
    Ok((
        finess,
        name.filter(|name| !name.is_empty()).map(str::to_owned),
    ))
}
