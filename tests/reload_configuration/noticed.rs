//! Changes that are noticed without having been asked for, and the log.

use super::*;

#[tokio::test]
async fn a_changed_configuration_or_trust_file_is_noticed_by_itself_until_it_says_otherwise() {
    let mut section = String::new();
    let gateway = start_with(2, &[DMP, ROC], |text| section = cut(text, "roc"));
    let tenant = gateway.tenant(0);
    let until = async |what: &str, service: &str, expected: Result<(), &str>| {
        let until = Instant::now() + support::DEADLINE;
        loop {
            let outcome = outcome(&gateway, tenant, service).await;
            if outcome.as_ref().map(|_| ()).map_err(|code| &**code) == expected {
                break;
            }
            assert!(Instant::now() < until, "{what}: {outcome:?}");
        }
    };
    edit(&gateway, |text| text.push_str(&section));
    until("a service has come", "roc", Ok(())).await;
    let trust = gateway.path().join(TRUST);
    let good = fs::read(&trust).unwrap();
    put(&trust, Pki::new(Environment::Test).authority_pem());
    until("a trust file has changed", "roc", Err("upstream_untrusted")).await;
    put(&trust, &good);
    until("it is back", "roc", Ok(())).await;

    // What is watched is what the file names now.
    fs::create_dir(gateway.path().join("elsewhere")).unwrap();
    let moved = gateway.path().join("elsewhere/trust.pem");
    put(&moved, &good);
    edit(&gateway, |text| {
        *text = text.replace(TRUST, "trust/../elsewhere/trust.pem");
        with(text, "roc", "retry = \"never\"");
    });
    until("another file is named", "roc", Ok(())).await;
    let named = || {
        gateway.app.gateway.table.load().services()[1]
            .service
            .trust
            .clone()
    };
    let is_named = |path: &Path| matches!(named(), relais::services::Trust::File(file) if file.ends_with(path));
    eventually("it is", || is_named(Path::new("elsewhere/trust.pem"))).await;
    put(&moved, Pki::new(Environment::Test).authority_pem());
    until("it has changed", "roc", Err("upstream_untrusted")).await;
    put(&moved, &good);
    until("and changed back", "roc", Ok(())).await;

    edit(&gateway, manual);
    let count = || gateway.metric("relais_reload_total", &["outcome=\"success\""]);
    let loads = count();
    edit(&gateway, |text| drop(cut(text, "roc")));
    // Either it is noticed together with the word that it is to be noticed no more, or when somebody asks.
    reload(&gateway).await;
    until("asked for", "roc", Err("service_unknown")).await;
    assert!(count() > loads);
    edit(&gateway, |text| {
        *text = text.replace("reload = \"manual\"\n", "")
    });
    reload(&gateway).await;
    edit(&gateway, |text| text.push_str(&section));
    until("watched again", "roc", Ok(())).await;
}

#[tokio::test]
async fn a_folder_that_is_put_in_the_place_of_another_is_watched_too() {
    let (gateway, ()) = start_on(1, &[DMP], |site, _| {
        fs::rename(site.directory.join("certs"), site.directory.join("first")).unwrap();
        std::os::unix::fs::symlink("first", site.directory.join("certs")).unwrap();
    });
    let tenant = gateway.tenant(0);
    let now = jiff::Timestamp::now().as_second();
    let ou = format!("1{tenant}");
    let issue = |cn: &str, ago: i64| {
        let order = pki::Request {
            not_before: Some(now - ago),
            ..pki::Request::new(&ou, cn)
        };
        gateway.site.pki.issue(&order).pem()
    };
    let shows = async |expected: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        while outcome(&gateway, tenant, "dmp").await.as_deref() != Ok(expected) {
            assert!(Instant::now() < until, "{expected} is not shown");
        }
    };
    let folder = |name: &str| -> PathBuf {
        let path = gateway.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    shows("Logiciel de demonstration").await;
    put(&folder("second").join("dmp.pem"), issue("Deuxieme", 100));
    std::os::unix::fs::symlink("second", gateway.path().join("link")).unwrap();
    fs::rename(gateway.path().join("link"), gateway.path().join("certs")).unwrap();
    shows("Deuxieme").await;
    put(
        &gateway.path().join("second/more.pem"),
        issue("Troisieme", 90),
    );
    shows("Troisieme").await;
    // Removed and made again: file systems give its number to the next.
    fs::remove_file(gateway.path().join("certs")).unwrap();
    let real = folder("certs");
    put(&real.join("dmp.pem"), issue("Quatrieme", 80));
    shows("Quatrieme").await;
    for (cn, ago) in [("Cinquieme", 70), ("Sixieme", 60)] {
        fs::remove_dir_all(&real).unwrap();
        fs::create_dir(&real).unwrap();
        put(&real.join("dmp.pem"), issue(cn, ago));
        shows(cn).await;
    }
}

/// A gateway in a process of its own, which ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_level_of_the_log_is_that_of_the_file_as_soon_as_sighup_has_it_read() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::build(directory.path(), 1, &[DMP], Ports::default()).unwrap();
    let mut text = fs::read_to_string(&site.configuration).unwrap();
    manual(&mut text);
    text = text.replace("[log]", "[log]\nlevel = \"warn\"");
    fs::write(&site.configuration, &text).unwrap();
    put(
        &site.directory.join("certs/bad.pem"),
        "-----BEGIN CERTIFICATE-----\n",
    );
    let log = directory.path().join("stderr");
    let gateway = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["serve", "--config"])
        .arg(&site.configuration)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let gateway = Running(gateway.unwrap());
    let says = |what: &str| {
        let until = Instant::now() + support::DEADLINE;
        loop {
            let said = fs::read_to_string(&log).unwrap();
            if said.contains(what) {
                return said;
            }
            assert!(Instant::now() < until, "{what}: {said}");
            std::thread::yield_now();
        }
    };
    let said = says("bad.pem");
    assert!(!said.contains("INFO"), "{said}");
    put(&site.configuration, text.replace("\"warn\"", "\"info\""));
    let pid = gateway.0.id().to_string();
    let hup = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(hup.success());
    says("configuration taken up");
}
