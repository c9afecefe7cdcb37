//! Keys that others can read, files that are not right, and what must not be lost for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use relais::simulator::pki::{self, Purpose, Request};
use serde_json::Value;

use super::desk::{Desk, NEW, Said};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_is_served_through_a_link_is_never_removed() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let served = desk.path("certs/dui.key");
    symlink(format!("../pending/{NEW}-dui.key"), &served).unwrap();
    fs::copy(&delivered, desk.path("certs/dui.crt")).unwrap();
    let waiting = desk.files("pending");
    desk.install(&delivered, &[])
        .expect(0, &["is there already", "certs/dui.crt"]);
    assert_eq!(desk.files("pending"), waiting);
    assert!(fs::read_to_string(served).unwrap().contains("PRIVATE KEY"));
    desk.run("check", &[])
        .expect(0, &[&format!("{NEW} may use dmp")]);
}

#[test]
fn a_key_that_waits_and_cannot_be_used_is_named_with_the_reason() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let key = desk.path(&format!("pending/{NEW}-dui.key"));
    let text = fs::read_to_string(&key).unwrap();
    let file = key.to_str().unwrap();
    let refused = |reason: &str, way_out: &str| {
        desk.refuses(&delivered, &[], &[file, reason, way_out]);
    };
    set_mode(&key, 0o644);
    refused("its mode 0644", &format!("chmod 600 {file}"));
    set_mode(&key, 0o600);
    pki::write_private(&key, text.replace("MII", "M!!")).unwrap();
    refused("is damaged", "copy it again");
    pki::write_private(&key, format!("{text}{text}")).unwrap();
    refused("holds 2 private keys", "a file of its own");

    pki::write_private(&key, &text).unwrap();
    let encrypted = desk.path("encrypted");
    let openssl = Command::new("openssl")
        .args([
            "pkcs8",
            "-topk8",
            "-v2",
            "aes-256-cbc",
            "-passout",
            "pass:x",
            "-in",
            file,
        ])
        .arg("-out")
        .arg(&encrypted)
        .status();
    assert!(openssl.unwrap().success());
    fs::rename(&encrypted, &key).unwrap();
    refused("no password is configured", "dui.key.password");
    pki::write_private(
        &desk.path(&format!("pending/{NEW}-dui.key.password")),
        "x\n",
    )
    .unwrap();
    refused("is encrypted", "openssl pkey -in");

    pki::write_private(&key, &text).unwrap();
    desk.install(&delivered, &[]).expect(0, &["installed as"]);
}

#[test]
fn a_request_that_cannot_be_removed_is_a_warning_beside_what_was_installed() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    // Nobody can remove a folder as if it were a file, not even root.
    let request = desk.path(&format!("pending/{NEW}-dui.csr"));
    fs::remove_file(&request).unwrap();
    fs::create_dir(&request).unwrap();
    let said = desk
        .install(&delivered, &["--format", "json"])
        .expect(0, &[]);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    let installed = &json[0]["installed"];
    assert!(Path::new(installed["path"].as_str().unwrap()).exists());
    let warnings = installed["warnings"].to_string();
    assert!(warnings.contains("dui.csr") && warnings.contains("remove it"));
    assert!(!request.with_extension("key").exists());
}

#[test]
fn a_folder_of_certificates_that_cannot_be_written_to_changes_nothing() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    // Where the structure's folder would be, there is a file.
    fs::write(desk.path("certs").join(NEW), "").unwrap();
    desk.refuses(
        &delivered,
        &[],
        &[&format!("certs/{NEW}"), "check the folder"],
    );
}

#[test]
fn passwords_that_others_can_read_are_refused() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let passwords = desk.path("passwords");
    fs::write(&passwords, "x\n").unwrap();
    set_mode(&passwords, 0o644);
    let arguments = ["--password-file", passwords.to_str().unwrap()];
    desk.install(&delivered, &arguments)
        .expect(1, &["password file", "mode 0644", "chmod 600"]);
    set_mode(&passwords, 0o600);
    desk.install(&delivered, &arguments).expect(0, &[]);
}

#[test]
fn a_key_that_others_can_read_gets_no_request() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let key = desk.path(&format!("pending/{NEW}-dui.key"));
    fs::remove_file(key.with_extension("csr")).unwrap();
    set_mode(&key, 0o644);
    desk.csr(NEW, "DUI")
        .expect(1, &["mode 0644", "chmod 600", "dui.key"]);
    assert!(!key.with_extension("csr").exists());
    set_mode(&key, 0o600);
    desk.csr(NEW, "DUI").expect(0, &[]);
}

#[test]
fn what_an_interrupted_request_left_is_removed_by_the_next() {
    let desk = Desk::new();
    let left = desk.path("pending/.relais-unfinished-Xy12Zw");
    fs::create_dir(desk.path("pending")).unwrap();
    pki::write_private(&left, "a private key").unwrap();
    desk.csr(NEW, "DUI").expect(0, &[]);
    assert!(!left.exists());
}

