//! What fuzz targets check: the same functions as the property tests call on the stable toolchain.

#[path = "../../tests/properties"]
mod properties {
    pub mod oracles;
}

pub use properties::oracles;
