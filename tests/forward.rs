//! Requests through the whole gateway to simulated services, as an application sees them.

mod support;

use relais::simulator::site::Stand;
use support::start;

#[tokio::test]
async fn each_tenant_is_seen_under_its_own_certificate() {
    let gateway = start(3, &[Stand::new("dmp")], "");
    for tenant in gateway.site.tenants.clone() {
        for _ in 0..2 {
            let seen = gateway.get(tenant, "/dmp/v2/services?x=%2f").await.seen();
            assert_eq!(seen.ou, Some(format!("1{tenant}")));
            assert_eq!(seen.path, "/v2/services?x=%2f");
        }
    }
    gateway.stop();
}
