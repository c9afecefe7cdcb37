//! The demonstration's check: what must be let through, under the right certificate, and what must be refused.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::RETRY_AFTER;

use super::cases::{self, Case};
use super::odd::Odd;
use crate::cli::{ask, print};
use crate::gateway::address::X_FINESS;
use crate::identity::finess::Finess;
use crate::services::WantedCertificate;
use crate::simulator::requests;
use crate::simulator::server::{Seen, Simulator};
use crate::simulator::site::{Site, Stand};

/// Sends it all and prints what came of it; whether all is as it should be.
pub(super) fn run(site: &Site, odd: &Odd, gateway: SocketAddr) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let served = served(site, gateway).await?;
        let refused = refused(site, odd, gateway).await?;
        Ok(served && refused)
    })
}

/// Sends a request for each (tenant, service) and prints which certificate was seen. Twice, so that the second goes
/// over a connection that the first opened.
async fn served(site: &Site, gateway: SocketAddr) -> anyhow::Result<bool> {
    let mut right = 0;
    print(&format!(
        "{:<11} {:<10} {:<12} {:<28} {:<9} {}\n",
        "tenant", "service", "saw OU", "saw CN", "over", "verdict"
    ));
    for _ in 0..2 {
        for tenant in &site.tenants {
            let mut token = None;
            for (stand, simulator) in &site.simulators {
                let request = requests::right(*tenant, stand.name, token.as_deref());
                let answer = patiently(gateway, &request).await?;
                if stand.name == "ror" {
                    token = access_token(&answer);
                }
                right += usize::from(told(*tenant, *stand, simulator, &answer));
            }
        }
    }
    let total = 2 * site.tenants.len() * site.simulators.len();
    print(&format!(
        "\n{right} of {total} requests were seen under the right certificate\n\n"
    ));
    Ok(right == total)
}

/// Sends a request, again once it may where it came too soon after others.
async fn patiently(
    gateway: SocketAddr,
    request: &http::Request<Bytes>,
) -> anyhow::Result<Response<Bytes>> {
    loop {
        let answer = ask::send(gateway, request.clone()).await?;
        let wait = (answer.headers().get(RETRY_AFTER))
            .filter(|_| answer.status() == http::StatusCode::TOO_MANY_REQUESTS)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(seconds) = wait else {
            return Ok(answer);
        };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn access_token(answer: &Response<Bytes>) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
    json["access_token"].as_str().map(str::to_owned)
}

/// Prints what a simulator saw, and says whether that is right.
fn told(tenant: Finess, stand: Stand, simulator: &Simulator, answer: &Response<Bytes>) -> bool {
    let seen = simulator
        .take_seen()
        .or_else(|| serde_json::from_slice::<Seen>(answer.body()).ok());
    let Some(seen) = seen.filter(|_| answer.status().is_success()) else {
        print(&format!(
            "{tenant:<11} {:<10} WRONG: {} {}\n",
            stand.name,
            answer.status(),
            String::from_utf8_lossy(answer.body())
        ));
        return false;
    };
    let right = is_right(&seen, tenant, stand);
    print(&format!(
        "{:<11} {:<10} {:<12} {:<28} {:<9} {}\n",
        tenant,
        stand.name,
        seen.ou.as_deref().unwrap_or("-"),
        seen.cn.as_deref().unwrap_or("no certificate"),
        seen.tls,
        if right { "right" } else { "WRONG" }
    ));
    right
}

fn is_right(seen: &Seen, tenant: Finess, stand: Stand) -> bool {
    let ou = Some(format!("1{tenant}"));
    let as_wanted = match stand.certificate {
        WantedCertificate::None => seen.ou.is_none() && seen.cn.is_none(),
        WantedCertificate::OrgAuthCli => {
            seen.ou == ou && seen.cn.as_deref().is_some_and(|cn| !cn.starts_with("INSI"))
        }
        WantedCertificate::InsiAuto => seen.ou == ou && seen.cn.as_deref() == Some("INSI-AUTO"),
        WantedCertificate::InsiManu => seen.ou == ou && seen.cn.as_deref() == Some("INSI-MANU"),
    };
    let leaked = seen
        .headers
        .iter()
        .any(|(name, _)| name == X_FINESS.as_str());
    seen.service == stand.name && as_wanted && !leaked
}

/// Sends what must not be let through, or not without a word, and prints what came back.
async fn refused(site: &Site, odd: &Odd, gateway: SocketAddr) -> anyhow::Result<bool> {
    let cases = cases::all(site, odd);
    print(&format!(
        "{:<72} {:<41} {}\n",
        "case", "came back", "verdict"
    ));
    let mut right = 0;
    for case in &cases {
        let (came_back, as_expected) = tried(site, case, gateway).await?;
        right += usize::from(as_expected);
        let verdict = if as_expected { "right" } else { "WRONG" };
        print(&format!("{:<72} {came_back:<41} {verdict}\n", case.what));
        if !as_expected {
            print(&format!("{:<4} expected: {:?}\n", "", case.expected));
        }
    }
    let total = cases.len();
    print(&format!(
        "\n{right} of {total} cases ended as they should\n"
    ));
    Ok(right == total)
}

async fn tried(site: &Site, case: &Case, gateway: SocketAddr) -> anyhow::Result<(String, bool)> {
    let mut outcome = (String::new(), false);
    for _ in 0..case.times {
        for (_, simulator) in &site.simulators {
            simulator.take_seen();
        }
        let answer = ask::send(gateway, case.request.clone()).await?;
        let reached =
            (site.simulators.iter()).any(|(_, simulator)| simulator.take_seen().is_some());
        outcome = case.expected.judge(&answer, reached);
        if outcome.1 {
            break;
        }
    }
    Ok(outcome)
}
