//! A request through the whole gateway, on real sockets to a simulator: what one worker computes for it with 16 in
//! flight. The body that is sent comes back.

use std::cell::LazyCell;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode};
use relais::services::HttpVersions;
use relais::simulator::site::Stand;

use crate::load::{Asked, Load};
use crate::support::{TestGateway, start_with};
use crate::unless_tried_out;

/// Versions from the application and to the service: name, whether the application speaks HTTP/2, path.
const WAYS: [(&str, bool, &str); 3] = [
    ("h1 to h1", false, "/dmp/echo"),
    ("h1 to h2", false, "/roc/echo"),
    ("h2 to h2", true, "/roc/echo"),
];

/// Tenants, and bytes of the body. How many tenants there are does not change what a byte costs, so bodies of other
/// sizes are sent for one alone.
const LOADS: [(&str, usize, usize); 5] = [
    ("1 tenant, 1 KiB", 1, 1024),
    ("100 tenants, 1 KiB", 100, 1024),
    ("1,000 tenants, 1 KiB", 1_000, 1024),
    ("1 tenant, no body", 1, 0),
    ("1 tenant, 1 MiB", 1, 1024 * 1024),
];

fn gateway() -> TestGateway {
    let speaks = |name, http| Stand {
        http,
        ..Stand::new(name)
    };
    let stands = [
        speaks("dmp", HttpVersions::H1),
        speaks("roc", HttpVersions::H2),
    ];
    // One worker, so that a request stays on its thread.
    start_with(unless_tried_out(1_000), &stands, |text| {
        text.insert_str(0, "workers = 1\n");
    })
}

pub(crate) fn requests(criterion: &mut Criterion) {
    let gateway = LazyCell::new(gateway);
    let mut group = criterion.benchmark_group("requests");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    for (way, is_h2c, path) in WAYS {
        for (what, tenants, bytes) in LOADS {
            let mut made = None;
            group.bench_function(BenchmarkId::new(way, what), |bencher| {
                let load = made.get_or_insert_with(|| {
                    let tenants = tenants.min(gateway.site.tenants.len());
                    let asked = Asked {
                        path,
                        tenants: gateway.site.tenants[..tenants].into(),
                        body: Bytes::from(vec![b'x'; bytes]),
                    };
                    Load::new(gateway.address(), is_h2c, asked)
                });
                bencher.iter_custom(|requests| load.cost(requests));
            });
        }
    }
    group.finish();
}
