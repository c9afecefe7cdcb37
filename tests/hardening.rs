//! What the real program forbids itself: to be dumped, to leave secrets behind, to leave its folders.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Signal, geteuid};
use support::process::{Gateway, Place, connect, exchange};

/// The account under which things are run that root may do and others not (`nobody`).
const NOBODY: u32 = 65534;

/// A place that belongs to an account without privileges, and the program where that account can run it.
struct Unprivileged {
    place: Place,
    account: u32,
    program: PathBuf,
}

impl Unprivileged {
    /// For root: as `nobody`. Any other account is without privileges itself.
    fn new() -> Self {
        let place = Place::new();
        let program = place.site.directory.join("relais");
        // By another process: what this one has open to write, the child that a test beside it forks has open too until it
        // begins, and a program that somebody may write to is not started (ETXTBSY).
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_relais"))
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let account = match geteuid().is_root() {
            true => NOBODY,
            false => geteuid().as_raw(),
        };
        give(&place.site.directory, account);
        Self {
            place,
            account,
            program,
        }
    }

    fn run(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        if geteuid().is_root() {
            command.uid(self.account).gid(self.account);
        }
        command
    }

    fn serve(&self, name: &str, more: &[&str]) -> Command {
        let mut command = self.run(&self.program);
        self.place.prepare(&mut command, name, more);
        command
    }

    fn start(&self, name: &str, variables: &[(&str, &str)]) -> Gateway {
        let mut command = self.serve(name, &[]);
        let gateway = Gateway(command.envs(variables.iter().copied()).spawn().unwrap());
        gateway.can_be_taken_over();
        gateway
    }

    /// What another program of the account can read of the gateway's environment.
    fn peeks_at(&self, gateway: &Gateway) -> Output {
        let mut cat = self.run(Path::new("/bin/cat"));
        cat.arg(format!("/proc/{}/environ", gateway.id()));
        cat.output().unwrap()
    }
}

fn give(path: &Path, account: u32) {
    chown(path, Some(account), Some(account)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), account);
        }
    }
}

/// T17.
#[test]
fn another_program_of_the_account_cannot_read_the_memory_and_nothing_is_dumped() {
    let unprivileged = Unprivileged::new();
    let gateway = unprivileged.start("first", &[("A_SECRET", "in-the-environment")]);
    let peeked = unprivileged.peeks_at(&gateway);
    assert!(
        !peeked.status.success() && peeked.stdout.is_empty(),
        "{peeked:?}"
    );
    // What the kernel does for a process that is not dumpable.
    let process = PathBuf::from(format!("/proc/{}", gateway.id()));
    let environment = fs::metadata(process.join("environ")).unwrap();
    assert_eq!(environment.uid(), 0);
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(
        core.unwrap().split_whitespace().nth(4),
        Some("0"),
        "{limits}"
    );
    drop(gateway);

    // For finding a defect.
    let open = [
        ("RELAIS__PROCESS__CORE_DUMPS", "true"),
        ("A_SECRET", "in-the-environment"),
    ];
    let gateway = unprivileged.start("second", &open);
    unprivileged.place.wait_for("second", "process.core_dumps");
    let peeked = unprivileged.peeks_at(&gateway);
    let environment = String::from_utf8_lossy(&peeked.stdout);
    assert!(environment.contains("in-the-environment"), "{peeked:?}");
}

/// Root may look into any process; an account may not, and hands its sockets over all the same.
#[test]
fn a_takeover_works_between_processes_of_one_account_that_cannot_see_into_each_other() {
    let unprivileged = Unprivileged::new();
    let place = &unprivileged.place;
    let mut gateway = unprivileged.start("first", &[]);
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    for name in ["second", "third"] {
        let mut successor = unprivileged.serve(name, &["--takeover", &gateway.id()]);
        let successor = Gateway(successor.spawn().unwrap());
        place.wait_for(name, "was asked to stop");
        assert_eq!(gateway.ended(), Some(0));
        exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
        successor.can_be_taken_over();
        gateway = successor;
    }
}

