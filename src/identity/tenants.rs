//! The structures that tenants can be, and which legal entity (EJ) each site (EG) belongs to.
//!
//! They come from CSV files and from `[[tenants]]` of the configuration. A site without a certificate of its own may
//! use its legal entity's, so that everything doubtful here ends in a structure without legal entity: it can then
//! speak under its own certificate alone.

mod gather;
mod mistake;
mod read;
mod sector;

#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;

use crate::config::Tenants;
use crate::identity::finess::Finess;

pub use mistake::{Mistake, MistakeKind, Place};
pub use sector::{Sector, SectorError};

/// What is known of a structure besides its FINESS number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Structure {
    /// The legal entity (EJ) to which this site (EG) belongs. None for a legal entity, and wherever what was read
    /// cannot be relied upon.
    pub legal_entity: Option<Finess>,
    /// Which certificates its sector orders. None where nothing says.
    pub sector: Option<Sector>,
    /// Its name, for people; on one line.
    pub name: Option<Box<str>>,
}

/// The table of structures: immutable, and sorted by FINESS number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Structures {
    /// In order, each once. `structures` has what belongs to them at the same positions.
    numbers: Box<[Finess]>,
    /// Where each number is. Requests of a whole country look here: seventeen steps of a search among 150,000 numbers
    /// would each wait for memory. The configuration alone decides what is in it, so that the hash need not resist
    /// anybody.
    positions: FxHashMap<Finess, u32>,
    structures: Box<[Structure]>,
    /// The legal entity of each site for which it may speak: what a request asks, in one step.
    speaking: FxHashMap<Finess, Finess>,
    /// How many sites name each legal entity, in order.
    sites: Box<[(Finess, u32)]>,
}

/// Reads the files and the entries of a configuration, and finds everything that is wrong with them.
///
/// Nothing is fatal: what a mistake concerns is left out, or has no legal entity. Mistakes come in the order of
/// their places.
pub fn load(tenants: &Tenants) -> (Structures, Vec<Mistake>) {
    let mut gathered = gather::Gathered::default();
    for (finess, structure) in &tenants.inline {
        gathered.add(Place::Configuration, *finess, structure.clone());
    }
    for path in &tenants.files {
        read::file(path, &mut gathered);
    }
    gathered.finish()
}

impl Structures {
    /// What is known of a structure.
    pub fn get(&self, finess: Finess) -> Option<&Structure> {
        let position = *self.positions.get(&finess)?;
        self.structures.get(position as usize)
    }

    /// The legal entity to which a site belongs, where one is known.
    pub fn legal_entity(&self, finess: Finess) -> Option<Finess> {
        self.get(finess)?.legal_entity
    }

    /// The same, where the site's sector lets the legal entity's certificate speak for it. An unknown sector does.
    pub fn legal_entity_that_speaks(&self, finess: Finess) -> Option<Finess> {
        self.speaking.get(&finess).copied()
    }

    /// How many sites belong to a legal entity. It need not be in the table itself: the FINESS register's extract
    /// lists sites alone.
    pub fn sites(&self, legal_entity: Finess) -> usize {
        let position = (self.sites).binary_search_by_key(&legal_entity, |&(finess, _)| finess);
        position.map_or(0, |position| self.sites[position].1 as usize)
    }

    /// How many structures there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Finess, &Structure)> {
        self.numbers.iter().copied().zip(&self.structures)
    }
}
