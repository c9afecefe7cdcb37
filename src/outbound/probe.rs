//! A handshake for its own sake: does the service take this certificate, and do we take the service's?

use std::sync::Arc;
use std::time::Duration;

use crate::outbound::error::Error;
use crate::outbound::pool::Pool;

/// How long a TLS 1.3 server may take to look at the certificate after its client has finished. A server that sends
/// session tickets answers sooner; one that sends none says nothing at all, and silence then means yes.
const VERDICT_WITHIN: Duration = Duration::from_millis(500);

impl Pool {
    /// Makes a handshake with the service, sends no request, and closes.
    ///
    /// # Errors
    /// Why a request would have failed.
    pub async fn probe(self: &Arc<Self>) -> Result<(), Error> {
        let service = self.service();
        let mut secured = self.handshake(false).await?;
        let verdict = secured.stream.verdict();
        match tokio::time::timeout(VERDICT_WITHIN.min(service.timeouts.response), verdict).await {
            Ok(Err(error)) => Err(Error::from_handshake(error)),
            Ok(Ok(true)) | Err(_) => Ok(()),
            Ok(Ok(false)) => Err(Error::broken(
                "it closed the connection right after the handshake",
            )),
        }
    }
}
