//! What Relais knows of structures and services, as an application notices it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use http::Request;
use relais::identity::finess::Finess;
use relais::services::WantedCertificate;
use relais::simulator::pki::Request as Order;
use relais::simulator::site::{Site, Stand, sample_finess};
use support::upstream::{Connection, Tls};
use support::{TestGateway, in_front_of, start, start_on, start_with};

const DMP: Stand = Stand::new("dmp");

const ANNUAIRE: Stand = Stand {
    certificate: WantedCertificate::None,
    ..Stand::new("annuaire")
};

/// A site of the first tenant that has no certificate.
fn a_site() -> Finess {
    sample_finess(500)
}

/// Writes a table in which `a_site` belongs to the first tenant, in that sector.
fn with_table(sector: &'static str) -> TestGateway {
    let edit = |site: &Site, _: &mut String| {
        let lines = format!(
            "finess;legal_entity;name;sector\n{};{};Site fictif;{sector}\n",
            a_site(),
            site.tenants[0]
        );
        std::fs::write(site.directory.join("tenants.csv"), lines).unwrap();
    };
    start_on(2, &[DMP], edit).0
}

#[tokio::test]
async fn a_site_without_certificate_is_served_under_its_legal_entitys() {
    let gateway = with_table("hospital");
    let seen = gateway.get(a_site(), "/dmp/x").await.seen();
    assert_eq!(seen.ou, Some(format!("1{}", gateway.tenant(0))));
    let identity = gateway.get(a_site(), "/-/identity/dmp").await;
    let told: serde_json::Value = serde_json::from_slice(identity.0.body()).unwrap();
    assert_eq!(told["ou"], format!("1{}", gateway.tenant(0)));
    assert_eq!(told["tenant"], a_site().as_str());
}

#[tokio::test]
async fn a_pharmacy_without_certificate_is_refused_with_the_rule_that_says_so() {
    let gateway = with_table("officine");
    let answer = gateway.get(a_site(), "/dmp/x").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (403, "certificate_refused_by_rule")
    );
    let text = String::from_utf8_lossy(answer.0.body()).into_owned();
    assert!(
        text.contains("order a certificate with the site's own FINESS number"),
        "{text}"
    );
}

#[tokio::test]
async fn a_pinned_certificate_is_used_and_a_foreign_one_is_not() {
    let edit = |site: &Site, text: &mut String| {
        let (own, foreign) = (site.tenants[0], site.tenants[1]);
        let ou = format!("1{own}");
        // Older than the one that would be chosen.
        let issued = site.pki.issue(&Order {
            not_before: Some(1_750_000_000),
            ..Order::new(&ou, "Ancien logiciel")
        });
        let path = site.directory.join("certs/pinned.pem");
        relais::simulator::pki::write_private(&path, issued.pem()).unwrap();
        text.push_str(&format!(
            "\n[[bindings]]\ntenant = \"{own}\"\nservice = \"dmp\"\ncommon_name = \"Ancien logiciel\"\n\
             \n[[bindings]]\ntenant = \"{foreign}\"\nservice = \"dmp\"\nfile = \"certs/pinned.pem\"\n"
        ));
    };
    let (gateway, ()) = start_on(2, &[DMP], edit);
    let seen = gateway.get(gateway.tenant(0), "/dmp/x").await.seen();
    assert_eq!(seen.cn.as_deref(), Some("Ancien logiciel"));
    let refused = gateway.get(gateway.tenant(1), "/dmp/x").await;
    assert_eq!(refused.code(), "certificate_refused_by_rule");
}

