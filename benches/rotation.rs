//! What a request costs the workers while its certificate is replaced ten times a second, the handshakes after that
//! included. What the side plane does to read it is not: `benches/rotation/run.sh` tells of that.

use std::cell::LazyCell;
use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, SamplingMode};
use relais::services::HttpVersions;
use relais::simulator::pki::{self, Request};
use relais::simulator::site::Stand;

use crate::load::{Asked, Load};
use crate::one_thread;
use crate::support::{TestGateway, start_with};

/// How often the certificate is replaced.
const EVERY: Duration = Duration::from_millis(100);

/// Certificates that take turns, each with a key of its own.
const CERTIFICATES: usize = 2;

fn gateway() -> TestGateway {
    let stand = Stand {
        http: HttpVersions::H1,
        ..Stand::new("dmp")
    };
    start_with(1, &[stand], |text| {
        let folder = "directory = \"certs\"";
        *text = text.replace(folder, &format!("{folder}\nreload = \"manual\""));
        text.insert_str(0, "workers = 1\n");
    })
}

/// Replaces the certificate again and again until it is dropped.
struct Replacing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Replacing {
    /// Returns when it has been replaced for the first time.
    fn begin(gateway: &TestGateway) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (replaced, first) = mpsc::channel();
        let (app, tenant) = (Arc::clone(&gateway.app), gateway.tenant(0));
        let path = gateway.path().join(format!("certs/{tenant}/auth_cli.pem"));
        let certificates = [(); CERTIFICATES].map(|_| {
            let ou = format!("1{tenant}");
            let order = Request::new(&ou, "Logiciel de demonstration");
            gateway.site.pki.issue(&order).pem()
        });
        let thread = thread::spawn(move || {
            let runtime = one_thread();
            for certificate in certificates.iter().cycle() {
                let aside = path.with_extension("new");
                pki::write_private(&aside, certificate).expect("the folder can be written to");
                fs::rename(&aside, &path).expect("the folder can be written to");
                let report = runtime.block_on(app.reload());
                report.expect("the folder can be read");
                // Only the first is waited for.
                let _ = replaced.send(());
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        first.recv().expect("the certificate is replaced");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("reloads succeed");
        }
    }
}

pub(crate) fn rotation(criterion: &mut Criterion) {
    let gateway = LazyCell::new(gateway);
    let mut group = criterion.benchmark_group("rotation");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    for (what, is_replaced) in [
        ("request, nothing is replaced", false),
        ("request, its certificate is replaced", true),
    ] {
        let mut made = None;
        group.bench_function(what, |bencher| {
            let (load, _) = made.get_or_insert_with(|| {
                let asked = Asked {
                    path: "/dmp/echo",
                    tenants: gateway.site.tenants.clone().into(),
                    body: Bytes::from(vec![b'x'; 1024]),
                };
                let load = Load::new(gateway.address(), false, asked);
                (load, is_replaced.then(|| Replacing::begin(&gateway)))
            });
            bencher.iter_custom(|requests| load.cost(requests));
        });
    }
    group.finish();
}
