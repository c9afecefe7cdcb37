//! A gateway with callers, tenants and services, whose wires, files, configuration and clock can be meddled with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::KeyPair;
use relais::identity::finess::Finess;
use relais::identity::profile::Fingerprint;
use relais::simulator::pki::{self, Request};
use relais::simulator::site::sample_finess;
use tokio::runtime::Runtime;

use super::judge::{At, Judge, Rights};
use super::wire::Wire;
use crate::support::{self, TestGateway};
use crate::witness::{Manner, Witness};

pub const TENANTS: usize = 20;

/// One for each way of speaking HTTP.
pub const SERVICES: [&str; 3] = ["one", "two", "either"];

const SERVICE_KEYS: [&str; 3] = [
    "http = \"h1\"\nretry = \"idempotent\"",
    "http = \"h2\"\nretry = \"idempotent\"",
    "http = \"auto\"",
];

/// Whose tokens requests show. The last but one's is known nowhere, the last shows none.
pub const CALLERS: [Option<&str>; 5] = [
    Some("alpha"),
    Some("beta"),
    Some("gamma"),
    Some("stranger"),
    None,
];

/// What callers may do, and as whom the configuration has them: number, tenants (from, to), services.
pub struct Version {
    pub rights: Rights,
    callers: &'static [(usize, usize, usize, &'static [&'static str])],
}

/// Versions that follow one another, and the last of all.
pub const VERSIONS: [Version; 3] = [
    Version {
        rights: |caller, tenant, service| match caller {
            0 => tenant < 10,
            1 => (5..15).contains(&tenant) && service < 2,
            2 => service == 2,
            _ => false,
        },
        callers: &[
            (0, 0, 10, &[]),
            (1, 5, 15, &["one", "two"]),
            (2, 0, TENANTS, &["either"]),
        ],
    },
    Version {
        rights: |caller, tenant, _| caller == 0 && tenant >= 10 || caller == 2,
        callers: &[(0, 10, TENANTS, &[]), (2, 0, TENANTS, &[])],
    },
    Version {
        rights: |caller, _, _| caller == 0,
        callers: &[(0, 0, TENANTS, &[])],
    },
];

/// A tenant's certificate that is in its file.
#[derive(Clone, Default)]
pub struct Current {
    pub pem: String,
    pub sha256: String,
}

pub struct Scene {
    pub gateway: TestGateway,
    pub judge: Arc<Judge>,
    pub tenants: Vec<Finess>,
    pub wires: Vec<Wire>,
    pub current: Mutex<Vec<Current>>,
    /// How often what was troubled.
    pub troubles: Mutex<BTreeMap<&'static str, u64>>,
    /// The configuration without its callers.
    base: String,
    keys: Vec<Arc<KeyPair>>,
    _witnesses: Vec<Witness>,
}

impl Scene {
    /// For so many requests; wires live on that runtime.
    pub fn new(requests: u64, runtime: &Runtime) -> Self {
        let tenants: Vec<_> = (0..TENANTS).map(sample_finess).collect();
        let requests = usize::try_from(requests).unwrap();
        let judge = Arc::new(Judge::new(tenants.clone(), SERVICES.to_vec(), requests));
        let keys = pki::generate_keys(4);
        let mut parts = None;
        let (gateway, ()) = support::start_on(0, &[], |site, text| {
            let (mut wires, mut witnesses) = (Vec::new(), Vec::new());
            let trust = site.directory.join("witnesses.pem");
            std::fs::write(&trust, site.pki.authority_pem()).unwrap();
            // On its first line, where tables have not begun.
            text.insert_str(0, "workers = 3\n");
            for (service, name) in SERVICES.iter().enumerate() {
                let judge = Arc::clone(&judge);
                let manner = Manner {
                    judge: Some(Arc::new(At { judge, service })),
                    ..Manner::default()
                };
                let witness = Witness::start(&[&site.pki], manner);
                let wire = runtime.block_on(Wire::to(witness.address));
                let port = wire.address.port();
                writeln!(
                    text,
                    "\n[services.{name}]\nurl = \"https://localhost:{port}\"\naddress = \"{}\"\ntrust = {trust:?}\n{}\n\
                     pool.max_connections = 12\npool.idle_timeout = \"300ms\"\n\
                     [services.{name}.timeouts]\nconnect = \"1s\"\nhandshake = \"1s\"\nresponse = \"500ms\"\n\
                     body = \"500ms\"",
                    wire.address, SERVICE_KEYS[service]
                )
                .unwrap();
                wires.push(wire);
                witnesses.push(witness);
            }
            text.push_str("\n[shutdown]\ngrace = \"100ms\"\n");
            let current = (0..TENANTS)
                .map(|tenant| {
                    let current = issue(&site.pki, &keys, tenant, &judge);
                    let file = site.directory.join(file_of(tenant));
                    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                    pki::write_private(&file, &current.pem).unwrap();
                    current
                })
                .collect();
            let base = text.clone();
            judge.may_come(VERSIONS[0].rights);
            text.push_str(&callers(&VERSIONS[0]));
            parts = Some((wires, witnesses, current, base));
        });
        let (wires, witnesses, current, base) = parts.unwrap();
        Self {
            gateway,
            judge,
            tenants,
            wires,
            current: Mutex::new(current),
            troubles: Mutex::default(),
            base,
            keys,
            _witnesses: witnesses,
        }
    }

