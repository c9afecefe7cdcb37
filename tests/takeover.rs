//! One process after the other on the same addresses: nobody who connects meanwhile notices.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use relais::simulator::site::{Ports, Site, Stand};
use rustix::process::{Pid, Signal, kill_process};
use support::{DEADLINE, H2c, whole};
use tempfile::TempDir;

/// How often one gateway takes over from another under load.
const TAKEOVERS: usize = 20;

/// A site on ports of its own, whose gateways the test starts as processes.
struct Place {
    site: Site,
    address: SocketAddr,
    socket: PathBuf,
    _directory: TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports {
            data: free_port(),
            admin: free_port(),
        };
        let site = Site::build(directory.path(), 1, &[Stand::new("dmp")], ports).unwrap();
        let text = fs::read_to_string(&site.configuration).unwrap();
        let more = "[[listeners]]\naddress = \"unix:relais.sock\"\n[shutdown]\ngrace = \"10s\"\n";
        fs::write(&site.configuration, format!("{text}\n{more}")).unwrap();
        Self {
            address: ([127, 0, 0, 1], ports.data).into(),
            socket: directory.path().join("relais.sock"),
            site,
            _directory: directory,
        }
    }

    /// `relais serve` and what it is to be told; its log goes to a file of that name.
    fn serve(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        self.prepare(&mut command, name, more);
        command
    }

    fn prepare(&self, command: &mut Command, name: &str, more: &[&str]) {
        let log = fs::File::create(self.log(name)).unwrap();
        command
            .args(["serve", "--config"])
            .arg(&self.site.configuration)
            .args(more)
            .stdout(Stdio::null())
            .stderr(log);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.site.directory.join(name)
    }

    /// Waits until a gateway has written that.
    fn wait_for(&self, name: &str, text: &str) {
        until(&format!("{name} says: {text}"), || {
            fs::read_to_string(self.log(name)).unwrap().contains(text)
        });
    }

    /// A gateway that can be taken over.
    fn start(&self, name: &str) -> Gateway {
        let gateway = Gateway(self.serve(name, &[]).spawn().unwrap());
        gateway.can_be_taken_over();
        gateway
    }

    /// A GET to the service, as bytes.
    fn request(&self) -> String {
        format!(
            "GET /dmp/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {}\r\n\r\n",
            self.site.tenants[0]
        )
    }
}

/// A process, killed when dropped.
struct Gateway(Child);

impl Gateway {
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Waits until it offers its sockets, which it does before it serves.
    fn can_be_taken_over(&self) {
        let own = format!("@relais-takeover-{}", self.id());
        until("it can be taken over", || {
            let names = fs::read_to_string("/proc/net/unix").unwrap();
            names.lines().any(|line| line.ends_with(&own))
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit code, within the deadline.
    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !so() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

/// Sends a request and reads its answer; whether the connection is to be used again. Anything but an answer of 200 is
/// an error.
fn exchange(
    stream: &mut (impl std::io::Read + std::io::Write),
    request: &str,
) -> Result<bool, String> {
    stream
        .write_all(request.as_bytes())
        .map_err(|error| format!("write: {error}"))?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                if !head.starts_with("http/1.1 200") {
                    return Err(text);
                }
                return Ok(!head.contains("connection: close"));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(format!("closed after {} bytes", answer.len())),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) => return Err(format!("read: {error}")),
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(stream)
}

/// Applications that send requests until the test is over, and never a second time what has failed.
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    running: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Runs an application, which makes one round of requests at a time.
    fn add(&mut self, mut round: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (is_over, answered) = (Arc::clone(&self.is_over), Arc::clone(&self.answered));
        self.running.push(thread::spawn(move || {
            let mut failures = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                match round() {
                    Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Err(failure) => failures.push(failure),
                }
            }
            failures
        }));
    }

    fn on(place: &Place) -> Self {
        let mut load = Self {
            is_over: Arc::default(),
            answered: Arc::default(),
            running: Vec::new(),
        };
        let address = place.address;
        for _ in 0..4 {
            let request = place.request();
            load.add(move || exchange(&mut connect(address)?, &request).map(drop));
        }
        for _ in 0..4 {
            let (request, mut kept) = (place.request(), None);
            load.add(move || {
                let mut stream = kept.take().map_or_else(|| connect(address), Ok)?;
                kept = exchange(&mut stream, &request)?.then_some(stream);
                Ok(())
            });
        }
        load.add_h2c(place);
        let (request, path) = (place.request(), place.socket.clone());
        load.add(move || {
            let mut stream =
                UnixStream::connect(&path).map_err(|error| format!("connect: {error}"))?;
            exchange(&mut stream, &request).map(drop)
        });
        load
    }

    /// An application that opens a new connection when the last one says that it takes no further request.
    fn add_h2c(&mut self, place: &Place) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (address, tenant) = (place.address, place.site.tenants[0]);
        let mut kept = None;
        self.add(move || {
            let request = http::Request::get("/dmp/x").header("x-finess", tenant.as_str());
            let request = request.body(whole(Bytes::new())).unwrap();
            runtime.block_on(async {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => H2c::connect(address).await,
                };
                if client.sender.ready().await.is_err() {
                    client = H2c::connect(address).await;
                }
                let answer = client.begin(request).await;
                let answer = answer.map_err(|error| format!("h2c: {error:?}"))?;
                assert_eq!(answer.status(), 200);
                kept = Some(client);
                Ok(())
            })
        });
    }

    /// Waits until as many more requests have been answered.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until("requests are answered", || {
            self.answered.load(Ordering::Relaxed) > before + 50
        });
    }

    /// What has failed.
    fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.running.into_iter();
        ended.flat_map(|one| one.join().unwrap()).collect()
    }
}

