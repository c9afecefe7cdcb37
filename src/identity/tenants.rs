//! stub
use crate::identity::finess::Finess;
use std::collections::HashMap;
/// s
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Sector {
    Hospital,
    MedicoSocial,
    Officine,
    Spsti,
    Other,
}
#[allow(missing_docs)]
impl Sector {
    pub fn legal_entity_may_speak(self) -> bool {
        !matches!(self, Self::Officine | Self::Spsti)
    }
    pub fn site_is_tolerated(self) -> bool {
        matches!(self, Self::Hospital | Self::MedicoSocial)
    }
}
/// s
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)]
pub struct Structure {
    pub legal_entity: Option<Finess>,
    pub sector: Option<Sector>,
    pub name: Option<Box<str>>,
}
/// s
#[derive(Clone, Debug, Default)]
pub struct Structures(HashMap<Finess, Structure>);
#[allow(missing_docs)]
impl Structures {
    pub fn get(&self, f: Finess) -> Option<&Structure> {
        self.0.get(&f)
    }
    pub fn iter(&self) -> impl Iterator<Item = (Finess, &Structure)> {
        self.0.iter().map(|(a, b)| (*a, b))
    }
    pub fn sites(&self, _f: Finess) -> usize {
        0
    }
}
impl FromIterator<(Finess, Structure)> for Structures {
    fn from_iter<T: IntoIterator<Item = (Finess, Structure)>>(t: T) -> Self {
        Self(t.into_iter().collect())
    }
}