#[tokio::test]
async fn an_application_learns_what_its_certificate_says() {
    let gateway = start(1, &[DMP, ANNUAIRE], "");
    let tenant = gateway.tenant(0);
    let seen = gateway.get(tenant, "/dmp/x").await.seen();
    let answer = gateway.get(tenant, "/-/identity/dmp").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let told: serde_json::Value = serde_json::from_slice(answer.0.body()).unwrap();
    for (field, expected) in [
        ("ou", seen.ou),
        ("cn", seen.cn),
        ("subject", seen.subject),
        ("sha256", seen.sha256),
    ] {
        assert_eq!(told[field].as_str(), expected.as_deref(), "{field}");
    }
    for field in ["serial", "not_before", "not_after", "issuer", "o"] {
        assert!(told[field].is_string(), "{field}: {told}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_of_a_certificate_is_a_clear_refusal() {
    let gateway = start(1, &[DMP, ANNUAIRE], "");
    let tenant = gateway.tenant(0);
    let cases = [
        ("/-/identity/annuaire", 404, "certificate_missing"),
        ("/-/identity/ror", 404, "service_unknown"),
        ("/-/else", 404, "service_unknown"),
        ("/-/identity/", 404, "service_unknown"),
    ];
    for (path, status, code) in cases {
        let answer = gateway.get(tenant, path).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (status, code),
            "{path}"
        );
    }
    let nobody = Request::get("/-/identity/dmp").body(Bytes::new()).unwrap();
    assert_eq!(gateway.send(nobody).await.code(), "tenant_missing");
    let post = Request::post(format!("/@{tenant}/-/identity/dmp"))
        .body(Bytes::new())
        .unwrap();
    let refused = gateway.send(post).await;
    assert_eq!(
        (refused.status(), refused.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

#[tokio::test]
async fn a_services_secret_field_replaces_the_applications_and_is_never_shown() {
    let edit = |site: &Site, text: &mut String| {
        let path = site.directory.join("annuaire.key");
        std::fs::write(&path, "the-key-of-the-site\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        text.push_str(
            "\n[services.annuaire.headers]\nESANTE-API-KEY = { file = \"annuaire.key\" }\n",
        );
    };
    let (gateway, ()) = start_on(1, &[ANNUAIRE], edit);
    let request = Request::get("/annuaire/Practitioner")
        .header("esante-api-key", "the-applications-own")
        .body(Bytes::new())
        .unwrap();
    let seen = gateway.send(request).await.seen();
    let keys: Vec<_> = (seen.headers.iter())
        .filter(|(name, _)| name == "esante-api-key")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(keys, ["the-key-of-the-site"]);
    let services = gateway.admin("/api/v1/services").await;
    let debug = format!("{:?}", gateway.app.gateway.table.load().services());
    for text in [
        String::from_utf8_lossy(services.0.body()).into_owned(),
        debug,
    ] {
        assert!(!text.contains("the-key-of-the-site"), "{text}");
    }
}

#[tokio::test]
async fn requests_beyond_a_services_rate_are_refused_and_not_sent() {
    let gateway = start_with(1, &[ANNUAIRE], |text| {
        *text = text.replace("[services.annuaire]", "[services.annuaire]\nrate = 5");
    });
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = gateway.connect().await;
        answers.spawn(async move {
            let request = Request::get("/annuaire/x").body(Bytes::new()).unwrap();
            client.send(request).await
        });
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap();
        match answer.status() {
            200 => served += 1,
            _ => {
                assert_eq!(answer.code(), "overloaded");
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
        }
    }
    // One at once, and five a second for the second that each is willing to wait.
    assert!(
        (1..=7).contains(&served),
        "{served} served, {refused} refused"
    );
}

/// Answers each request with an INSi fault, its code cut in two.
async fn fault(mut connection: Connection, _: usize) {
    while connection.head().await.is_some() {
        let body = [
            "<soap:Fault><soap:Code>siram:DESIR_",
            "560</soap:Code></soap:Fault>",
        ];
        let length: usize = body.iter().map(|piece| piece.len()).sum();
        let head = format!(
            "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/soap+xml\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write(&head).await;
        for piece in body {
            connection.write(piece).await;
        }
    }
}

#[tokio::test]
async fn a_fault_that_tells_of_the_certificate_passes_untouched_and_is_told_to_the_operator() {
    let (gateway, _upstream) = in_front_of(&Tls::default(), "", fault);
    for _ in 0..2 {
        let answer = gateway.get(gateway.tenant(0), "/up/lps").await;
        assert_eq!(answer.status(), 500);
        assert_eq!(
            &answer.0.body()[..],
            b"<soap:Fault><soap:Code>siram:DESIR_560</soap:Code></soap:Fault>"
        );
    }
    let labels = ["service=\"up\"", "problem=\"desir_560\""];
    let counted = gateway.metric("relais_upstream_certificate_problems_total", &labels);
    assert_eq!(counted, 2.0);
    let status = gateway.admin("/api/v1/status").await;
    let status: serde_json::Value = serde_json::from_slice(status.0.body()).unwrap();
    let problem = &status["certificate_problems"][0];
    assert_eq!(problem["problem"], "desir_560");
    assert_eq!(problem["count"], 2);
    assert_eq!(problem["tenant"], gateway.tenant(0).as_str());
}
