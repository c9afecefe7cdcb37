//! Gateways as processes, one after the other in the same place.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use relais::simulator::site::{Ports, Site, Stand};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::DEADLINE;

/// A site on ports of its own, whose gateways the test starts as processes.
pub struct Place {
    pub site: Site,
    pub address: SocketAddr,
    pub socket: PathBuf,
    _directory: TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Place {
    pub fn new() -> Self {
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
    pub fn serve(&self, name: &str, more: &[&str]) -> Command {
        // Tests alone are told where it is; examples have part of this, too.
        let program = option_env!("CARGO_BIN_EXE_relais").unwrap_or("relais");
        let mut command = Command::new(program);
        self.prepare(&mut command, name, more);
        command
    }

    pub fn prepare(&self, command: &mut Command, name: &str, more: &[&str]) {
        let log = fs::File::create(self.log(name)).unwrap();
        command
            .args(["serve", "--config"])
            .arg(&self.site.configuration)
            .args(more)
            .stdout(Stdio::null())
            .stderr(log);
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.site.directory.join(name)
    }

    /// Waits until a gateway has written that.
    pub fn wait_for(&self, name: &str, text: &str) {
        until(&format!("{name} says: {text}"), || {
            fs::read_to_string(self.log(name)).unwrap().contains(text)
        });
    }

    /// A gateway that can be taken over.
    pub fn start(&self, name: &str) -> Gateway {
        let gateway = Gateway(self.serve(name, &[]).spawn().unwrap());
        gateway.can_be_taken_over();
        gateway
    }

    /// A GET to the service, as bytes.
    pub fn request(&self) -> String {
        format!(
            "GET /dmp/x HTTP/1.1\r\nhost: localhost\r\nx-finess: {}\r\n\r\n",
            self.site.tenants[0]
        )
    }
}

/// A process, killed when dropped.
pub struct Gateway(pub Child);

impl Gateway {
    pub fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Waits until it offers its sockets, which it does before it serves.
    pub fn can_be_taken_over(&self) {
        let own = format!("@relais-takeover-{}", self.id());
        until("it can be taken over", || {
            let names = fs::read_to_string("/proc/net/unix").unwrap();
            names.lines().any(|line| line.ends_with(&own))
        });
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit code, within the deadline.
    pub fn ended(&mut self) -> Option<i32> {
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

pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !so() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

/// Sends a request and reads its answer; whether the connection is to be used again. Anything but an answer of 200 is
/// an error.
pub fn exchange(
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

pub fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(stream)
}
