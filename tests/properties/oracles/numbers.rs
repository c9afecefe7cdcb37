//! FINESS numbers and structure identifiers.

use relais::identity::finess::Finess;
use relais::identity::structure::{StructureId, StructureKind};

/// Longer than any message about a number: what was sent is not echoed at length.
const LONGEST_MESSAGE: usize = 300;

/// A number is taken if it has the shape, and then printed as it was written.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match Finess::parse(text) {
        Ok(finess) => {
            assert!(has_shape_of_finess(text.as_bytes()), "{text:?}");
            assert_eq!(finess.to_string(), text);
            assert_eq!(Finess::parse(finess.as_str()), Ok(finess));
            let id = StructureId::from(finess);
            assert_eq!(id.to_string(), format!("1{text}"));
            assert_eq!(id.finess(), Some(finess));
            let _ = finess.has_valid_key();
        }
        Err(error) => {
            assert!(!has_shape_of_finess(text.as_bytes()), "{text:?}");
            assert!(error.to_string().len() < LONGEST_MESSAGE, "{error}");
        }
    }
    match StructureId::parse(text) {
        Ok(id) => {
            assert_eq!(id.to_string(), text);
            assert_eq!(StructureId::parse(&id.to_string()), Ok(id.clone()));
            assert_eq!(
                id.finess(),
                text.strip_prefix('1')
                    .and_then(|number| number.parse().ok())
            );
            assert_eq!(id.kind == StructureKind::Finess, text.starts_with('1'));
            assert!(text.is_ascii() && (10..=15).contains(&text.len()));
        }
        Err(error) => {
            assert!(error.to_string().len() < LONGEST_MESSAGE, "{error}");
            // Whatever is a FINESS number is one behind its type digit as well.
            assert!(
                !text
                    .strip_prefix('1')
                    .is_some_and(|rest| has_shape_of_finess(rest.as_bytes()))
            );
        }
    }
}

/// As the documentation has it, told in another way than in the code.
fn has_shape_of_finess(text: &[u8]) -> bool {
    text.len() == 9
        && text
            .iter()
            .enumerate()
            .all(|(at, byte)| byte.is_ascii_digit() || at == 1 && byte.is_ascii_uppercase())
}
