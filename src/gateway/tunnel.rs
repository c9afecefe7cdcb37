//! What follows when an application and a service leave HTTP by agreement.

use std::pin::Pin;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::outbound::pool::Pool;

/// What passes bytes both ways once HTTP is left. In a box, or all answers would be as large as the one in a million.
pub(super) type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Passes bytes both ways between an application and a service that have left HTTP. Ends with either side, at the age
/// at which a pooled connection would have been closed too, and when what is in flight under its certificate has to.
pub(super) fn between(application: OnUpgrade, service: OnUpgrade, pool: Arc<Pool>) -> Tunnel {
    Box::pin(pass(application, service, pool))
}

async fn pass(application: OnUpgrade, service: OnUpgrade, pool: Arc<Pool>) {
    let lifetime = pool.service().pool.max_lifetime;
    let copying = tokio::time::timeout(lifetime, async {
        let (application, service) = tokio::try_join!(application, service)?;
        let (mut application, mut service) = (TokioIo::new(application), TokioIo::new(service));
        // A reset on either side is how such connections usually end.
        let _ = tokio::io::copy_bidirectional(&mut application, &mut service).await;
        Ok::<_, hyper::Error>(())
    });
    let copied = tokio::select! {
        copied = copying => copied,
        () = pool.cut_off() => return,
    };
    if let Ok(Err(error)) = copied {
        tracing::debug!(%error, "an upgrade was agreed on and not carried out");
    }
}
