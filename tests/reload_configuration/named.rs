//! What a configuration names: trust files, folders, tables and revocation lists.

use super::*;

#[tokio::test]
async fn an_authority_that_a_trust_file_drops_is_not_believed_from_the_next_request_on() {
    let gateway = start(&[DMP, ROC]);
    let trust = gateway.path().join(TRUST);
    let own = gateway.path().join("trust/roc.pem");
    let good = fs::read(&trust).unwrap();
    fs::write(&own, &good).unwrap();
    edit(&gateway, |text| {
        let mut section = cut(text, "roc");
        section = section.replace(TRUST, "trust/roc.pem");
        text.push_str(&format!("\n{section}"));
    });
    reload(&gateway).await;
    works(&gateway, "dmp").await;
    works(&gateway, "roc").await;
    let before = handshakes(&gateway, 0);

    for half in [&good[..good.len() / 2], &good[..40], b"", b"bonjour"] {
        put(&own, half);
        let report = reload(&gateway).await;
        assert!(!report.changed, "{report:?}");
        assert!(
            report.problems[0].file.ends_with("trust/roc.pem"),
            "{report:?}"
        );
        assert_eq!(report.problems.len(), 1, "{report:?}");
        works(&gateway, "roc").await;
    }
    fs::remove_file(&own).unwrap();
    assert!(!reload(&gateway).await.problems.is_empty());
    works(&gateway, "roc").await;

    put(&own, Pki::new(Environment::Test).authority_pem());
    let report = reload(&gateway).await;
    assert!(
        report.changed && report.configuration.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.trust, [own.display().to_string()]);
    // Connections that were opened under the other authority lay idle; none of them is used.
    let tenant = gateway.tenant(0);
    assert_eq!(
        outcome(&gateway, tenant, "roc").await,
        refused("upstream_untrusted")
    );
    works(&gateway, "dmp").await;
    assert_eq!(
        handshakes(&gateway, 0),
        before,
        "others keep their connections"
    );
    put(&own, good);
    reload(&gateway).await;
    works(&gateway, "roc").await;
}

#[tokio::test]
async fn a_folder_a_table_and_a_binding_that_are_named_anew_take_the_place_of_the_ones_before() {
    let gateway = start(&[DMP]);
    let (tenant, site) = (gateway.tenant(0), sample_finess(71));
    let ou = format!("1{tenant}");
    let now = jiff::Timestamp::now().as_second();
    let issue = |cn: &str, ago: i64| {
        let order = pki::Request {
            not_before: Some(now - ago),
            ..pki::Request::new(&ou, cn)
        };
        gateway.site.pki.issue(&order).pem()
    };
    fs::create_dir(gateway.path().join("other")).unwrap();
    put(&gateway.path().join("other/new.pem"), issue("Nouveau", 10));
    put(&gateway.path().join("other/old.pem"), issue("Ancien", 1000));
    let table = format!("finess,legal_entity,name,sector\n{site},{tenant},SITE,hospital\n");
    put(&gateway.path().join("other.csv"), table);
    assert_eq!(
        outcome(&gateway, site, "dmp").await,
        refused("tenant_unknown")
    );
    edit(&gateway, |text| {
        *text = text
            .replace(FOLDER, "directory = \"other\"")
            .replace("tenants.csv", "other.csv");
    });
    let report = reload(&gateway).await;
    assert_eq!(report.configuration, ["identities", "tenants"]);
    assert_eq!((report.added.len(), report.removed.len()), (2, 2));
    assert!(
        report.kept.is_empty(),
        "the old folder is nobody's any more: {report:?}"
    );
    for structure in [tenant, site] {
        assert_eq!(
            outcome(&gateway, structure, "dmp").await.as_deref(),
            Ok("Nouveau")
        );
    }
    assert_eq!(
        outcome(&gateway, gateway.tenant(1), "dmp").await,
        refused("tenant_unknown")
    );
    edit(&gateway, |text| {
        text.push_str(&format!(
            "\n[[bindings]]\nservice = \"dmp\"\ntenant = \"{tenant}\"\nfile = \"other/old.pem\"\n"
        ));
    });
    assert_eq!(reload(&gateway).await.configuration, ["bindings"]);
    assert_eq!(
        outcome(&gateway, tenant, "dmp").await.as_deref(),
        Ok("Ancien")
    );

    // A table with errors leaves the structures as they were, and the rest of the same file is taken up.
    put(
        &gateway.path().join("bad.csv"),
        "finess,legal_entity\n0B0,x\n",
    );
    edit(&gateway, |text| {
        let at = text.find("\n[[bindings]]").unwrap();
        text.truncate(at);
        *text = text.replace("other.csv", "bad.csv");
    });
    for _ in 0..2 {
        let report = reload(&gateway).await;
        assert!(report.problems[0].file.contains("bad.csv"), "{report:?}");
        assert_eq!(
            outcome(&gateway, site, "dmp").await.as_deref(),
            Ok("Nouveau")
        );
    }
}

