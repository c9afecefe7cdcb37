//! The side plane: whatever is not a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime;
use tokio::sync::{mpsc, watch};

use super::lists::{self, Follow};
use super::succession::{self, Takeover};
use super::supervisor::{self, Pulse};
use super::watching::{self, Watched};
use super::{App, changes, reload};
use crate::gateway::Gateway;
use crate::{admin, notices};

/// How often histograms are folded together, whether or not anybody scrapes, and idle tenants forgotten.
const TIDIED_EVERY: Duration = Duration::from_secs(5);

/// What the side plane does besides watching over connections and the clock.
pub(super) struct Tasks {
    pub(super) admin: Option<std::net::TcpListener>,
    pub(super) reload: Option<watch::Receiver<()>>,
    pub(super) takeover: Takeover,
    pub(super) pulse: Pulse,
    pub(super) watched: watch::Receiver<Option<Watched>>,
    pub(super) followed: mpsc::UnboundedReceiver<Follow>,
}

/// Runs what is not a request: administration, idle connections, metrics. Goes on while a stop lets requests finish,
/// so that whoever watches is told that the gateway is stopping, and returns when the last worker has ended.
pub(super) fn side_plane(
    app: &Arc<App>,
    tasks: Tasks,
    mut stop: watch::Receiver<bool>,
    finish: watch::Sender<bool>,
    mut drained: mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the side runtime cannot be made")?;
    runtime.block_on(async {
        tokio::spawn(Arc::clone(&app.outbound).reap());
        tokio::spawn(tidy(Arc::clone(&app.gateway)));
        tokio::spawn(changes::follow_the_clock(Arc::clone(app)));
        tokio::spawn(lists::follow(Arc::clone(app), tasks.followed));
        let (notices, metrics) = (Arc::clone(&app.notices), Arc::clone(&app.gateway.metrics));
        tokio::spawn(notices::deliver(notices, metrics));
        if let Some(changes) = tasks.reload {
            tokio::spawn(reload::on(Arc::clone(app), changes));
        }
        tokio::spawn(watching::follow(Arc::clone(app), tasks.watched));
        if let Some(listener) = tasks.admin {
            tokio::spawn(admin::serve(listener, Arc::clone(app)));
        }
        let offering = tokio::spawn(succession::follow(
            Arc::clone(app),
            tasks.pulse,
            tasks.takeover,
        ));
        // An error means that whoever could have said stop is gone: stop.
        let _ = stop.wait_for(|stop| *stop).await;
        app.draining.store(true, Ordering::Release);
        supervisor::tell_stopping();
        // Its handles on the sockets go first: workers must be the last to close them, and empty their queues.
        offering.abort();
        let _ = offering.await;
        finish.send_replace(true);
        tracing::info!("stopping: no new connection, requests in flight finish");
        // Nothing is ever sent: the channel ends with the last worker.
        let _ = drained.recv().await;
    });
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(())
}

async fn tidy(gateway: Arc<Gateway>) {
    let mut tick = tokio::time::interval(TIDIED_EVERY);
    loop {
        tick.tick().await;
        gateway.tidy();
    }
}
