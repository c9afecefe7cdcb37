//! From what was read, line after line and file after file, to one table without contradictions.

use std::collections::BTreeMap;

use super::{Mistake, MistakeKind, Place, Structure, Structures};
use crate::identity::finess::Finess;

/// The most mistakes that are kept one by one. A file of something else altogether has one a line, and nobody reads
/// a million of them.
const MOST_MISTAKES: usize = 1_000;

/// Everything read so far.
#[derive(Default)]
pub(super) struct Gathered {
    entries: Vec<Entry>,
    mistakes: Vec<Mistake>,
    unlisted_errors: usize,
    unlisted_warnings: usize,
}

struct Entry {
    place: Place,
    finess: Finess,
    structure: Structure,
}

impl Gathered {
    /// Adds a structure. One that names itself as its legal entity is a legal entity.
    pub(super) fn add(&mut self, place: Place, finess: Finess, mut structure: Structure) {
        structure.legal_entity = structure.legal_entity.filter(|&entity| entity != finess);
        structure.name = structure.name.map(one_line);
        self.entries.push(Entry {
            place,
            finess,
            structure,
        });
    }

    /// Adds a mistake.
    pub(super) fn mistake(&mut self, place: Place, kind: MistakeKind) {
        let mistake = Mistake { place, kind };
        if self.mistakes.len() < MOST_MISTAKES {
            self.mistakes.push(mistake);
        } else if mistake.is_warning() {
            self.unlisted_warnings += 1;
        } else {
            self.unlisted_errors += 1;
        }
    }

    /// How many structures and mistakes were added so far.
    pub(super) fn seen(&self) -> usize {
        self.entries.len() + self.mistakes.len() + self.unlisted_errors + self.unlisted_warnings
    }

    /// The table, and all mistakes in the order of their places.
    pub(super) fn finish(mut self) -> (Structures, Vec<Mistake>) {
        // Stable, so that of two mentions the first stays first.
        self.entries.sort_by_key(|entry| entry.finess);
        let mut detached = self.drop_repetitions();
        // Contradicted structures still have their first legal entity here: whether it is theirs or not, others
        // cannot have them for legal entity.
        detached.extend(self.chained());
        for finess in detached {
            if let Some(position) = position(&self.entries, finess) {
                self.entries[position].structure.legal_entity = None;
            }
        }
        let sites = count_sites(&self.entries);
        let mistakes = self.mistakes_in_order();
        let (numbers, structures): (Vec<_>, Vec<_>) = (self.entries.into_iter())
            .map(|entry| (entry.finess, entry.structure))
            .unzip();
        let positions = numbers.iter().copied().zip(0..).collect();
        let speaks = |structure: &Structure| {
            let sector = structure.sector;
            let may = sector.is_none_or(|sector| sector.legal_entity_may_speak());
            structure.legal_entity.filter(|_| may)
        };
        let speaking = (numbers.iter().zip(&structures))
            .filter_map(|(finess, structure)| Some((*finess, speaks(structure)?)))
            .collect();
        let table = Structures {
            positions,
            speaking,
            numbers: numbers.into(),
            structures: structures.into(),
            sites,
        };
        (table, mistakes)
    }

    /// Keeps the first mention of each structure, and gives those that another one contradicts.
    fn drop_repetitions(&mut self) -> Vec<Finess> {
        let mut entries = std::mem::take(&mut self.entries);
        let mut contradicted = Vec::new();
        entries.dedup_by(|later, first| {
            if later.finess != first.finess {
                return false;
            }
            let claims = |entry: &Entry| (entry.structure.legal_entity, entry.structure.sector);
            let (finess, first_place) = (first.finess, first.place.clone());
            let kind = if claims(later) == claims(first) {
                MistakeKind::Repeated {
                    finess,
                    first: first_place,
                }
            } else {
                contradicted.push(finess);
                MistakeKind::Contradicted {
                    finess,
                    first: first_place,
                }
            };
            self.mistake(later.place.clone(), kind);
            true
        });
        self.entries = entries;
        contradicted
    }

    /// Attachment has one level. Reports each legal entity that has one itself, in a chain or a cycle, and gives all
    /// the structures that this leaves in doubt.
    fn chained(&mut self) -> Vec<Finess> {
        let mut sites: BTreeMap<usize, Vec<Finess>> = BTreeMap::new();
        for entry in &self.entries {
            let entity = entry.structure.legal_entity;
            let middle = entity.and_then(|entity| position(&self.entries, entity));
            if let Some(middle) = middle
                && self.entries[middle].structure.legal_entity.is_some()
            {
                sites.entry(middle).or_default().push(entry.finess);
            }
        }
        let mut detached = Vec::new();
        for (middle, sites) in sites {
            let Entry {
                place,
                finess,
                structure,
            } = &self.entries[middle];
            if let Some(legal_entity) = structure.legal_entity {
                let kind = MistakeKind::SiteWithSites {
                    finess: *finess,
                    legal_entity,
                    sites: sites.len(),
                    site: sites[0],
                };
                detached.push(*finess);
                self.mistake(place.clone(), kind);
            }
            detached.extend(sites);
        }
        detached
    }

    fn mistakes_in_order(&mut self) -> Vec<Mistake> {
        let mut mistakes = std::mem::take(&mut self.mistakes);
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        let (errors, warnings) = (self.unlisted_errors, self.unlisted_warnings);
        if let Some(last) = mistakes.last()
            && errors + warnings > 0
        {
            let place = last.place.clone();
            let kind = MistakeKind::Others { errors, warnings };
            mistakes.push(Mistake { place, kind });
        }
        mistakes
    }
}

/// Without line breaks and other control characters, which could forge lines wherever the name is written.
fn one_line(name: Box<str>) -> Box<str> {
    if !name.contains(char::is_control) {
        return name;
    }
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().map(visible).collect::<String>().into()
}

/// Where a structure is among sorted entries.
fn position(entries: &[Entry], finess: Finess) -> Option<usize> {
    entries
        .binary_search_by_key(&finess, |entry| entry.finess)
        .ok()
}

fn count_sites(entries: &[Entry]) -> Box<[(Finess, u32)]> {
    let mut entities: Vec<Finess> = (entries.iter())
        .filter_map(|entry| entry.structure.legal_entity)
        .collect();
    entities.sort_unstable();
    (entities.chunk_by(Finess::eq))
        .map(|same| (same[0], u32::try_from(same.len()).unwrap_or(u32::MAX)))
        .collect()
}
