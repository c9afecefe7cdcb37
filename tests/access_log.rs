//! The access log as a record: nothing of it is lost or torn when it is rotated, and refusals are on it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use relais::gateway::caller::{TokenHash, new_token};
use relais::simulator::site::Stand;
use support::raw::Raw;
use support::{Client, DEADLINE, TestGateway, eventually, start, start_on, within};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// How often the log is rotated under load.
const ROTATIONS: usize = 25;

/// Applications that send requests until told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    running: JoinSet<()>,
}

impl Load {
    fn on(gateway: &TestGateway) -> Self {
        let mut load = Self {
            is_over: Arc::default(),
            answered: Arc::default(),
            running: JoinSet::new(),
        };
        for _ in 0..4 {
            let (address, tenant) = (gateway.address(), gateway.tenant(0));
            let (is_over, answered) = (Arc::clone(&load.is_over), Arc::clone(&load.answered));
            load.running.spawn(async move {
                let mut client = Client::connect(address).await;
                while !is_over.load(Ordering::Relaxed) {
                    let request = Request::get("/dmp/x").header("x-finess", tenant.as_str());
                    let answer = client.send(request.body(Bytes::new()).unwrap()).await;
                    assert_eq!(answer.status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Ends it, and tells how many requests there were.
    async fn end(mut self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = within(self.running.join_next()).await {
            ended.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn is_written_to(log: &Path) -> bool {
    fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

/// All lines of these files, each of which must be whole.
fn lines_of(files: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}",
            file.display()
        );
        for line in text.lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["status"], 200, "{line}");
            lines.push(line.to_owned());
        }
    }
    lines
}

#[tokio::test]
async fn no_line_is_lost_or_torn_when_the_log_is_renamed_under_load() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let log = gateway.path().join("access.log");
    let load = Load::on(&gateway);
    let mut files = vec![log.clone()];
    for turn in 0..ROTATIONS {
        eventually("the log is written to", || is_written_to(&log)).await;
        let old = log.with_extension(turn.to_string());
        fs::rename(&log, &old).unwrap();
        if turn % 2 == 0 {
            // As logrotate's `create` does it; the gateway may have been faster.
            drop(
                fs::OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .open(&log),
            );
        }
        files.push(old);
    }
    eventually("the log is written to", || is_written_to(&log)).await;
    let answered = load.end().await;
    gateway.app.gateway.log.flush(DEADLINE);
    assert_eq!(lines_of(files).len(), answered);
    assert_eq!(gateway.metric("relais_access_log_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn no_line_is_lost_when_the_log_is_removed_under_load() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let log = gateway.path().join("access.log");
    let load = Load::on(&gateway);
    // What was in a file when it was removed: whatever is written to it later, nobody finds.
    let mut removed = String::new();
    for _ in 0..ROTATIONS {
        eventually("the log is written to", || is_written_to(&log)).await;
        let file = fs::File::open(&log).unwrap();
        fs::remove_file(&log).unwrap();
        removed.push_str(&std::io::read_to_string(file).unwrap());
    }
    eventually("the log is written to", || is_written_to(&log)).await;
    let answered = load.end().await;
    gateway.app.gateway.log.flush(DEADLINE);
    // Lines that went into a file as it was removed are in the next one as well: no line is there less than once.
    let mut lines: HashSet<String> = lines_of([log]).into_iter().collect();
    lines.extend(removed.lines().map(str::to_owned));
    assert_eq!(lines.len(), answered);
    assert_eq!(gateway.metric("relais_access_log_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn an_idle_gateway_makes_the_log_anew_for_its_group_alone() {
    let gateway = start(1, &[Stand::new("dmp")], "");
    let log = gateway.path().join("access.log");
    let mode = || fs::metadata(&log).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o640);
    fs::rename(&log, log.with_extension("1")).unwrap();
    eventually("there is another log", || log.exists()).await;
    eventually("it is its group's", || mode() == 0o640).await;
}

#[tokio::test]
async fn refusals_are_on_record_with_who_and_what_is_known() {
    let token = new_token().unwrap();
    let hash = TokenHash::of(token.as_bytes());
    let (gateway, ()) = start_on(2, &[Stand::new("dmp"), Stand::new("ror")], |site, text| {
        text.push_str(&format!(
            "[[callers]]\nname = \"dui\"\ntokens = [\"{hash}\"]\ntenants = [\"{}\"]\nservices = [\"dmp\"]\n",
            site.tenants[0]
        ));
    });
    let (own, other) = (gateway.tenant(0), gateway.tenant(1));
    let origin = ("origin", "https://evil.example");
    let recognised = ("x-relais-token", token.as_str());
    let unknown = ("x-relais-token", "relais_wrong");
    // What is sent, and what is to be on record: code, caller, tenant, service.
    for (tenant, path, field, code, expected) in [
        (
            own,
            "/dmp/x",
            unknown,
            "caller_unauthenticated",
            (None, Some(own), Some("dmp")),
        ),
        (
            other,
            "/dmp/x",
            recognised,
            "caller_forbidden",
            (Some("dui"), Some(other), Some("dmp")),
        ),
        (
            own,
            "/ror/x",
            recognised,
            "caller_forbidden",
            (Some("dui"), Some(own), Some("ror")),
        ),
        (own, "/dmp/x", origin, "browser_refused", (None, None, None)),
    ] {
        let request = Request::get(path)
            .header("x-finess", tenant.as_str())
            .header(field.0, field.1)
            .body(Bytes::new())
            .unwrap();
        let answer = gateway.send(request).await;
        assert_eq!(answer.code(), code, "{path}");
        let log = gateway.log();
        let line = log.last().unwrap();
        assert_eq!(line["code"], code, "{line}");
        let word = |key: &str| {
            line.get(key)
                .map(|value| value.as_str().unwrap().to_owned())
        };
        let (caller, tenant, service) = expected;
        assert_eq!(word("caller").as_deref(), caller, "{line}");
        assert_eq!(
            word("tenant"),
            tenant.map(|tenant| tenant.to_string()),
            "{line}"
        );
        assert_eq!(word("service").as_deref(), service, "{line}");
        // Nothing that was sent to be recognised by.
        assert!(!line.to_string().contains("relais_"), "{line}");
    }
}

#[tokio::test]
async fn a_socket_of_any_name_leaves_a_line_that_can_be_read() {
    let name = "re\"lais\\é.sock";
    let (gateway, socket) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let listener = "unix:re\\\"lais\\\\é.sock";
        *text = text.replacen("127.0.0.1:0", listener, 1);
        site.directory.join(name)
    });
    let mut raw = Raw::over(within(UnixStream::connect(socket)).await.unwrap());
    raw.write(gateway.get_bytes("/dmp/x")).await;
    assert_eq!(raw.answer(false).await.unwrap().status, 200);
    drop(raw);
    eventually("there is a line", || !gateway.log().is_empty()).await;
    let listener = gateway.log()[0]["listener"].as_str().unwrap().to_owned();
    assert!(listener.ends_with(name), "{listener}");
}
