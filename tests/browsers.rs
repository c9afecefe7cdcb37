//! Web pages in a browser on the same machine (T14): refused on every listener, whatever they send and whatever they call it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use relais::config::ListenAddress;
use relais::simulator::site::Stand;
use support::raw::{Raw, RawAnswer};
use support::{TestGateway, start_with};
use tokio::net::UnixStream;

/// What no program sends, and what a browser cannot keep a page from sending (Fetch, Private Network Access).
const MARKS: &[&str] = &[
    "Origin: https://evil.example",
    "Origin: null",
    "Origin: http://localhost",
    "Origin:",
    "origin: https://evil.example\r\nOrigin: http://localhost",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
    "SEC-FETCH-SITE: CROSS-SITE",
    "Sec-Fetch-Site:",
];

/// Names that a page can have rebound to this machine, and addresses under which it may try.
const HOSTS: &[&str] = &[
    "evil.example",
    "evil.example:8080",
    "0.0.0.0",
    "0.0.0.0:8080",
    "[::]",
    "[::ffff:7f00:1].evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "",
];

/// Lines of a simple request, of a preflight, and of what a form sends.
const LINES: &[&str] = &[
    "GET {}",
    "POST {}\r\nContent-Type: text/plain\r\nContent-Length: 0",
    "POST {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 0",
    "OPTIONS {}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true",
    "OPTIONS {}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Local-Network: true",
];

/// A gateway with listeners of every kind: its first TCP listener, one over IPv6, one bound to tenant and service, one on
/// a Unix socket.
fn everywhere() -> TestGateway {
    start_with(1, &[Stand::new("dmp")], |text| {
        text.push_str(
            "\n[[listeners]]\naddress = \"[::1]:0\"\n\
             \n[[listeners]]\naddress = \"127.0.0.1:0\"\nservice = \"dmp\"\n\
             \n[[listeners]]\naddress = \"unix:browsers.sock\"\n",
        );
    })
}

async fn asked(address: &ListenAddress, text: &str) -> RawAnswer {
    let answer = match address {
        ListenAddress::Tcp(address) => {
            let mut raw = Raw::connect(*address).await;
            raw.write(text).await;
            raw.answer(false).await
        }
        ListenAddress::Unix(path) => {
            let mut raw = Raw::over(UnixStream::connect(path).await.unwrap());
            raw.write(text).await;
            raw.answer(false).await
        }
    };
    answer.unwrap()
}

fn text(line: &str, path: &str, fields: &str) -> String {
    let line = line.replace("{}", &format!("{path} HTTP/1.1"));
    format!("{line}\r\n{fields}\r\n\r\n")
}

/// Refused, with nothing that would have the page try again or read the answer (CORS, Private Network Access).
fn is_refused(answer: &RawAnswer, what: &str) {
    assert!(matches!(answer.status, 400 | 403), "{what:?}: {answer:?}");
    let head = answer.head.to_ascii_lowercase();
    assert!(!head.contains("access-control"), "{what:?}: {head}");
    assert!(!head.contains("set-cookie"), "{what:?}: {head}");
}

fn nothing_was_sent(gateway: &TestGateway) {
    assert_eq!(gateway.site.simulators[0].1.handshakes(), (0, 0));
}

/// Every listener, and a path on it that a program is served at.
fn doors(gateway: &TestGateway) -> Vec<(ListenAddress, &'static str)> {
    let mut doors: Vec<_> = (gateway.addresses.iter())
        .map(|address| (address.clone(), "/dmp/x"))
        .collect();
    doors.push((ListenAddress::Tcp(gateway.admin), "/api/v1/status"));
    assert_eq!(doors.len(), 5);
    doors
}

#[tokio::test]
async fn a_web_page_is_refused_by_its_marks_on_every_listener() {
    let gateway = everywhere();
    let tenant = format!("X-Finess: {}", gateway.tenant(0));
    for (address, path) in doors(&gateway) {
        for mark in MARKS {
            for line in LINES {
                let fields = format!("Host: localhost\r\n{tenant}\r\n{mark}");
                let answer = asked(&address, &text(line, path, &fields)).await;
                is_refused(&answer, &format!("{address:?} {line} {mark}"));
            }
        }
    }
    nothing_was_sent(&gateway);
}

#[tokio::test]
async fn a_name_that_is_not_this_machines_is_refused_on_every_listener_that_browsers_reach() {
    let gateway = everywhere();
    let tenant = format!("X-Finess: {}", gateway.tenant(0));
    for (address, path) in doors(&gateway) {
        if matches!(address, ListenAddress::Unix(_)) {
            continue;
        }
        for host in HOSTS {
            for line in LINES {
                let fields = format!("Host: {host}\r\n{tenant}");
                let answer = asked(&address, &text(line, path, &fields)).await;
                is_refused(&answer, &format!("{address:?} {line} {host}"));
            }
        }
    }
    nothing_was_sent(&gateway);
}

#[tokio::test]
async fn what_changes_something_by_administration_is_refused_to_web_pages() {
    let gateway = everywhere();
    let before = gateway.metric("relais_reload_total", &[]);
    let admin = ListenAddress::Tcp(gateway.admin);
    for fields in ["Host: evil.example", "Host: localhost\r\nOrigin: null"] {
        for line in LINES {
            let answer = asked(&admin, &text(line, "/api/v1/reload", fields)).await;
            is_refused(&answer, fields);
        }
    }
    assert_eq!(gateway.metric("relais_reload_total", &[]), before);
}

#[tokio::test]
async fn programs_are_served_on_every_listener_under_its_local_names() {
    let gateway = everywhere();
    let tenant = format!("X-Finess: {}", gateway.tenant(0));
    for (address, path) in doors(&gateway) {
        for host in ["localhost", "127.0.0.1:1", "[::1]", "[::1]:1"] {
            let fields = format!("Host: {host}\r\n{tenant}");
            let answer = asked(&address, &text("GET {}", path, &fields)).await;
            assert_eq!(answer.status, 200, "{address:?} {host}: {answer:?}");
        }
    }
}
