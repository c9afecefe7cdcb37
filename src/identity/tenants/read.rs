//! Reads CSV as spreadsheets, exports of software and the FINESS register write it.
//!
//! A line is a structure: a value that goes on over several lines is refused, because a forgotten quote would
//! otherwise swallow the rest of the file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use super::gather::Gathered;
use super::{MistakeKind, Place, Sector, Structure};
use crate::files;
use crate::identity::finess::Finess;

/// The FINESS register of the whole country has about 100,000 sites and 35 MB; several times that is something else.
const LARGEST_FILE: u64 = 200_000_000;
const MOST_LINES: usize = 1_000_000;

/// What bytes 0x80 to 0x9F are in Windows-1252; all others are as in Latin-1. Five stand for nothing.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// What begins a site's line in the FINESS register's extract; other lines are about equipment or coordinates.
const EXTRACT_LINE: &str = "structureet";

/// Where the extract has what is read of it (etalab-cs1100502 and its like; no line of it names the columns).
const EXTRACT: Columns = Columns {
    finess: 1,
    legal_entity: Some(2),
    names: [Some(4), Some(3)],
    sector: None,
    is_extract: true,
};

/// Where the extract has the category of a site (`categetab`), and the one for pharmacies: the only of the sectors that
/// a category tells for certain.
const EXTRACT_CATEGORY: usize = 18;
const PHARMACIE_D_OFFICINE: &str = "620";

/// Where a file has what is read of it.
struct Columns {
    finess: usize,
    legal_entity: Option<usize>,
    /// The first of them that is not blank is the name.
    names: [Option<usize>; 2],
    sector: Option<usize>,
    /// Whether only lines that begin with [`EXTRACT_LINE`] are about structures.
    is_extract: bool,
}

/// Reads one file. Whatever is wrong with it is a mistake among the others.
pub(super) fn file(path: &Path, gathered: &mut Gathered) {
    let path = Arc::from(path);
    let outcome = content(&path).and_then(|bytes| table(&path, bytes, gathered));
    if let Err(kind) = outcome {
        gathered.mistake(Place::Line { path, line: 1 }, kind);
    }
}

fn content(path: &Path) -> Result<Vec<u8>, MistakeKind> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidInput => MistakeKind::NotAFile,
        _ => MistakeKind::Unreadable(error),
    };
    let (file, metadata) = files::open(path).map_err(unreadable)?;
    let (size, limit) = (metadata.len(), LARGEST_FILE);
    if size > limit {
        return Err(MistakeKind::TooLarge { size, limit });
    }
    let mut bytes = Vec::new();
    files::read_bounded(file, &metadata, limit, &mut bytes).map_err(MistakeKind::Unreadable)?;
    Ok(bytes)
}

/// Reads the content of a file; the path is only for mistakes.
pub(super) fn table(
    path: &Arc<Path>,
    bytes: Vec<u8>,
    gathered: &mut Gathered,
) -> Result<(), MistakeKind> {
    let mut text = decode(bytes);
    let limit = MOST_LINES;
    if text.bytes().filter(|&byte| byte == b'\n').count() > limit {
        return Err(MistakeKind::TooManyLines { limit });
    }
    // So that every line has an end.
    text.push('\n');
    let seen_before = gathered.seen();
    let mut splitter = Splitter::new(separator(&text));
    let mut columns = None;
    for (line, text) in (1..).zip(text.split_inclusive('\n')) {
        if text.trim().is_empty() {
            continue;
        }
        let path = Arc::clone(path);
        let place = Place::Line { path, line };
        let Some(values) = splitter.split(text) else {
            gathered.mistake(place, MistakeKind::OpenQuote);
            continue;
        };
        if let Some(columns) = &columns {
            row(&values, columns, &place, gathered);
            continue;
        }
        let found = Columns::of(&values).ok_or(MistakeKind::NoFinessColumn)?;
        if found.is_extract {
            row(&values, &found, &place, gathered);
        } else if found.legal_entity.is_none() {
            gathered.mistake(place, MistakeKind::NoLegalEntityColumn);
        }
        columns = Some(found);
    }
    if gathered.seen() == seen_before {
        return Err(MistakeKind::Empty);
    }
    Ok(())
}

/// UTF-8, with or without its mark, or else Windows-1252, which gives every byte a meaning.
fn decode(bytes: Vec<u8>) -> String {
    let mut text = String::from_utf8(bytes).unwrap_or_else(|error| {
        let character = |&byte: &u8| match byte {
            0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
            _ => char::from(byte),
        };
        error.as_bytes().iter().map(character).collect()
    });
    if text.starts_with('\u{FEFF}') {
        text.remove(0);
    }
    text
}