/// T17: its owner could give anybody the right to read it, and put another in its place.
#[test]
fn a_key_that_belongs_to_another_account_is_not_used() {
    let unprivileged = Unprivileged::new();
    if !geteuid().is_root() {
        // Nobody else can give a file away.
        return;
    }
    let site = &unprivileged.place.site;
    let text = fs::read_to_string(&site.configuration).unwrap();
    let folder = site.directory.join("certs").join(site.tenants[0].as_str());
    let key = folder.join("auth_cli.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let check = || {
        let mut check = unprivileged.run(&unprivileged.program);
        check.args(["check", "--config"]).arg(&site.configuration);
        String::from_utf8(check.output().unwrap().stdout).unwrap()
    };
    let said = check();
    assert!(!said.contains("belongs to"), "{said}");
    chown(&key, Some(NOBODY - 1), Some(NOBODY)).unwrap();
    let said = check();
    assert!(said.contains("certificates  0"), "{said}");

    // An account that deploys keys may own them, where the configuration says that others are trusted.
    let group = "[identities]\nkey_readers = \"group\"";
    let trusting = text.replacen("[identities]", group, 1);
    fs::write(&site.configuration, trusting).unwrap();
    chown(&key, Some(NOBODY - 1), Some(NOBODY)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let said = check();
    assert!(
        !said.contains("belongs to") && !said.contains("certificates  0"),
        "{said}"
    );

    // Whoever may write into its folder could put another in its place all the same.
    chown(&key, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let said = check();
    let hint = format!("chmod 775 {}", folder.display());
    assert!(
        said.contains("others can write into this folder of keys") && said.contains(&hint),
        "{said}"
    );
}

/// T17: rustls writes TLS secrets to that file only where its `key_log` is set.
#[test]
fn tls_secrets_are_written_nowhere_whatever_the_environment_says() {
    let place = Place::new();
    let secrets = place.site.directory.join("tls-secrets");
    let mut command = place.serve("first", &[]);
    let gateway = Gateway(command.env("SSLKEYLOGFILE", &secrets).spawn().unwrap());
    gateway.can_be_taken_over();
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    let (full, resumed) = place.site.simulators[0].1.handshakes();
    assert!(full + resumed > 0, "there was a handshake");
    assert!(!secrets.exists());
    for source in files_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&source).unwrap();
        for name in ["key_log", "KeyLog"] {
            assert!(!text.contains(name), "{name} in {}", source.display());
        }
    }
}

/// All files and folders below a folder.
fn all_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let with_what_is_below = |path: PathBuf| match path.is_dir() {
        true => [all_in(&path), vec![path]].concat(),
        false => vec![path],
    };
    paths.flat_map(with_what_is_below).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let all = all_in(folder).into_iter();
    all.filter(|path| path.is_file()).collect()
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.permissions().mode() & 0o777
}

/// The same program, started with a umask that keeps nobody out.
fn careless(arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        "umask 0; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_relais"),
    ]);
    command.args(arguments);
    command
}

#[test]
fn what_is_made_is_private_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let pending = folder.path().join("pending");
    let out = pending.to_str().unwrap();
    let arguments = [
        "csr",
        "--finess",
        "060785003",
        "--service-name",
        "INSI-AUTO",
        "--out",
        out,
    ];
    let output = careless(&arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let demo = folder.path().join("demo");
    let arguments = [
        "demo",
        "--check",
        "--tenants",
        "1",
        "--dir",
        demo.to_str().unwrap(),
    ];
    let output = careless(&arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let made = all_in(folder.path());
    assert!(made.len() > 10, "{made:?}");
    for path in made {
        match path.ends_with("access.log") {
            true => assert_eq!(mode(&path), 0o640),
            false => assert_eq!(
                mode(&path) & 0o077,
                0,
                "{}: {:o}",
                path.display(),
                mode(&path)
            ),
        }
    }
}

#[test]
fn sockets_and_the_access_log_are_their_groups_and_nobody_elses() {
    let place = Place::new();
    let before = all_in(&place.site.directory);
    let mut command = careless(&[]);
    place.prepare(&mut command, "first", &[]);
    let gateway = Gateway(command.spawn().unwrap());
    gateway.can_be_taken_over();
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    assert_eq!(mode(&place.socket), 0o660);
    assert_eq!(mode(&place.site.directory.join("access.log")), 0o640);
    for path in all_in(&place.site.directory) {
        // The log of diagnostics is the test's.
        if !before.contains(&path) && path != place.log("first") {
            assert_eq!(mode(&path) & 0o007, 0, "{}", path.display());
        }
    }
    gateway.signal(Signal::TERM);
}

/// T20: a name leads to the gateway's own listener, which no look at the configuration can tell.
#[test]
fn a_service_whose_name_leads_to_the_gateway_itself_is_not_called() {
    let place = Place::new();
    let port = place.address.port();
    let mut more = format!("[services.loop]\nurl = \"https://localhost:{port}\"\n");
    more += "trust = \"public\"\ncertificate = \"org-auth-cli\"\n";
    // Where names lead to both.
    if TcpListener::bind(("::1", port)).is_ok() {
        more += &format!("[[listeners]]\naddress = \"[::1]:{port}\"\n");
    }
    let text = fs::read_to_string(&place.site.configuration).unwrap();
    fs::write(&place.site.configuration, format!("{text}\n{more}")).unwrap();
    let _gateway = place.start("first");
    let request = place.request().replacen("/dmp/", "/loop/", 1);
    let answer = exchange(&mut connect(place.address).unwrap(), &request).unwrap_err();
    assert!(answer.starts_with("http/1.1 502"), "{answer}");
    for part in [
        "upstream_unreachable",
        "listens there itself",
        &format!(":{port}"),
    ] {
        assert!(answer.contains(part), "{answer}");
    }
    // It did not even knock.
    let log = fs::read_to_string(place.site.directory.join("access.log")).unwrap();
    assert!(log.lines().count() <= 1, "{log}");
}
