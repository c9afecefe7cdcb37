//! What choosing a certificate costs in allocations: nothing.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

use std::hint::black_box;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use relais::gateway::address::{self, Bound, X_FINESS};
use relais::gateway::headers::Overview;
use relais::gateway::table::Table;
use relais::identity::finess::Finess;
use relais::simulator::site::{Ports, Site, Stand, sample_finess};

/// A table with a structure, and a site of it that has no certificate.
fn table(site: Finess) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let built = Site::build(folder.path(), 1, &[Stand::new("dmp")], Ports::default()).unwrap();
    built.table([(site, built.tenants[0])])
}

#[test]
fn choosing_a_certificate_allocates_nothing() {
    let site = sample_finess(9);
    let table = table(site);
    let anywhere = Bound::default();
    for tenant in [sample_finess(0), site] {
        let mut headers = HeaderMap::new();
        headers.insert(X_FINESS, HeaderValue::from_str(tenant.as_str()).unwrap());
        let choose = || {
            let read = address::read(
                black_box("/dmp/v2/services"),
                &headers,
                Overview::of(&headers),
                &anywhere,
            )
            .unwrap();
            let (service, _) = table.service(read.service).unwrap();
            black_box(Arc::clone(table.pool(read.tenant, service).unwrap()));
        };
        let counted = allocation_counter::measure(choose);
        assert_eq!(
            (counted.count_total, counted.bytes_total),
            (0, 0),
            "{tenant}"
        );
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}