/// The one that the first line has most of.
fn separator(text: &str) -> u8 {
    let header = text.trim_start().lines().next().unwrap_or_default();
    let count = |separator: &u8| header.bytes().filter(|byte| byte == separator).count();
    // Of equals the last is taken: a comma, for a single column.
    *(b";\t,".iter().max_by_key(|separator| count(separator))).unwrap_or(&b',')
}

/// Splits lines into values.
struct Splitter {
    parser: Reader,
    /// All values of a line, one after the other, without quotes.
    values: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Splitter {
    fn new(separator: u8) -> Self {
        // Lines are split already: nothing within one ends it.
        let terminator = Terminator::Any(b'\n');
        Self {
            parser: ReaderBuilder::new()
                .delimiter(separator)
                .terminator(terminator)
                .build(),
            values: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// The values of a line with its end, without the blanks around them; none if a quote stays open.
    fn split(&mut self, line: &str) -> Option<Vec<&str>> {
        self.parser.reset();
        // No line has more values than bytes, so the parser never asks for more room.
        self.values.resize(line.len(), 0);
        self.ends.resize(line.len(), 0);
        let (result, _, _, count) =
            (self.parser).read_record(line.as_bytes(), &mut self.values, &mut self.ends);
        if result != ReadRecordResult::Record {
            return None;
        }
        let mut start = 0;
        let mut value = |&end: &usize| {
            let value = std::str::from_utf8(&self.values[start..end]);
            start = end;
            value
                .expect("UTF-8 is cut and shortened at ASCII characters only")
                .trim()
        };
        Some(self.ends[..count].iter().map(&mut value).collect())
    }
}

impl Columns {
    /// Reads the first line: the names of the columns in any order, or what the extract begins with.
    fn of(first: &[&str]) -> Option<Self> {
        match first {
            ["finess", "etalab", ..] => return Some(EXTRACT),
            [EXTRACT_LINE, number, ..] if Finess::parse(number).is_ok() => return Some(EXTRACT),
            _ => {}
        }
        let find = |name: &str| {
            let is_it = |value: &&str| value.eq_ignore_ascii_case(name);
            first.iter().position(is_it)
        };
        Some(Self {
            finess: find("finess").or_else(|| find("nofinesset"))?,
            legal_entity: find("legal_entity").or_else(|| find("nofinessej")),
            names: [find("name").or_else(|| find("rslongue")), find("rs")],
            sector: find("sector").or_else(|| find("secteur")),
            is_extract: false,
        })
    }

    /// How many columns a line needs to have them all.
    fn needed(&self) -> usize {
        let optional = [self.legal_entity, self.names[0], self.names[1], self.sector];
        let last = optional.into_iter().flatten().max();
        last.unwrap_or(0).max(self.finess) + 1
    }
}

/// Takes a structure out of a line. If its legal entity or sector cannot be read it is taken without either: in the
/// wrong sector it might use a legal entity's certificate that it must not.
fn row(values: &[&str], columns: &Columns, place: &Place, gathered: &mut Gathered) {
    let is_blank = values.iter().all(|value| value.is_empty());
    if is_blank || columns.is_extract && values[0] != EXTRACT_LINE {
        return;
    }
    let mut wrong = |kind| gathered.mistake(place.clone(), kind);
    let (found, needed) = (values.len(), columns.needed());
    if found < needed {
        return wrong(MistakeKind::Short { found, needed });
    }
    let finess = match Finess::parse(values[columns.finess]) {
        Ok(finess) => finess,
        Err(error) => return wrong(MistakeKind::Finess(error)),
    };
    let value = |column: Option<usize>| column.map(|at| values[at]).filter(|text| !text.is_empty());
    let legal_entity = value(columns.legal_entity).map(Finess::parse).transpose();
    let sector = if columns.is_extract {
        let category = values.get(EXTRACT_CATEGORY);
        Ok((category == Some(&PHARMACIE_D_OFFICINE)).then_some(Sector::Officine))
    } else {
        value(columns.sector).map(str::parse).transpose()
    };
    let name = columns.names.into_iter().find_map(value).map(Box::from);
    let mut structure = Structure {
        name,
        ..Structure::default()
    };
    match (legal_entity, sector) {
        (Ok(legal_entity), Ok(sector)) => {
            structure.legal_entity = legal_entity;
            structure.sector = sector;
        }
        (legal_entity, sector) => {
            if let Err(error) = legal_entity {
                wrong(MistakeKind::LegalEntity(error));
            }
            if let Err(error) = sector {
                wrong(MistakeKind::Sector(error));
            }
        }
    }
    gathered.add(place.clone(), finess, structure);
}
