use std::time::Duration;

use http::Request;

use super::*;
use crate::simulator::pki::shared;
use crate::simulator::pki::shared::request;

const OWN: &str = "060785003";
const SISTER: &str = "060785011";
const STRANGER: &str = "750712184";

/// A service that is asked without sockets, at a time that the test sets.
struct Desk {
    rules: Rules,
    register: Register,
    begun: Instant,
    after: Duration,
}

impl Desk {
    fn of(behaviour: Behaviour) -> Self {
        let mut register = Register::new();
        let own = OWN.parse().unwrap();
        register.legal_entities.insert(SISTER.parse().unwrap(), own);
        Self {
            rules: Rules::of(behaviour).unwrap(),
            register,
            begun: Instant::now(),
            after: Duration::ZERO,
        }
    }

    fn ask(&self, profile: Option<&Profile>, request: Request<Vec<u8>>) -> (u16, String) {
        let answer = self.answer(profile, request);
        let body = String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status().as_u16(), body)
    }

    fn answer(&self, profile: Option<&Profile>, request: Request<Vec<u8>>) -> Answer {
        let (head, body) = request.into_parts();
        let call = Call {
            profile,
            head: &head,
            body: &body,
            now: self.begun + self.after,
            time: 1_700_000_000 + self.after.as_secs() as i64,
        };
        self.rules.answer(&self.register, &call)
    }
}

fn profile(finess: &str, common_name: &str) -> Profile {
    let issued = shared::TEST.issue(&request(&format!("1{finess}"), common_name, 0));
    Profile::parse(&issued.cert_der).unwrap()
}

