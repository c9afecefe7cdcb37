//! What must be refused, by the gateway or by a service through it: a table.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};

use super::odd::Odd;
use crate::simulator::requests;
use crate::simulator::services::{ANNUAIRE_API_KEY, SOFTWARE_NUMBER};
use crate::simulator::site::Site;

/// A request that is not let through, or not without a word.
#[derive(Debug)]
pub(super) struct Case {
    /// What is tried.
    pub(super) what: &'static str,
    pub(super) request: Request<Bytes>,
    /// How often it is sent, at most, until what is expected comes back.
    pub(super) times: usize,
    pub(super) expected: Expected,
}

/// What must come back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// The gateway's own refusal, with this status and `code`. The request reaches no simulator.
    Gateway(u16, &'static str),
    /// A service's own answer, untouched: with this status, and this text in its body.
    Service(u16, &'static str),
}

impl Expected {
    /// What came back in a few words, and whether it is this.
    pub(super) fn judge(&self, answer: &Response<Bytes>, reached: bool) -> (String, bool) {
        let status = answer.status().as_u16();
        let code = problem_code(answer);
        match self {
            Self::Gateway(expected, word) => {
                let came = code.as_deref().unwrap_or("not of the gateway");
                let right = status == *expected && came == *word && !reached;
                (format!("{status} {came}"), right)
            }
            Self::Service(expected, text) => {
                let found =
                    code.is_none() && String::from_utf8_lossy(answer.body()).contains(*text);
                let came = match &code {
                    Some(code) => code.as_str(),
                    None if found => text,
                    None => "another answer",
                };
                (format!("{status} {came}"), found && status == *expected)
            }
        }
    }
}

/// The `code` of the gateway's own answers.
fn problem_code(answer: &Response<Bytes>) -> Option<String> {
    let of_gateway = answer.headers().get(CONTENT_TYPE)? == "application/problem+json";
    let json: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
    of_gateway.then(|| json["code"].as_str().unwrap_or_default().to_owned())
}

/// The table. Rows may be added anywhere but after the last: it uses a rate up.
pub(super) fn all(site: &Site, odd: &Odd) -> Vec<Case> {
    use Expected::{Gateway, Service};
    let tenant = site.tenants[0];
    let case = |what, request, expected| Case {
        what,
        request,
        times: 1,
        expected,
    };
    let dmp = |tenant| requests::dmp(tenant, tenant);
    vec![
        case(
            "no tenant named",
            requests::bare("/dmp/x"),
            Gateway(400, "tenant_missing"),
        ),
        case(
            "something that is not a FINESS number",
            requests::bare("/@06078500X/dmp/x"),
            Gateway(400, "tenant_malformed"),
        ),
        case(
            "two tenants in one request",
            requests::get(tenant, &format!("/@{}/dmp/x", odd.newcomer)),
            Gateway(400, "tenant_ambiguous"),
        ),
        case(
            "a service that is not configured",
            requests::get(tenant, "/ameli/x"),
            Gateway(404, "service_unknown"),
        ),
        case(
            "INSi, for a structure without a certificate for it",
            requests::insi(odd.newcomer, "insi-auto", SOFTWARE_NUMBER),
            Gateway(503, "certificate_missing"),
        ),
        case(
            "two certificates that began in the same second",
            dmp(odd.twin),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a tenant that nobody knows",
            dmp(odd.unknown),
            Gateway(404, "tenant_unknown"),
        ),
        case(
            "a site (EG) without certificate: under its legal entity's, as it should",
            dmp(site.establishment),
            Service(200, "<Recu"),
        ),
        case(
            "a pharmacy (EG) without certificate: not under its legal entity's",
            dmp(odd.pharmacy),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a certificate of another structure, pinned by mistake",
            dmp(odd.borrower),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "the éditeur's certificate, where DMP wants the structure's own",
            dmp(odd.client),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a revoked certificate",
            dmp(odd.revoked),
            Gateway(503, "certificate_revoked"),
        ),
        case(
            "a certificate for INSi whose CN is insi-auto",
            requests::insi(odd.near_miss, "insi-auto", SOFTWARE_NUMBER),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a certificate for signatures (ORG SIGN)",
            dmp(odd.only_sign),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "an expired certificate",
            dmp(odd.expired),
            Gateway(503, "certificate_expired"),
        ),
        case(
            "a certificate of production in a gateway for tests",
            dmp(odd.production),
            Gateway(403, "certificate_refused_by_rule"),
        ),
        case(
            "a service that accepts another authority's certificates only",
            requests::get(tenant, "/autre-igc/x"),
            Gateway(502, "certificate_rejected_by_upstream"),
        ),
        case(
            "a service whose own certificate is another authority's",
            requests::get(tenant, "/inconnu/x"),
            Gateway(502, "upstream_untrusted"),
        ),
        case(
            "a service that asks for no certificate",
            requests::get(tenant, "/sans-certificat/x"),
            Gateway(502, "certificate_not_requested"),
        ),
        case(
            "DMP: an assertion (VIHF) of another structure",
            requests::dmp(tenant, odd.newcomer),
            Service(500, "S:structure_incoherente"),
        ),
        case(
            "DMP: an assertion of a site of the same legal entity, which is accepted",
            requests::dmp(tenant, site.establishment),
            Service(200, "<Recu"),
        ),
        case(
            "DMP: something else than SOAP",
            requests::get(tenant, "/dmp/v2/services/repository"),
            Service(405, "SOAP"),
        ),
        case(
            "INSi: shown a certificate that is not for it",
            requests::insi(tenant, "insi-faux", SOFTWARE_NUMBER),
            Service(500, "desir_560"),
        ),
        case(
            "INSi: a software that is not authorised",
            requests::insi(tenant, "insi-auto", "INCONNU"),
            Service(500, "desir_550"),
        ),
        case(
            "Pro Santé Connect: the client_id of another certificate",
            requests::token(odd.newcomer, "psc", &requests::client_id(tenant)),
            Service(401, "invalid_client"),
        ),
        case(
            "MSSanté: shown the certificate that is for INSi",
            requests::get(tenant, "/mssante-faux/x"),
            Service(200, "Client certificat inconnu"),
        ),
        case(
            "ROR: a certificate whose subject it was not told",
            requests::token(odd.newcomer, "ror", "x"),
            Service(401, "invalid_client"),
        ),
        case(
            "ROR: FHIR without token",
            requests::ror_search(tenant, None),
            Service(401, "OperationOutcome"),
        ),
        case(
            "Annuaire Santé: without API key",
            requests::annuaire(tenant, "annuaire-nu", None),
            Service(401, "OperationOutcome"),
        ),
        Case {
            // More than a second's worth, however slow this machine: it refuses as soon as they come fast enough.
            times: 500,
            ..case(
                "Annuaire Santé: more than 17 requests a second",
                requests::annuaire(tenant, "annuaire-nu", Some(ANNUAIRE_API_KEY)),
                Service(429, "throttled"),
            )
        },
    ]
}
