//! DMP: SOAP 1.2 and MTOM over TLS 1.2, and a VIHF whose structure is the certificate's.
//!
//! A VIHF is a SAML assertion in the SOAP header; its attribute `Identifiant_Structure` names the structure for
//! which the request is made. Until about 2023 it had to be the one in the certificate's OU; since, another site of
//! the same legal entity will do. The real fault codes are not published: those here are the stand-in's own.

use http::{Method, StatusCode};

use super::soap::{self, Fault};
use super::{Answer, BODY_MAX, Call, Register, reply};
use crate::identity::finess::Finess;
use crate::identity::structure::StructureId;

/// How the structure in a VIHF is compared with the one in the certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coherence {
    /// They are equal.
    Strict,
    /// They are equal, or belong to the same legal entity.
    SameLegalEntity,
}

pub(super) fn answer(call: &Call<'_>, register: &Register, coherence: Coherence) -> Answer {
    let plain = |status, text: &'static str| reply(status, "text/plain", text);
    if call.head.method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "SOAP is sent with POST\n");
    }
    let message = match call.media_type().as_str() {
        "application/soap+xml" => soap::message,
        "multipart/related" if is_xop(call) => soap::mtom,
        _ => {
            return plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "SOAP 1.2 is application/soap+xml, or multipart/related of type application/xop+xml\n",
            );
        }
    };
    if call.body.len() > BODY_MAX {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "50,000,000 bytes at most\n");
    }
    let text = soap::head(call.body);
    match verified(call, &text, register, coherence) {
        Ok(structure) => message(StatusCode::OK, &seen(call, structure)),
        Err((subcode, reason)) => {
            let fault = Fault {
                code: "Sender",
                subcode,
                reason: &reason,
                detail: String::new(),
            };
            message(StatusCode::INTERNAL_SERVER_ERROR, &fault.xml())
        }
    }
}

fn is_xop(call: &Call<'_>) -> bool {
    let content_type = call.field("content-type").unwrap_or_default();
    content_type.split(';').skip(1).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("type")
            && (value.trim().trim_matches('"')).eq_ignore_ascii_case("application/xop+xml")
    })
}

/// The VIHF's structure, if the certificate may speak for it.
fn verified<'a>(
    call: &Call<'_>,
    text: &'a str,
    register: &Register,
    coherence: Coherence,
) -> Result<&'a str, (&'static str, String)> {
    if !soap::Tags(text).any(|tag| tag.name == "Envelope") {
        return Err(("envelope_absente", "There is no SOAP envelope".to_owned()));
    }
    let claimed = vihf_structure(text).ok_or_else(|| {
        let reason = "The VIHF has no attribute Identifiant_Structure";
        ("vihf_absent", reason.to_owned())
    })?;
    let own = call.profile.and_then(|profile| profile.structure.as_ref());
    let own_text = own.map(ToString::to_string).unwrap_or_default();
    let coherent = own_text == claimed
        || (coherence == Coherence::SameLegalEntity
            && own.is_some_and(|own| of_one_legal_entity(register, own, claimed)));
    if coherent {
        return Ok(claimed);
    }
    let reason = format!("The VIHF is of structure {claimed}, the certificate of {own_text}");
    Err(("structure_incoherente", reason))
}

fn vihf_structure(text: &str) -> Option<&str> {
    let mut tags = soap::Tags(text);
    tags.find(|tag| {
        tag.name == "Attribute"
            && ["\"Identifiant_Structure\"", "'Identifiant_Structure'"]
                .iter()
                .any(|name| tag.attributes.contains(&format!("Name={name}")))
    })?;
    // Of this attribute, not of a later one.
    let value = tags.next().filter(|tag| tag.name == "AttributeValue")?;
    (!value.text.is_empty()).then_some(value.text)
}

fn of_one_legal_entity(register: &Register, own: &StructureId, claimed: &str) -> bool {
    let entity = |finess: Finess| *register.legal_entities.get(&finess).unwrap_or(&finess);
    let claimed = StructureId::parse(claimed).ok().and_then(|id| id.finess());
    matches!((own.finess(), claimed), (Some(own), Some(claimed)) if entity(own) == entity(claimed))
}

/// What a person who tries the demonstration wants to know: who was seen, and with how much.
fn seen(call: &Call<'_>, structure: &str) -> String {
    let name = call
        .profile
        .and_then(|profile| profile.common_name.as_deref());
    let unit = call.profile.and_then(|profile| profile.structure.as_ref());
    format!(
        "<Recu xmlns=\"urn:relais:simulateur\"><OU>{}</OU><CN>{}</CN>\
         <Identifiant_Structure>{}</Identifiant_Structure><Octets>{}</Octets></Recu>",
        unit.map(ToString::to_string).unwrap_or_default(),
        soap::escaped(name.unwrap_or_default()),
        soap::escaped(structure),
        call.body.len()
    )
}
