//! The part of a check that talks to services: a handshake for each (tenant, service).

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli::check::findings::Finding;
use crate::gateway::reply::Problem;
use crate::gateway::table::Table;

/// Handshakes at once. National services should not take a check for an attack.
const AT_ONCE: usize = 16;

/// Makes all handshakes. Returns how many succeeded, and what was found of the others.
pub(super) async fn probe_all(table: &Table) -> (usize, Vec<Finding>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut probes = JoinSet::new();
    for (who, pool) in table.pools() {
        let permits = Arc::clone(&permits);
        probes.spawn(async move {
            let _permit = permits.acquire().await;
            let outcome = pool.probe().await;
            (who, Arc::clone(&pool.service().name), outcome)
        });
    }
    let mut reached = 0;
    let mut failures = Vec::new();
    while let Some(probed) = probes.join_next().await {
        // A probe that panicked has said so on standard error, and counts as not reached.
        let Ok((who, service, outcome)) = probed else {
            continue;
        };
        match outcome {
            Ok(_) => reached += 1,
            Err(error) => {
                let who = who.map_or_else(
                    || "without certificate".to_owned(),
                    |finess| finess.to_string(),
                );
                let problem = Problem::from(error);
                let message = format!(
                    "{who} → {service}: {} ({})",
                    problem.detail,
                    problem.code.as_str()
                );
                failures.push(Finding::error(message, problem.hint));
            }
        }
    }
    failures.sort_by(|one, other| one.message.cmp(&other.message));
    (reached, failures)
}