#[test]
fn a_revoked_certificate_is_refused() {
    let desk = Desk::new();
    desk.csr(NEW, "DUI").expect(0, &[]);
    let issued = desk.site.pki.issue(&Request {
        key: Some(desk.pending_key(&format!("{NEW}-dui"))),
        ..Request::new("1060785003", "DUI")
    });
    let now = jiff::Timestamp::now().as_second();
    let list = (desk.site.pki).revoke(&[&issued.serial()], now - 60, now + 3600);
    fs::write(desk.path("aci.crl"), list.der()).unwrap();
    desk.configure("\n[revocation]\ncrls = [\"aci.crl\"]\n");
    let delivered = desk.deliver(&issued);
    desk.refuses(&delivered, &[], &["it is revoked", "order another"]);
}

#[test]
fn keys_do_not_wait_where_they_would_be_loaded_nor_above_the_configuration() {
    for folder in ["pending", "."] {
        let desk = Desk::new();
        let text = fs::read_to_string(&desk.site.configuration).unwrap();
        let text = text.replace("directory = \"certs\"", &format!("directory = {folder:?}"));
        fs::write(&desk.site.configuration, text).unwrap();
        fs::create_dir_all(desk.path(folder)).unwrap();
        let above = (desk.site.directory).with_file_name(format!("pending/{NEW}-dui.key"));
        desk.csr(NEW, "DUI")
            .expect(1, &["no good place for keys", "--out"]);
        assert!(desk.files("pending").is_empty() && !above.exists());
        desk.install(&desk.path("no.crt"), &[])
            .expect(1, &["no good place for keys", "--pending"]);
    }
}

#[test]
fn one_who_is_not_the_owner_of_the_folder_is_told_what_the_gateway_cannot_read() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    // Only root can give a folder away.
    if chown(desk.path("certs"), Some(65_534), None).is_err() {
        return;
    }
    desk.install(&delivered, &["--dry-run"])
        .expect(0, &["warning: ", "belongs to user 65534", "chown -R 65534"]);
}

#[test]
fn a_file_that_is_not_right_is_named_once_with_a_way_out_that_fits() {
    let desk = Desk::new();
    let trust = desk.path("trust");
    let said = desk.install(&trust, &[]).expect(1, &["not a regular file"]);
    assert_eq!(said.out.matches("/trust").count(), 1, "{}", said.out);
    assert!(!said.out.contains("this folder"), "{}", said.out);
    let said = desk.install(&desk.path("no.crt"), &[]);
    let said = said.expect(1, &["No such file", "check the name"]);
    assert!(!said.out.contains("account"), "{}", said.out);
}

#[test]
fn names_that_are_too_long_for_file_systems_are_cut() {
    let desk = Desk::new();
    let name = "x".repeat(300);
    let issued = desk.site.pki.issue(&Request::new("1060785003", &name));
    let file = desk.path("delivered.pem");
    pki::write_private(&file, issued.pem()).unwrap();
    desk.install(&file, &[]).expect(0, &["installed as"]);
}

#[test]
fn whose_certificate_it_is_decides_what_is_said_of_its_number() {
    let desk = Desk::new();
    let siret = "339172288100052";
    let install = |request: &Request<'_>, code: i32| {
        let file = desk.path("delivered.pem");
        pki::write_private(&file, desk.site.pki.issue(request).pem()).unwrap();
        desk.install(&file, &["--dry-run"]).expect(code, &[]).out
    };
    let said = install(&Request::new(siret, "DUI"), 0);
    assert!(said.contains("no FINESS number") && said.contains("[vendor]"));
    desk.configure(&format!("\n[vendor]\nstructures = [\"{siret}\"]\n"));
    let said = install(&Request::new(siret, "DUI"), 0);
    assert!(!said.contains("FINESS"), "{said}");
    let nobody = Request {
        purpose: Purpose::AuthCli,
        ..Request::new("IGC", "DUI")
    };
    let said = install(&nobody, 1);
    assert!(
        said.contains("names no structure") && !said.contains("[vendor]"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_a_full_disk_has_no_room_for_leaves_everything_as_it_was() {
    let desk = Desk::new();
    let delivered = desk.ordered(NEW, "DUI", "dui");
    let before = (desk.files("certs"), desk.files("pending"));
    // No file may grow: what is written fails as it does on a full disk, whoever runs the test.
    let said: Said = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_relais"))
        .arg("install")
        .arg(&delivered)
        .arg("--config")
        .arg(&desk.site.configuration)
        .output()
        .unwrap()
        .into();
    said.expect(1, &[desk.path("certs").to_str().unwrap(), "large"]);
    assert_eq!((desk.files("certs"), desk.files("pending")), before);
    desk.install(&delivered, &[]).expect(0, &["installed as"]);
}
