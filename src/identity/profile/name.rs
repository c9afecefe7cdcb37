//! Distinguished names as text (RFC 4514): last RDN first, which is also how IGC-Santé prints them.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Tag, ToDer as _};
use x509_parser::der_parser::oid;
use x509_parser::oid_registry::Oid;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The name in RFC 4514 order and escaping, in UTF-8.
///
/// Control characters are escaped as well, which the RFC allows: the text ends up in log lines and in headers.
pub(crate) fn rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (rank, rdn) in rdns.iter().rev().enumerate() {
        if rank > 0 {
            text.push(',');
        }
        for (rank, attribute) in rdn.iter().enumerate() {
            if rank > 0 {
                text.push('+');
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let short_name = short_name(attribute.attr_type());
    match short_name {
        Some(short_name) => text.push_str(short_name),
        None => text.push_str(&attribute.attr_type().to_id_string()),
    }
    text.push('=');
    // A value whose type has no name is written in hexadecimal (RFC 4514, section 2.4).
    match short_name.and_then(|_| value(attribute.attr_value())) {
        Some(value) => write_escaped(text, &value),
        None => write_hexadecimal(text, attribute.attr_value()),
    }
}

/// The names that RFC 4514 gives, and the other ones that OpenSSL prints and certificates of this field carry.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    // `Oid` is no pattern; the comparisons are a dozen and short.
    let names = [
        (oid!(2.5.4.3), "CN"),
        (oid!(2.5.4.11), "OU"),
        (oid!(2.5.4.10), "O"),
        (oid!(2.5.4.6), "C"),
        (oid!(2.5.4.8), "ST"),
        (oid!(2.5.4.7), "L"),
        (oid!(2.5.4.9), "STREET"),
        (oid!(0.9.2342.19200300.100.1.25), "DC"),
        (oid!(0.9.2342.19200300.100.1.1), "UID"),
        (oid!(2.5.4.4), "SN"),
        (oid!(2.5.4.42), "GN"),
        (oid!(2.5.4.5), "serialNumber"),
        (oid!(2.5.4.12), "title"),
        (oid!(1.2.840.113549.1.9.1), "emailAddress"),
    ];
    names
        .iter()
        .find(|(known, _)| known == oid)
        .map(|(_, name)| *name)
}

/// The text of a value, whichever string type it has; nothing if it is no string, or not one that decodes.
pub(super) fn value(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        // In practice Latin-1, whatever T.61 was.
        Tag::TeletexString => Some(bytes.iter().map(|&byte| char::from(byte)).collect()),
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString if bytes.len().is_multiple_of(4) => bytes
            .chunks_exact(4)
            .map(|quad| char::from_u32(u32::from_be_bytes([quad[0], quad[1], quad[2], quad[3]])))
            .collect(),
        _ => None,
    }
}

fn write_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (rank, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if rank == 0 => text.push_str("\\#"),
            ' ' if rank == 0 || rank == last => text.push_str("\\ "),
            _ if character.is_control() => {
                let mut utf8 = [0; 4];
                for byte in character.encode_utf8(&mut utf8).bytes() {
                    // Writing to a `String` cannot fail.
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            _ => text.push(character),
        }
    }
}

fn write_hexadecimal(text: &mut String, value: &Any<'_>) {
    text.push('#');
    // What was parsed from DER encodes back; the bare content stands in if it should not.
    let der = value.to_der_vec().unwrap_or_else(|_| value.data.to_vec());
    for byte in der {
        let _ = write!(text, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer as _;

    use super::*;

    /// DER of a value shorter than 128 bytes.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [&[tag, length], content].concat()
    }

    fn attribute(oid: &[u8], tag: u8, content: &[u8]) -> Vec<u8> {
        der(0x30, &[der(0x06, oid), der(tag, content)].concat())
    }

    fn text(rdns: &[Vec<u8>]) -> String {
        let sets: Vec<u8> = rdns.iter().flat_map(|rdn| der(0x31, rdn)).collect();
        rfc4514(&X509Name::from_der(&der(0x30, &sets)).unwrap().1)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const OU: &[u8] = &[0x55, 4, 11];

    #[test]
    fn writes_the_last_rdn_first_and_joins_multi_valued_ones() {
        let both = [attribute(CN, 0x0c, b"A"), attribute(OU, 0x0c, b"B")].concat();
        assert_eq!(
            text(&[attribute(&[0x55, 4, 6], 0x13, b"FR"), both]),
            "CN=A+OU=B,C=FR"
        );
    }

    #[test]
    fn escapes_what_would_be_read_otherwise() {
        let escaped = |value: &str| text(&[attribute(CN, 0x0c, value.as_bytes())]);
        assert_eq!(
            escaped("a,b+c\"d\\e<f>g;h"),
            "CN=a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h"
        );
        assert_eq!(escaped(" x "), "CN=\\ x\\ ");
        assert_eq!(escaped(" "), "CN=\\ ");
        assert_eq!(escaped("#1 a#"), "CN=\\#1 a#");
        assert_eq!(escaped("a=b"), "CN=a=b");
        assert_eq!(escaped("a\r\nb\0"), "CN=a\\0D\\0Ab\\00");
        assert_eq!(escaped("é\u{85}"), "CN=é\\C2\\85");
        assert_eq!(escaped(""), "CN=");
    }

    #[test]
    fn decodes_the_older_string_types() {
        assert_eq!(
            text(&[attribute(CN, 0x1e, &[0, b'A', 0x20, 0xac])]),
            "CN=A€"
        );
        assert_eq!(text(&[attribute(CN, 0x14, &[b'R', b'h', 0xf4])]), "CN=Rhô");
        assert_eq!(text(&[attribute(CN, 0x1c, &[0, 1, 0xf6, 0])]), "CN=😀");
    }

    #[test]
    fn writes_in_hexadecimal_what_has_no_name_or_no_text() {
        assert_eq!(
            text(&[attribute(&[0x2a, 3, 4], 0x0c, b"x")]),
            "1.2.3.4=#0c0178"
        );
        assert_eq!(text(&[attribute(CN, 0x02, &[5])]), "CN=#020105");
        // An odd number of bytes is no UTF-16.
        assert!(text(&[attribute(CN, 0x1e, &[0xd8, 0])]).starts_with("CN=#1e02"));
    }
}
