//! MSSanté, the HTTP interface of an operator: it knows the holders of mailboxes by their certificates.
//!
//! Shown the certificate that is for INSi, a real operator answered 200 with an error in the body.

use http::StatusCode;

use super::{Answer, Call, soap};

pub(super) fn answer(call: &Call<'_>) -> Answer {
    let body = match call.profile.filter(|profile| profile.insi.is_some()) {
        Some(stranger) => format!(
            "<Erreur xmlns=\"urn:relais:simulateur\">Client certificat inconnu ({})</Erreur>",
            soap::escaped(&stranger.subject)
        ),
        None => "<Resultat xmlns=\"urn:relais:simulateur\">OK</Resultat>".to_owned(),
    };
    soap::message(StatusCode::OK, &body)
}
