//! The same bytes to Relais, nginx and HAProxy, each in front of a service that writes down what it is sent. Run by
//! tests/smuggling/run.sh.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a measuring program may panic, and its crate has no other crate to be reached from"
)]

#[path = "../support/mod.rs"]
mod support;
#[path = "."]
mod smuggling {
    pub mod exchange;
    pub mod frames;
    pub mod payloads;
}

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use relais::simulator::site::Stand;
use smuggling::exchange::{Arrivals, Outcome, over_h1, over_h2, record};
use smuggling::payloads::{Payload, Words};
use support::upstream::{Asks, Connection, Tls, Upstream};
use support::{eventually, start_on};

/// A proxy with its two addresses, for HTTP/1.1 and for HTTP/2 in clear text.
struct Peer {
    name: String,
    h1: String,
    h2: String,
    child: Option<Child>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// What a program says of its version.
fn version(program: &str) -> String {
    let said = Command::new(program).arg("-v").output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    let digits =
        |word: &&str| word.contains('.') && word.contains(|one: char| one.is_ascii_digit());
    let word = text.split([' ', '/', '\n', '-']).find(digits);
    word.unwrap_or("?").to_owned()
}

/// nginx as its documentation sets up a reverse proxy with connections that are kept.
fn nginx(work: &Path, upstream: SocketAddr) -> Peer {
    let (h1, h2) = (free_port(), free_port());
    let (work, program) = (work.display(), "nginx");
    let user = if rustix::process::geteuid().is_root() {
        "user root root;"
    } else {
        ""
    };
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        write!(temporary, "{kind}_temp_path {work}/{kind};").unwrap();
    }
    let configuration = format!(
        "{user} daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.log;
events {{}}
http {{
  access_log off; {temporary}
  upstream up {{ server {upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{h1};
    listen 127.0.0.1:{h2} http2;
    location / {{
      proxy_pass https://up;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_ssl_name localhost;
    }}
  }}
}}\n"
    );
    let path = format!("{work}/nginx.conf");
    std::fs::write(&path, configuration).unwrap();
    let mut command = Command::new(program);
    command.args(["-c", &path, "-e", &format!("{work}/nginx.log")]);
    peer(format!("nginx {}", version(program)), h1, h2, command)
}

/// HAProxy as its documentation sets up a reverse proxy with connections that are kept.
fn haproxy(work: &Path, upstream: SocketAddr) -> Peer {
    let (h1, h2) = (free_port(), free_port());
    let program = "haproxy";
    let configuration = format!(
        "defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  http-reuse always
frontend text
  bind 127.0.0.1:{h1}
  default_backend up
frontend frames
  bind 127.0.0.1:{h2} proto h2
  default_backend up
backend up
  server up {upstream} ssl verify none sni str(localhost)\n"
    );
    let path = work.join("haproxy.cfg");
    std::fs::write(&path, configuration).unwrap();
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(path);
    peer(format!("HAProxy {}", version(program)), h1, h2, command)
}

fn peer(name: String, h1: u16, h2: u16, mut command: Command) -> Peer {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Peer {
        name,
        h1: format!("127.0.0.1:{h1}"),
        h2: format!("127.0.0.1:{h2}"),
        child: Some(quiet.spawn().unwrap()),
    }
}

/// How a payload went, in the words of the table.
fn word(payload: &Payload, outcome: &Outcome) -> String {
    let broken = outcome.arrivals.iter().filter(|arrival| !arrival.is_whole);
    let broken = broken
        .filter(|arrival| !arrival.target.ends_with("/marker"))
        .count();
    let mut word = match (outcome.forwarded(), broken) {
        (0, 0) => "refused".to_owned(),
        (0, _) => "broken off".to_owned(),
        (1, _) => "forwarded as one".to_owned(),
        (many, _) => format!("forwarded as {many}"),
    };
    if let Some(wrong) = outcome.wrong(payload) {
        let is_of_others = wrong.ends_with("sent");
        if is_of_others {
            word.push_str(" (!)");
        } else {
            write!(word, " (! {wrong})").unwrap();
        }
    }
    word
}

#[tokio::main]
async fn main() {
    let arrivals = Arrivals::default();
    let serve = {
        let seen = Arc::clone(&arrivals);
        move |connection: Connection, _| record(connection.stream, Arc::clone(&seen))
    };
    let (gateway, (_upstream, plain)) = start_on(2, &[Stand::new("dmp")], |site, text| {
        let upstream = Upstream::start(&site.pki, &Tls::default(), serve.clone());
        text.push_str(&upstream.service("up", ""));
        // The others have no client certificates.
        let tls = Tls {
            client: Asks::Nothing,
            ..Tls::default()
        };
        (upstream, Upstream::start(&site.pki, &tls, serve))
    });
    let address = gateway.address().to_string();
    let peers = [
        Peer {
            name: format!("Relais {}", env!("CARGO_PKG_VERSION")),
            h1: address.clone(),
            h2: address,
            child: None,
        },
        nginx(gateway.path(), plain.address),
        haproxy(gateway.path(), plain.address),
    ];
    for peer in &peers {
        let is_up = || std::net::TcpStream::connect(&peer.h2).is_ok();
        eventually(&format!("{} listens", peer.name), is_up).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    arrivals.lock().unwrap().clear();

    let words = Words::of(gateway.tenant(0).as_str(), gateway.tenant(1).as_str());
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let mut wrong = [0; 3];
    for (title, payloads, is_h2) in [
        ("Over HTTP/1.1", words.payloads(), false),
        ("Over HTTP/2 in clear text", words.frames(), true),
    ] {
        println!("## {title}: {} payloads\n", payloads.len());
        println!(
            "| payload | plainly sent | {} |\n|---|---|---|---|---|",
            names.join(" | ")
        );
        for payload in &payloads {
            let mut row = format!("| {} | {} |", payload.name, payload.plain);
            for (peer, wrong) in peers.iter().zip(&mut wrong) {
                let outcome = if is_h2 {
                    over_h2(&peer.h2, &words, payload, &arrivals).await
                } else {
                    over_h1(&peer.h1, &words, payload, &arrivals).await
                };
                *wrong += usize::from(outcome.wrong(payload).is_some());
                write!(row, " {} |", word(payload, &outcome)).unwrap();
            }
            println!("{row}");
        }
        println!();
    }
    println!(
        "## Marked with (!)\n\n| {} |\n|---|---|---|",
        names.join(" | ")
    );
    println!("| {} | {} | {} |", wrong[0], wrong[1], wrong[2]);
    if wrong[0] > 0 {
        drop(peers);
        std::process::exit(1);
    }
}
