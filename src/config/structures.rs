//! `[tenants]` or `[[tenants]]`, and `[vendor]`: the structures that requests may speak for, and those that none may.

use super::parse;
use super::problem::What;
use super::section::Section;
use super::{Tenants, files};
use crate::identity::structure::StructureId;
use crate::identity::tenants::{Sector, Structure};

/// Reads where the table of structures comes from. Files are not read, only looked at.
pub(super) fn tenants(root: &mut Section<'_>) -> Tenants {
    let mut tenants = Tenants::default();
    for section in root.one_or_more_sections("tenants") {
        entry(section, &mut tenants);
    }
    tenants
}

/// A file, or a structure.
fn entry(mut section: Section<'_>, tenants: &mut Tenants) {
    let keys = ["finess", "legal_entity", "name", "sector"];
    let names_structure = keys.into_iter().any(|key| section.has(key));
    match (section.has("file"), names_structure) {
        (true, true) => {
            let text = "a file and a structure in one entry".to_owned();
            let hint = "give each a [[tenants]] of its own".to_owned();
            (section.reader).error(&section.spot, What::Rule(text), Some(hint));
        }
        (false, _) if !section.has("finess") => {
            let expected = "the FINESS number of a structure, or file";
            section.missing("finess", expected, None);
        }
        _ => {}
    }
    let reader = section.reader;
    let file = section.take("file", |raw| {
        let path = parse::path(&reader.base)(raw)?;
        reader.look(&path, files::readable).map(|()| path)
    });
    let finess = section.take_finess("finess");
    let legal_entity = section.take_finess("legal_entity");
    let name = section.take("name", parse::text);
    let sector = section.take("sector", parse::word(Sector::WORDS));
    section.finish();
    tenants.files.extend(file.map(|found| found.value));
    if let Some(finess) = finess {
        let structure = Structure {
            legal_entity: legal_entity.map(|found| found.value),
            sector: sector.map(|found| found.value),
            name: name.map(|found| found.value.into()),
        };
        tenants.inline.push((finess.value, structure));
    }
}

/// Reads the structures of the vendor itself.
pub(super) fn vendor(root: &mut Section<'_>) -> Vec<StructureId> {
    let Some(mut section) = root.section("vendor") else {
        return Vec::new();
    };
    let expected = "a list of structure identifiers, as in the OU of certificates, such as [\"339172288100052\"]";
    let ids = parse::list(expected, |text| {
        StructureId::parse(text).map_err(|error| Some(error.to_string()))
    });
    let structures = section.require("structures", ids);
    section.finish();
    structures.map(|found| found.value).unwrap_or_default()
}