#[test]
fn a_takeover_fails_no_request_under_load() {
    let place = Place::new();
    let mut gateway = place.start("first");
    let load = Load::on(&place);
    let mut gone = Vec::new();
    for turn in 0..TAKEOVERS {
        load.goes_on();
        let name = format!("successor-{turn}");
        let mut successor = place.serve(&name, &["--takeover", &gateway.id()]);
        // More, fewer and as many workers as before.
        successor.env("RELAIS__WORKERS", (1 + turn % 3).to_string());
        let successor = Gateway(successor.spawn().unwrap());
        place.wait_for(&name, "was asked to stop");
        gone.push(std::mem::replace(&mut gateway, successor));
        gateway.can_be_taken_over();
    }
    for old in &mut gone {
        assert_eq!(old.ended(), Some(0));
    }
    load.goes_on();
    let answered = load.answered.load(Ordering::Relaxed);
    let failures = load.end();
    assert!(failures.is_empty(), "of {answered}: {failures:?}");
    eprintln!("{answered} requests over {TAKEOVERS} takeovers");

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended(), Some(0));
    assert!(!place.socket.exists(), "the last one tidies up");
    assert!(connect(place.address).is_err());
}

#[test]
fn a_successor_that_cannot_start_leaves_the_gateway_as_it_was() {
    let place = Place::new();
    let mut gateway = place.start("first");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut successor = place.serve("second", &["--takeover", &gateway.id()]);
    let address = taken.local_addr().unwrap().to_string();
    successor.env("RELAIS__ADMIN__ADDRESS", &address);
    assert_eq!(successor.status().unwrap().code(), Some(1));
    let said = fs::read_to_string(place.log("second")).unwrap();
    assert!(said.contains(&address), "{said}");
    place.wait_for("first", "nobody took over");
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
    assert!(place.socket.exists());

    // It can still be taken over.
    let _second = place
        .serve("third", &["--takeover", &gateway.id()])
        .spawn()
        .map(Gateway)
        .unwrap();
    assert_eq!(gateway.ended(), Some(0));
    exchange(&mut connect(place.address).unwrap(), &place.request()).unwrap();
}

#[test]
fn a_takeover_from_nobody_is_refused_by_name() {
    let place = Place::new();
    let own = std::process::id().to_string();
    let status = place
        .serve("alone", &["--takeover", &own])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let said = fs::read_to_string(place.log("alone")).unwrap();
    assert!(said.contains(&format!("process id {own}")), "{said}");
}

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
