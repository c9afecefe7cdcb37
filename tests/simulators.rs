//! The services' rules through the gateway: what they grant, and what they refuse in their own words.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use bytes::Bytes;
use http::Request;
use relais::simulator::requests;
use relais::simulator::services::{ANNUAIRE_API_KEY, SOFTWARE_NUMBER};
use relais::simulator::site::{DEMONSTRATION, Site, Stand, sample_finess};
use support::{Answered, TestGateway, start, start_on};

/// The demonstration's services of these names.
fn services(names: &[&str]) -> Vec<Stand> {
    (DEMONSTRATION.into_iter())
        .filter(|stand| names.contains(&stand.name))
        .collect()
}

fn body(answer: &Answered) -> String {
    String::from_utf8(answer.0.body().to_vec()).unwrap()
}

fn json(answer: &Answered) -> serde_json::Value {
    serde_json::from_slice(answer.0.body()).unwrap()
}

/// Declares a further service at the address of a simulator.
fn declare(site: &Site, name: &str, of: &str, lines: &str) -> String {
    let (_, simulator) = (site.simulators.iter())
        .find(|(stand, _)| stand.name == of)
        .unwrap();
    format!(
        "\n[services.{name}]\nurl = \"https://localhost:{}\"\naddress = \"{}\"\ntrust = \"trust/igc-sante-test.pem\"\n{lines}\n",
        simulator.address.port(),
        simulator.address
    )
}

async fn granted(gateway: &TestGateway, request: Request<Bytes>) -> serde_json::Value {
    let answer = gateway.send(request).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    json(&answer)
}

#[tokio::test]
async fn each_service_grants_a_right_request_under_the_right_certificate() {
    let gateway = start(2, &DEMONSTRATION, "");
    for index in [0, 1, 0] {
        let tenant = gateway.tenant(index);
        let mut token = None;
        for (stand, _) in &gateway.site.simulators {
            let request = requests::right(tenant, stand.name, token.as_deref());
            let answer = gateway.send(request).await;
            assert_eq!(answer.status(), 200, "{}: {answer:?}", stand.name);
            let shown = stand.certificate != relais::services::WantedCertificate::None;
            let unit = shown.then(|| format!("1{tenant}"));
            assert_eq!(
                answer.header("x-client-ou"),
                unit.as_deref(),
                "{}",
                stand.name
            );
            if stand.name == "ror" {
                token = json(&answer)["access_token"].as_str().map(str::to_owned);
            }
        }
    }
}

#[tokio::test]
async fn a_fault_of_dmp_arrives_as_it_was_sent() {
    let gateway = start(2, &services(&["dmp"]), "");
    let (tenant, other) = (gateway.tenant(0), gateway.tenant(1));
    let answer = gateway.send(requests::dmp(tenant, other)).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(
        answer.header("content-type"),
        Some("application/soap+xml; charset=utf-8")
    );
    assert!(body(&answer).contains("S:structure_incoherente"));

    let message = format!(
        "--b\r\ncontent-type: application/xop+xml\r\n\r\n{}\r\n--b--\r\n",
        requests::dmp_message(other)
    );
    let mtom = "multipart/related; type=\"application/xop+xml\"; boundary=b";
    let mut request = requests::soap(tenant, "/dmp/v2/services/repository", message);
    request
        .headers_mut()
        .insert("content-type", mtom.parse().unwrap());
    let answer = gateway.send(request).await;
    assert_eq!(answer.status(), 500);
    let content_type = answer.header("content-type").unwrap();
    assert!(
        content_type.starts_with("multipart/related; type=\"application/xop+xml\""),
        "{content_type}"
    );
    assert!(body(&answer).starts_with("--relais-simulator\r\n"));
}