    pub fn note(&self, trouble: &'static str) {
        *self.troubles.lock().unwrap().entry(trouble).or_default() += 1;
    }

    /// Where a tenant's certificate and key are.
    pub fn file(&self, tenant: usize) -> PathBuf {
        self.gateway.path().join(file_of(tenant))
    }

    /// A new certificate for a tenant. It is in no file yet.
    pub fn issue(&self, tenant: usize) -> Current {
        issue(&self.gateway.site.pki, &self.keys, tenant, &self.judge)
    }

    /// The whole configuration in a version.
    pub fn configuration(&self, version: usize) -> String {
        format!("{}{}", self.base, callers(&VERSIONS[version]))
    }

    /// Has everything read again.
    pub async fn reload(&self) {
        let report = support::within(self.gateway.app.reload()).await;
        if let Err(error) = report {
            self.judge.note(format!("a reload failed: {error:#}"));
        }
    }
}

fn file_of(tenant: usize) -> String {
    format!("certs/{}/auth_cli.pem", sample_finess(tenant))
}

fn issue(pki: &pki::Pki, keys: &[Arc<KeyPair>], tenant: usize, judge: &Judge) -> Current {
    // Few keys: a key that several certificates share must not make them one identity either.
    let key = Some(Arc::clone(&keys[tenant % keys.len()]));
    let structure = format!("1{}", sample_finess(tenant));
    let issued = pki.issue(&Request {
        key,
        ..Request::new(&structure, "DUI")
    });
    let current = Current {
        pem: issued.pem().as_str().to_owned(),
        sha256: Fingerprint::of(&issued.cert_der).to_string(),
    };
    judge.issued(&current.sha256, tenant);
    current
}

fn callers(version: &Version) -> String {
    let mut text = String::new();
    for (caller, from, to, services) in version.callers {
        let hash = support::hash_of(CALLERS[*caller].unwrap_or_default());
        let tenants: Vec<_> = (*from..*to)
            .map(|tenant| sample_finess(tenant).to_string())
            .collect();
        writeln!(
            text,
            "\n[[callers]]\nname = \"caller-{caller}\"\ntenants = {tenants:?}\ntokens = [\"{hash}\"]"
        )
        .unwrap();
        let services = if services.is_empty() {
            &["*"]
        } else {
            *services
        };
        writeln!(text, "services = {services:?}").unwrap();
    }
    text
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
