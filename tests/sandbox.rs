//! A gateway that the kernel keeps to its files (Landlock) does all that another does, and says how far it is kept.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use support::process::{Gateway, Place, connect, exchange, until};

/// Whether this kernel does Landlock, as the gateway itself says in its log.
fn is_sandboxed(place: &Place, name: &str) -> bool {
    let said = || fs::read_to_string(place.log(name)).unwrap();
    until("it says what became of the sandbox", || {
        said().contains("sandbox")
    });
    !said().contains("this kernel has no Landlock")
}

fn sandboxed(place: &Place, name: &str, more: &[&str]) -> Gateway {
    let mut command = place.serve(name, more);
    let gateway = Gateway(
        command
            .env("RELAIS__PROCESS__SANDBOX", "true")
            .spawn()
            .unwrap(),
    );
    gateway.can_be_taken_over();
    gateway
}

fn relais(place: &Place, command: &str) -> String {
    let mut relais = Command::new(env!("CARGO_BIN_EXE_relais"));
    relais
        .args([command, "--config"])
        .arg(&place.site.configuration);
    let output = relais.output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Puts lines before a section of the configuration.
fn configure(place: &Place, section: &str, lines: &str) {
    let text = fs::read_to_string(&place.site.configuration).unwrap();
    assert!(text.contains(section), "{text}");
    let text = text.replacen(section, &format!("{lines}\n{section}"), 1);
    fs::write(&place.site.configuration, text).unwrap();
}

#[test]
fn a_sandboxed_gateway_serves_reloads_rotates_and_is_taken_over() {
    let place = Place::new();
    let mut gateway = sandboxed(&place, "first", &[]);
    let enforced = is_sandboxed(&place, "first");
    let status = relais(&place, "status");
    let expected = if enforced {
        "sandbox  enforced"
    } else {
        "sandbox  not enforced"
    };
    // An older kernel may know less than all.
    assert!(
        status.contains(expected) || status.contains("partly"),
        "{status}"
    );
    let ask = || exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    ask();

    // The certificate, in a folder that was not there before.
    let certs = place.site.directory.join("certs");
    let tenant = certs.join(place.site.tenants[0].as_str());
    fs::rename(tenant, certs.join("later")).unwrap();
    until("what was moved is in use", || {
        let said = relais(&place, "reload");
        said.contains("nothing has changed") && !said.contains("error")
    });
    ask();

    let log = place.site.directory.join("access.log");
    fs::rename(&log, log.with_extension("1")).unwrap();
    ask();
    until("the log is made anew", || {
        fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0)
    });

    let successor = sandboxed(&place, "second", &["--takeover", &gateway.id()]);
    place.wait_for("second", "was asked to stop");
    assert_eq!(gateway.ended(), Some(0));
    ask();
    successor.signal(Signal::TERM);
    gateway = successor;
    assert_eq!(gateway.ended(), Some(0));
    // It could remove what it had made, though another had made it.
    assert!(!place.socket.exists());
}

#[test]
fn a_sandboxed_gateway_says_that_a_folder_named_later_needs_a_restart() {
    let place = Place::new();
    let _gateway = sandboxed(&place, "first", &[]);
    if !is_sandboxed(&place, "first") {
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("certs");
    fs::create_dir(&moved).unwrap();
    let text = fs::read_to_string(&place.site.configuration).unwrap();
    let text = text.replacen(
        "directory = \"certs\"",
        &format!("directory = {moved:?}"),
        1,
    );
    assert!(text.contains("/certs\""), "{text}");
    fs::write(&place.site.configuration, text).unwrap();
    let said = relais(&place, "reload");
    let folder = moved.display().to_string();
    assert!(
        said.contains("process.sandbox") && said.contains(&folder),
        "{said}"
    );
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();

    // A file is refused with the reason, and the configuration that names it is not taken up.
    let trust = elsewhere.path().join("trust.pem");
    fs::copy(
        place.site.directory.join("trust/igc-sante-test.pem"),
        &trust,
    )
    .unwrap();
    configure(&place, "[log]", &format!("[revocation]\ntrust = {trust:?}"));
    let said = relais(&place, "reload");
    assert!(said.contains("process.sandbox"), "{said}");
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
}

#[test]
fn a_link_that_leads_out_of_the_sandbox_is_told_as_one() {
    let place = Place::new();
    let _gateway = sandboxed(&place, "first", &[]);
    if !is_sandboxed(&place, "first") {
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let certs = place.site.directory.join("certs");
    let own = certs
        .join(place.site.tenants[0].as_str())
        .join("auth_cli.pem");
    let outside = elsewhere.path().join("auth_cli.pem");
    fs::rename(&own, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &own).unwrap();
    let said = relais(&place, "reload");
    for part in [
        "leads out of",
        "move the file",
        "RELAIS__PROCESS__SANDBOX=false",
    ] {
        assert!(said.contains(part), "{said}");
    }
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
}
