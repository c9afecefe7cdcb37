//! Services that speak JSON.

use super::*;

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
