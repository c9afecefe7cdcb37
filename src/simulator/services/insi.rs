//! INSi: SOAP 1.2, a certificate whose CN is the mode to the letter, and contexts that say who asks with what.
//!
//! Codes and the form of faults are those that public client code reads. Not published are the SIRAM code that goes
//! with `desir_560` (`siram_40` here) and the code for an `Emetteur` that is not the certificate's structure: those
//! are the stand-in's own. It stands for one way of calling and refuses the other's certificate, so that a mistaken
//! choice shows; the real service cannot tell which way was meant.

use http::{Method, StatusCode};

use super::soap::{self, Fault};
use super::{Answer, BODY_MAX, Call, reply};
use crate::identity::profile::InsiMode;

/// The authorisation number of the one software that the stand-in knows.
pub const SOFTWARE_NUMBER: &str = "RELAISDEMO01";

/// The birth name of the one person that the stand-in knows.
pub const SAMPLE_NAME: &str = "FICTIF";

/// An identifier of nobody (no department 00 exists) with its right key, under the OID of test identifiers.
const SAMPLE_PERSON: &str = "<INDIVIDU><INSACTIF><IdIndividu><NumIdentifiant>2000100000001</NumIdentifiant><Cle>12</Cle></IdIndividu>\
     <OID>1.2.250.1.213.1.4.10</OID></INSACTIF><TIQ><NomNaissance>FICTIF</NomNaissance><ListePrenom>CAMILLE</ListePrenom>\
     <Sexe>F</Sexe><DateNaissance>2000-01-01</DateNaissance><LieuNaissance>00000</LieuNaissance></TIQ></INDIVIDU>";

pub(super) fn answer(call: &Call<'_>, mode: InsiMode) -> Answer {
    let plain = |status, text: &'static str| reply(status, "text/plain", text);
    if call.head.method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "SOAP is sent with POST\n");
    }
    if call.media_type() != "application/soap+xml" {
        return plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "SOAP 1.2 is application/soap+xml\n",
        );
    }
    if call.body.len() > BODY_MAX {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "too large\n");
    }
    let text = soap::head(call.body);
    if let Some(fault) = objection(call, &text, mode) {
        return soap::message(StatusCode::INTERNAL_SERVER_ERROR, &fault.xml());
    }
    let name = soap::text_of(&text, None, "NomNaissance");
    let (code, label, person) = match name {
        Some(SAMPLE_NAME) => ("00", "OK", SAMPLE_PERSON),
        _ => ("01", "Aucune identite trouvee", ""),
    };
    soap::message(
        StatusCode::OK,
        &format!(
            "<RESULTAT xmlns=\"http://www.cnamts.fr/INSiResultat\"><CR><CodeCR>{code}</CodeCR>\
             <LibelleCR>{label}</LibelleCR></CR>{person}</RESULTAT>"
        ),
    )
}

/// The certificate first: who may not come in is told nothing of what is wrong with the message.
fn objection(call: &Call<'_>, text: &str, mode: InsiMode) -> Option<Fault<'static>> {
    if call.profile.and_then(|profile| profile.insi) != Some(mode) {
        return Some(fault(
            "siram_40",
            "desir_560",
            "Niveau d'accès insuffisant : vous ne disposez pas des droits suffisants pour accéder à ce service.",
        ));
    }
    let number = soap::text_of(text, Some("ContexteLPS"), "IDAM")
        .or_else(|| soap::text_of(text, Some("ContexteLPS"), "NumeroAutorisation"));
    if number != Some(SOFTWARE_NUMBER) {
        return Some(fault(
            "siram_100",
            "desir_550",
            "Numéro d'autorisation du logiciel inconnu.",
        ));
    }
    let structure = call.profile.and_then(|profile| profile.structure.as_ref());
    let own = structure.map(ToString::to_string);
    if own.as_deref() != soap::text_of(text, Some("ContexteBAM"), "Emetteur") {
        return Some(fault(
            "siram_40",
            "simulateur_emetteur",
            "L'émetteur n'est pas la structure du certificat.",
        ));
    }
    None
}

fn fault(siram: &'static str, code: &str, text: &str) -> Fault<'static> {
    Fault {
        code: "Receiver",
        subcode: siram,
        reason: "L'accès au service n'est pas autorisé. Contactez l'éditeur du progiciel.",
        detail: format!(
            "<siram:Erreur severite=\"fatal\" code=\"{code}\" xmlns:siram=\"urn:siram\">{}</siram:Erreur>",
            soap::escaped(text)
        ),
    }
}
