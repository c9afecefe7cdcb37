//! What systemd gives to a gateway, and what it is told.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use support::DEADLINE;
use support::process::{Gateway, Place, connect, exchange};

/// Starts a gateway as systemd does, with two sockets from descriptor 3 on.
fn activated(place: &Place, name: &str, tcp: &TcpListener, unix: impl Into<OwnedFd>) -> Gateway {
    let script =
        "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_relais")]);
    place.prepare(&mut command, name, &[]);
    command
        .stdin(OwnedFd::from(tcp.try_clone().unwrap()))
        .stdout(unix.into());
    Gateway(command.spawn().unwrap())
}

#[test]
fn with_sockets_of_systemd_a_restart_is_a_pause_and_no_refusal() {
    let place = Place::new();
    let tcp = TcpListener::bind(place.address).unwrap();
    let unix = UnixListener::bind(&place.socket).unwrap();
    for name in ["first", "second"] {
        // Nobody runs yet, or any more: these wait.
        let mut early = connect(place.address).unwrap();
        let mut local = UnixStream::connect(&place.socket).unwrap();
        let mut gateway = activated(&place, name, &tcp, unix.try_clone().unwrap());
        exchange(&mut early, &place.request()).unwrap();
        exchange(&mut local, &place.request()).unwrap();
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended(), Some(0));
        assert!(place.socket.exists(), "it is systemd's");
    }
}

#[test]
fn a_socket_of_systemd_that_no_listener_has_is_named() {
    let place = Place::new();
    let unix = UnixListener::bind(&place.socket).unwrap();
    for elsewhere in ["127.0.0.1:0", "0.0.0.0:0"] {
        let tcp = TcpListener::bind(elsewhere).unwrap();
        let mut gateway = activated(&place, "refused", &tcp, unix.try_clone().unwrap());
        assert_eq!(gateway.ended(), Some(1));
        let said = fs::read_to_string(place.log("refused")).unwrap();
        let address = tcp.local_addr().unwrap();
        assert!(said.contains(&address.to_string()), "{said}");
        let is_loopback = address.ip().is_loopback();
        assert_eq!(said.contains("only loopback"), !is_loopback, "{said}");
    }

    let tcp = TcpListener::bind(place.address).unwrap();
    let file = fs::File::open(&place.site.configuration).unwrap();
    let mut gateway = activated(&place, "refused", &tcp, file);
    assert_eq!(gateway.ended(), Some(1));
    let said = fs::read_to_string(place.log("refused")).unwrap();
    assert!(said.contains("file descriptor 4"), "{said}");
}

/// Where systemd hears of a service.
struct Ear(UnixDatagram);

impl Ear {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    /// The next message that has one of these lines.
    fn next(&self, lines: &[&str]) -> String {
        loop {
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message).unwrap();
            let text = String::from_utf8(message[..length].to_vec()).unwrap();
            if text.lines().any(|line| lines.contains(&line)) {
                return text;
            }
        }
    }
}

const STATES: [&str; 3] = ["READY=1", "RELOADING=1", "STOPPING=1"];

#[test]
fn systemd_hears_of_start_reload_and_stop_in_their_order() {
    let place = Place::new();
    let path = place.site.directory.join("notify");
    let ear = Ear::at(&path);
    let mut gateway = place.serve("told", &[]);
    let mut gateway = Gateway(gateway.env("NOTIFY_SOCKET", &path).spawn().unwrap());
    let ready = ear.next(&STATES);
    assert!(
        ready.contains("STATUS=serving 1 certificate, 1 service\n"),
        "{ready}"
    );
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();

    gateway.signal(Signal::HUP);
    let reloading = ear.next(&STATES);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert!(ear.next(&STATES).starts_with("READY=1"));

    let mut kept = connect(place.address).unwrap();
    exchange(&mut kept, &place.request()).unwrap();
    gateway.signal(Signal::TERM);
    assert!(ear.next(&STATES).starts_with("STOPPING=1"));
    // While the connection is kept, the stop goes on.
    gateway.signal(Signal::HUP);
    place.wait_for("told", "no reload");
    exchange(&mut kept, &place.request()).unwrap();
    assert_eq!(gateway.ended(), Some(0));
    ear.0.set_nonblocking(true).unwrap();
    let more = ear.0.recv(&mut [0; 4096]);
    assert!(more.is_err(), "nothing comes after the stop");
}

#[test]
fn the_watchdog_hears_of_workers_that_answer() {
    let place = Place::new();
    let path = place.site.directory.join("notify");
    let ear = Ear::at(&path);
    let mut gateway = place.serve("watched", &[]);
    gateway
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    let _gateway = Gateway(gateway.spawn().unwrap());
    for _ in 0..3 {
        ear.next(&["WATCHDOG=1"]);
    }
}