#[tokio::test]
async fn a_structure_that_the_configuration_itself_names_comes_and_goes_with_it() {
    const FILE: &str = "[tenants]\nfile = \"tenants.csv\"\n";
    let gateway = start_with(1, &[DMP], |text| {
        manual(text);
        *text = text.replace(FILE, "");
    });
    let (tenant, site) = (gateway.tenant(0), sample_finess(71));
    let entry = format!("\n[[tenants]]\nfiness = \"{site}\"\nlegal_entity = \"{tenant}\"\n");
    for _ in 0..2 {
        assert!(outcome(&gateway, site, "dmp").await.is_err());
        edit(&gateway, |text| text.push_str(&entry));
        assert_eq!(reload(&gateway).await.configuration, ["tenants"]);
        assert!(outcome(&gateway, site, "dmp").await.is_ok());
        edit(&gateway, |text| *text = text.replace(&entry, ""));
        reload(&gateway).await;
    }
}

#[tokio::test]
async fn a_key_that_may_be_read_by_fewer_is_looked_at_again() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let gateway = start_with(1, &[DMP], |text| {
        manual(text);
        *text = text.replace(FOLDER, &format!("{FOLDER}\nkey_readers = \"group\""));
    });
    let tenant = gateway.tenant(0);
    let key = gateway
        .path()
        .join("certs")
        .join(tenant.as_str())
        .join("auth_cli.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    // A file that has been at rest for a while is not decoded again.
    let changed = fs::metadata(&key).unwrap().ctime();
    eventually("it is at rest", || {
        jiff::Timestamp::now().as_second() > changed + 3
    })
    .await;
    assert!(reload(&gateway).await.problems.is_empty());
    edit(&gateway, |text| {
        *text = text.replace("key_readers = \"group\"\n", "")
    });
    let report = reload(&gateway).await;
    assert!(
        report.problems[0].file.ends_with("auth_cli.pem"),
        "{report:?}"
    );
}

fn list(pki: &Pki, serials: &[&[u8]]) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_second();
    pki.revoke(serials, now - 60, now + 3600).der().to_vec()
}

#[tokio::test]
async fn a_revocation_list_that_comes_refuses_at_once_and_one_that_is_replaced_does_not_any_more() {
    let gateway = start(&[DMP]);
    let tenant = gateway.tenant(0);
    works(&gateway, "dmp").await;
    let leaf = gateway.app.gateway.table.load().generations()[0]
        .identity()
        .profile
        .clone();
    let bytes: Vec<u8> = (0..leaf.serial.len() / 2)
        .map(|at| u8::from_str_radix(&leaf.serial[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let one = gateway.path().join("one.crl");
    fs::write(&one, list(&gateway.site.pki, &[&[1]])).unwrap();
    fs::write(
        gateway.path().join("two.crl"),
        list(&gateway.site.pki, &[&bytes]),
    )
    .unwrap();
    edit(&gateway, |text| {
        text.push_str("\n[revocation]\ncrls = [\"one.crl\"]\n")
    });
    assert_eq!(reload(&gateway).await.configuration, ["revocation"]);
    works(&gateway, "dmp").await;
    let looks = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        gateway.metric("relais_crl_refresh_total", &["one.crl", &outcome])
    };
    edit(&gateway, |text| {
        *text = text.replace("[\"one.crl\"]", "[\"two.crl\", \"one.crl\"]")
    });
    assert_eq!(reload(&gateway).await.configuration, ["revocation"]);
    assert_eq!(
        outcome(&gateway, tenant, "dmp").await,
        refused("certificate_revoked")
    );
    let sources = || {
        let revocations = gateway.app.revocations.load();
        let names = revocations
            .lists()
            .iter()
            .map(|list| list.source.rsplit('/').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(sources(), ["two.crl", "one.crl"]);
    // Without it more would be let through, which half of a file must not bring about.
    edit(&gateway, |text| {
        *text = text.replace("[\"two.crl\", \"one.crl\"]", "[\"one.crl\"]")
    });
    assert_eq!(reload(&gateway).await.restart[0].key, "revocation.crls");
    assert_eq!(sources(), ["two.crl", "one.crl"]);
    fs::copy(&one, gateway.path().join("new.crl")).unwrap();
    edit(&gateway, |text| {
        *text = text.replace("[\"one.crl\"]", "[\"one.crl\", \"new.crl\"]")
    });
    assert!(reload(&gateway).await.restart.is_empty());
    works(&gateway, "dmp").await;
    assert_eq!(sources(), ["one.crl", "new.crl"]);
    assert_eq!(looks("failure"), 0.0);
}

#[tokio::test]
async fn a_revocation_list_is_taken_as_soon_as_its_authority_is_known() {
    let other = Pki::new(Environment::Production);
    let (gateway, ()) = start_on(1, &[DMP], |site, text| {
        manual(text);
        fs::write(site.directory.join("other.crl"), list(&other, &[&[1]])).unwrap();
        text.push_str("\n[revocation]\ncrls = [\"other.crl\"]\n");
    });
    let problem = || {
        let revocations = gateway.app.revocations.load();
        let list = &revocations.lists()[0];
        (
            list.crl.is_some(),
            list.problem.as_ref().map(|problem| problem.code()),
        )
    };
    assert_eq!(problem(), (false, Some("unknown_issuer")));
    assert!(!reload(&gateway).await.changed);
    let trust = gateway.path().join(TRUST);
    let both = fs::read_to_string(&trust).unwrap() + &other.authority_pem();
    put(&trust, both);
    assert!(reload(&gateway).await.changed);
    eventually("it is in use", || problem() == (true, None)).await;
}