#[tokio::test]
async fn a_site_of_the_same_legal_entity_is_coherent_with_its_certificate() {
    let gateway = start(1, &services(&["dmp"]), "");
    let (tenant, site) = (gateway.tenant(0), gateway.site.establishment);
    let answer = gateway.send(requests::dmp(tenant, site)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let table = std::fs::read_to_string(gateway.path().join("tenants.csv")).unwrap();
    assert!(table.starts_with("finess,legal_entity,name,sector\n"));
    assert!(table.contains(&format!("{site},{tenant},")), "{table}");
}

#[tokio::test]
async fn dmp_speaks_tls_1_2_alone() {
    let (gateway, ()) = start_on(1, &services(&["dmp"]), |site, text| {
        text.push_str(&declare(site, "dmp-13", "dmp", "tls = \"1.3\""));
    });
    let answer = gateway.get(gateway.tenant(0), "/dmp-13/x").await;
    assert_eq!(answer.code(), "upstream_protocol_error");
}

#[tokio::test]
async fn a_certificate_that_is_not_for_the_service_is_refused_in_the_services_words() {
    let (gateway, ()) = start_on(
        1,
        &services(&["dmp", "insi-auto", "mssante"]),
        |site, text| {
            let insi = declare(
                site,
                "insi-x",
                "insi-auto",
                "certificate = \"org-auth-cli\"",
            );
            let mssante = declare(site, "mssante-x", "mssante", "certificate = \"insi-auto\"");
            text.push_str(&insi);
            text.push_str(&mssante);
        },
    );
    let tenant = gateway.tenant(0);
    let answer = (gateway.send(requests::insi(tenant, "insi-x", SOFTWARE_NUMBER))).await;
    assert_eq!(answer.status(), 500);
    assert!(body(&answer).contains("code=\"desir_560\""), "{answer:?}");
    let answer = gateway.get(tenant, "/mssante-x/x").await;
    assert_eq!(answer.status(), 200);
    assert!(
        body(&answer).contains("Client certificat inconnu"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_token_of_pro_sante_connect_is_good_with_one_certificate() {
    let gateway = start(2, &services(&["psc"]), "");
    let (tenant, other) = (gateway.tenant(0), gateway.tenant(1));
    let token = granted(&gateway, requests::token(tenant, "psc", "mine")).await;
    let token = token["access_token"].as_str().unwrap();
    let userinfo = |tenant| {
        let mut request = requests::get(tenant, "/psc/protocol/openid-connect/userinfo");
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        request
    };
    assert!(granted(&gateway, userinfo(tenant)).await["sub"].is_string());
    let answer = gateway.send(userinfo(other)).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(json(&answer)["error"], "invalid_token");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    let answer = gateway.send(requests::token(other, "psc", "mine")).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(json(&answer)["error"], "invalid_client");
}

#[tokio::test]
async fn what_is_over_annuaires_rate_is_told_when_to_come_back() {
    // Under a name of its own, for which the gateway knows no rate.
    let (gateway, ()) = start_on(1, &services(&["annuaire"]), |site, text| {
        let wanted = "certificate = \"none\"";
        text.push_str(&declare(site, "annuaire-nu", "annuaire", wanted));
    });
    let tenant = gateway.tenant(0);
    let mut client = gateway.connect().await;
    let mut refused = None;
    // Far more than a second's worth: they are refused once they come faster than they may.
    for _ in 0..1000 {
        let request = requests::annuaire(tenant, "annuaire-nu", Some(ANNUAIRE_API_KEY));
        let answer = client.send(request).await;
        if answer.status() != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(json(&refused)["resourceType"], "OperationOutcome");
    assert_eq!(refused.header("x-client-sha256"), None);
}

#[tokio::test]
async fn a_simulator_tells_what_it_saw_once() {
    let gateway = start(1, &services(&["dmp"]), "");
    let tenant = gateway.tenant(0);
    let (_, dmp) = &gateway.site.simulators[0];
    assert!(dmp.take_seen().is_none());
    gateway.send(requests::dmp(tenant, sample_finess(7))).await;
    let seen = dmp.take_seen().unwrap();
    assert_eq!(seen.ou, Some(format!("1{tenant}")));
    assert_eq!(seen.path, "/v2/services/repository");
    assert!(seen.headers.iter().all(|(name, _)| name != "x-finess"));
    assert!(dmp.take_seen().is_none());
}
