//! Services that speak SOAP.

use super::*;

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