fn post(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    Request::post(path)
        .header("content-type", content_type)
        .body(body.into())
        .unwrap()
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request<Vec<u8>> {
    let request = (fields.iter()).fold(Request::get(path), |request, (name, value)| {
        request.header(*name, *value)
    });
    request.body(Vec::new()).unwrap()
}

const SOAP: &str =
    "application/soap+xml; charset=utf-8; action=\"urn:ihe:iti:2007:RegistryStoredQuery\"";
const MTOM: &str = "Multipart/Related; boundary=x; type=\"application/xop+xml\"; start-info=\"application/soap+xml\"";

fn vihf(structure: &str) -> String {
    format!(
        "<e:Envelope><e:Header><w:Security><!-- <Attribute Name=\"Identifiant_Structure\"> --><saml:Assertion>\
         <saml:Attribute Name=\"LPS_Nom\"><saml:AttributeValue>LPS</saml:AttributeValue></saml:Attribute>\
         <saml:Attribute NameFormat='x' Name='Identifiant_Structure'>\n<saml:AttributeValue xsi:type=\"s\">\
         {structure}</saml:AttributeValue></saml:Attribute></saml:Assertion></w:Security></e:Header></e:Envelope>"
    )
}

#[test]
fn dmp_takes_a_vihf_of_the_certificates_own_structure_or_of_its_legal_entity() {
    let own = profile(OWN, "DUI");
    let (strict, coherent) = (Coherence::Strict, Coherence::SameLegalEntity);
    for (mode, claimed, status) in [
        (strict, OWN, 200),
        (strict, SISTER, 500),
        (strict, STRANGER, 500),
        (coherent, OWN, 200),
        (coherent, SISTER, 200),
        (coherent, STRANGER, 500),
    ] {
        let desk = Desk::of(Behaviour::Dmp(mode));
        let message = vihf(&format!("1{claimed}"));
        let (answered, body) = desk.ask(Some(&own), post("/repository", SOAP, message));
        assert_eq!(answered, status, "{mode:?} {claimed}: {body}");
        assert_eq!(
            body.contains("S:structure_incoherente"),
            status == 500,
            "{body}"
        );
        assert!(body.contains(&format!("1{claimed}")), "{body}");
    }
}

#[test]
fn dmp_answers_mtom_with_mtom_faults_included() {
    let own = profile(OWN, "DUI");
    let desk = Desk::of(Behaviour::Dmp(Coherence::Strict));
    for (claimed, status) in [(OWN, 200), (STRANGER, 500)] {
        let message = format!("--x\r\n\r\n{}\r\n--x--", vihf(&format!("1{claimed}")));
        let answer = desk.answer(Some(&own), post("/repository", MTOM, message));
        let content_type = answer.headers()["content-type"].to_str().unwrap();
        assert_eq!(answer.status(), status);
        assert!(
            content_type.starts_with("multipart/related; type=\"application/xop+xml\""),
            "{content_type}"
        );
        assert!(answer.body().starts_with(b"--relais-simulator\r\n"));
    }
}

#[test]
fn dmp_refuses_what_is_not_soap_1_2() {
    let own = profile(OWN, "DUI");
    let desk = Desk::of(Behaviour::Dmp(Coherence::Strict));
    let message = || vihf(&format!("1{OWN}"));
    for content_type in [
        "text/xml",
        "",
        "application/json",
        "multipart/form-data",
        "multipart/related; type=\"text/xml\"",
    ] {
        let asked = post("/repository", content_type, message());
        assert_eq!(desk.ask(Some(&own), asked).0, 415, "{content_type}");
    }
    assert_eq!(desk.ask(Some(&own), get("/repository", &[])).0, 405);
    let large = vec![b' '; BODY_MAX + 1];
    assert_eq!(
        desk.ask(Some(&own), post("/repository", SOAP, large)).0,
        413
    );
}

#[test]
fn soap_services_survive_nonsense() {
    let own = profile(OWN, "INSI-AUTO");
    let dmp = Desk::of(Behaviour::Dmp(Coherence::SameLegalEntity));
    let insi = Desk::of(Behaviour::Insi(InsiMode::Auto));
    let whole = vihf("1060785003");
    let mut cases: Vec<Vec<u8>> = [
        "",
        "<",
        "<>",
        "< >",
        "</>",
        "<!--",
        "<:>",
        "hello",
        "<Envelope>",
        "<Envelope><Attribute Name=\"Identifiant_Structure\"/>",
        "<Envelope><Attribute Name=\"Identifiant_Structure\"></Attribute><AttributeValue>1060785003",
        "<Envelope><Attribute Name=\"Identifiant_Structure\"><AttributeValue></AttributeValue>",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    cases.push(vec![0xff; 3000]);
    cases.extend((0..whole.len() - 120).map(|end| whole.as_bytes()[..end].to_vec()));
    for body in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answers = [&dmp, &insi].map(|desk| desk.ask(Some(&own), post("/", SOAP, body.clone())));
        if !shown.contains("AttributeValue>1060785003") {
            assert_eq!(answers[0].0, 500, "{shown}");
        }
        assert_eq!(answers[1].0, 500, "{shown}");
    }
}

fn insi_search(emitter: &str, number: &str, name: &str) -> Request<Vec<u8>> {
    post(
        "/lps",
        "application/soap+xml",
        format!(
            "<soap:Envelope><soap:Header><ctxbam:ContexteBAM Version=\"01_02\"><ctxbam:Emetteur>{emitter}</ctxbam:Emetteur>\
             </ctxbam:ContexteBAM><ctxlps:ContexteLPS><ctxlps:Emetteur>x</ctxlps:Emetteur><ctxlps:LPS>\
             <ctxlps:IDAM R=\"4\">{number}</ctxlps:IDAM></ctxlps:LPS></ctxlps:ContexteLPS></soap:Header><soap:Body>\
             <r:RECSANSVITALE><r:NomNaissance>{name}</r:NomNaissance></r:RECSANSVITALE></soap:Body></soap:Envelope>"
        ),
    )
}

#[test]
fn insi_wants_its_own_certificate_a_known_software_and_the_structure_as_emitter() {
    let desk = Desk::of(Behaviour::Insi(InsiMode::Auto));
    let unit = format!("1{OWN}");
    for (common_name, emitter, number, status, code) in [
        ("INSI-AUTO", &*unit, SOFTWARE_NUMBER, 200, "CodeCR>01"),
        ("INSI-MANU", &unit, SOFTWARE_NUMBER, 500, "desir_560"),
        ("Insi-auto", &unit, SOFTWARE_NUMBER, 500, "desir_560"),
        ("DUI", "", "", 500, "desir_560"),
        ("INSI-AUTO", &unit, "FAKE", 500, "desir_550"),
        ("INSI-AUTO", &unit, "FAKE", 500, "S:siram_100"),
        ("INSI-AUTO", "1750712184", SOFTWARE_NUMBER, 500, "emetteur"),
        ("INSI-AUTO", "", SOFTWARE_NUMBER, 500, "emetteur"),
    ] {
        let shown = profile(OWN, common_name);
        let (answered, body) = desk.ask(Some(&shown), insi_search(emitter, number, "DURAND"));
        assert_eq!(answered, status, "{common_name}: {body}");
        assert!(body.contains(code), "{code} in {body}");
    }
}

#[test]
fn insi_finds_the_sample_person_and_nobody_else() {
    let desk = Desk::of(Behaviour::Insi(InsiMode::Manu));
    let shown = profile(OWN, "INSI-MANU");
    let asked = insi_search(&format!("1{OWN}"), SOFTWARE_NUMBER, SAMPLE_NAME);
    let (status, body) = desk.ask(Some(&shown), asked);
    assert_eq!(status, 200);
    assert!(
        body.contains("<CodeCR>00</CodeCR>") && body.contains("NumIdentifiant"),
        "{body}"
    );
}

#[test]
fn mssante_answers_200_to_a_certificate_that_it_does_not_know() {
    let desk = Desk::of(Behaviour::Mssante);
    let (status, body) = desk.ask(Some(&profile(OWN, "INSI-AUTO")), get("/", &[]));
    assert_eq!(status, 200);
    assert!(
        body.contains("Client certificat inconnu (CN=INSI-AUTO,"),
        "{body}"
    );
    let (status, body) = desk.ask(Some(&profile(OWN, "BAL")), get("/", &[]));
    assert_eq!(status, 200);
    assert!(body.contains("OK") && !body.contains("inconnu"), "{body}");
}

const FORM: &str = "application/x-www-form-urlencoded";
const TOKEN: &str = "/auth/realms/x/protocol/openid-connect/token";

fn token_request(client_id: &str) -> Request<Vec<u8>> {
    let body = format!("grant_type=client_credentials&client_id={client_id}");
    post(TOKEN, FORM, body)
}

fn token_of(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    json["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn psc_takes_one_certificate_for_a_client_id_and_one_client_id_for_a_certificate() {
    let desk = Desk::of(Behaviour::Psc);
    let (first, second) = (profile(OWN, "DUI"), profile(OWN, "DUI"));
    assert_eq!(desk.ask(Some(&first), token_request("one")).0, 200);
    assert_eq!(desk.ask(Some(&first), token_request("one")).0, 200);
    for (shown, client_id) in [(&second, "one"), (&first, "two")] {
        let (status, body) = desk.ask(Some(shown), token_request(client_id));
        assert_eq!(status, 401);
        assert!(body.contains("\"invalid_client\""), "{body}");
    }
    assert_eq!(desk.ask(Some(&second), token_request("two")).0, 200);
}

#[test]
fn psc_binds_tokens_to_the_certificate_for_two_minutes() {
    let mut desk = Desk::of(Behaviour::Psc);
    let (own, other) = (profile(OWN, "DUI"), profile(OWN, "DUI"));
    let (_, body) = desk.ask(Some(&own), token_request("one"));
    assert!(body.contains("\"expires_in\":120"), "{body}");
    let token = token_of(&body);
    let userinfo = |token: &str| {
        let bearer = format!("Bearer {token}");
        get(
            "/auth/realms/x/protocol/openid-connect/userinfo",
            &[("authorization", &bearer)],
        )
    };
    let introspect = || {
        post(
            &format!("{TOKEN}/introspect"),
            FORM,
            format!("token={token}"),
        )
    };
    assert_eq!(desk.ask(Some(&own), userinfo(&token)).0, 200);
    let (status, body) = desk.ask(Some(&own), introspect());
    assert_eq!(status, 200);
    assert!(
        body.contains("x5t#S256") && body.contains("\"active\":true"),
        "{body}"
    );
    for asked in [userinfo(&token), introspect()] {
        let (status, body) = desk.ask(Some(&other), asked);
        assert_eq!(status, 401);
        assert!(body.contains("\"invalid_token\""), "{body}");
    }
    for nonsense in ["", "a", "a.b.c", &token[1..], &format!("{token}A")] {
        assert_eq!(
            desk.ask(Some(&own), userinfo(nonsense)).0,
            401,
            "{nonsense}"
        );
    }
    desk.after = Duration::from_secs(120);
    assert_eq!(desk.ask(Some(&own), userinfo(&token)).0, 401);
}

#[test]
fn the_thumbprint_is_the_certificates_sha_256_in_base64url() {
    // The SHA-256 of nothing, as RFC 4648 section 5 writes it.
    let thumbprint = tokens::thumbprint(crate::identity::profile::Fingerprint::of(b""));
    assert_eq!(thumbprint, "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
}

#[test]
fn a_token_endpoint_says_what_is_wrong_with_a_form() {
    let psc = Desk::of(Behaviour::Psc);
    let own = profile(OWN, "DUI");
    for (content_type, body, error) in [
        (FORM, "", "invalid_request"),
        (FORM, "client_id=a", "invalid_request"),
        (FORM, "grant_type=refresh_token", "invalid_request"),
        (
            FORM,
            "client_id=a&grant_type=password",
            "unsupported_grant_type",
        ),
        (
            FORM,
            "client_id=a&client_id=b&grant_type=refresh_token",
            "invalid_request",
        ),
        (FORM, "%ff%&=&a=%zz", "invalid_request"),
        ("application/json", "{}", "invalid_request"),
    ] {
        let (status, answer) = psc.ask(Some(&own), post(TOKEN, content_type, body));
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(&format!("\"{error}\"")), "{body}: {answer}");
    }
    assert_eq!(psc.ask(Some(&own), get(TOKEN, &[])).0, 405);
    assert_eq!(psc.ask(Some(&own), get("/elsewhere", &[])).0, 404);
}

#[test]
fn ror_knows_subjects_and_its_fhir_interface_knows_tokens() {
    let own = profile(OWN, "DUI");
    let mut desk = Desk::of(Behaviour::Ror);
    let (status, body) = desk.ask(Some(&own), token_request("one"));
    assert_eq!(status, 401);
    assert!(body.contains("\"invalid_client\""), "{body}");
    desk.register.subjects.insert(own.subject.to_string());
    // A renewal has another key and the same subject.
    let renewed = profile(OWN, "DUI");
    assert_eq!(desk.ask(Some(&renewed), token_request("one")).0, 200);
    let (_, body) = desk.ask(Some(&own), token_request("one"));
    let bearer = format!("Bearer {}", token_of(&body));

    desk.rules = Rules::of(Behaviour::RorFhir).unwrap();
    let mut fields = vec![
        ("authorization", &*bearer),
        ("ror-profil-utilisateur-code", "10"),
        (
            "ror-profil-utilisateur-system",
            "https://mos.esante.gouv.fr/x",
        ),
        ("ror-role-metier-code", "10"),
        ("ror-role-metier-system", "https://mos.esante.gouv.fr/y"),
    ];
    let (status, body) = desk.ask(None, get("/Organization?_count=1", &fields));
    assert_eq!(status, 200);
    assert!(
        body.contains("\"Bundle\"") && body.contains("_count=1"),
        "{body}"
    );
    assert_eq!(desk.ask(Some(&own), get("/Organization", &fields)).0, 400);
    for missing in 1..fields.len() {
        let mut fields = fields.clone();
        let (name, _) = fields.remove(missing);
        let (status, body) = desk.ask(None, get("/Organization", &fields));
        assert_eq!(status, 400, "{name}");
        assert!(
            body.contains(name) && body.contains("OperationOutcome"),
            "{body}"
        );
    }
    for token in ["", "Bearer", "Bearer x", "Basic x"] {
        fields[0].1 = token;
        let (status, body) = desk.ask(None, get("/Organization", &fields));
        assert_eq!(status, 401, "{token}");
        assert!(body.contains("OperationOutcome"), "{body}");
    }
}

#[test]
fn a_token_of_one_service_is_none_of_another() {
    let own = profile(OWN, "DUI");
    let mut desk = Desk::of(Behaviour::Psc);
    let (_, body) = desk.ask(Some(&own), token_request("one"));
    let bearer = format!("Bearer {}", token_of(&body));
    desk.rules = Rules::of(Behaviour::RorFhir).unwrap();
    let asked = get("/Organization", &[("authorization", &bearer)]);
    assert_eq!(desk.ask(None, asked).0, 401);
}

#[test]
fn annuaire_wants_its_key_and_no_certificate() {
    let desk = Desk::of(Behaviour::Annuaire);
    let asked = || {
        get(
            "/fhir/v2/Practitioner",
            &[("esante-api-key", ANNUAIRE_API_KEY)],
        )
    };
    assert_eq!(desk.ask(None, asked()).0, 200);
    assert_eq!(desk.ask(Some(&profile(OWN, "DUI")), asked()).0, 400);
    for fields in [&[][..], &[("esante-api-key", "another")]] {
        let (status, body) = desk.ask(None, get("/fhir/v2/Practitioner", fields));
        assert_eq!(status, 401);
        assert!(body.contains("OperationOutcome"), "{body}");
    }
}

#[test]
fn annuaire_takes_17_requests_a_second() {
    let mut desk = Desk::of(Behaviour::Annuaire);
    let asked = || {
        get(
            "/fhir/v2/Practitioner",
            &[("esante-api-key", ANNUAIRE_API_KEY)],
        )
    };
    let granted = |desk: &Desk| (0..40).filter(|_| desk.ask(None, asked()).0 == 200).count();
    assert_eq!(granted(&desk), 17);
    let refused = desk.answer(None, asked());
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    desk.after = Duration::from_millis(500);
    assert_eq!(granted(&desk), 8);
    desk.after = Duration::from_secs(3600);
    assert_eq!(granted(&desk), 17);
}
