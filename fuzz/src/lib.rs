//! What fuzz targets check: the same functions as the property tests call on the stable toolchain.

#[path = "../../tests/properties/oracles/mod.rs"]
pub mod oracles;
