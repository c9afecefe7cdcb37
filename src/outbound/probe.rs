//! A handshake for its own sake: does the service take this certificate, and do we take the service's?

use std::sync::Arc;
use std::time::Duration;

use crate::outbound::error::Error;
use crate::outbound::pool::Pool;
use crate::outbound::tls::Secured;

/// How long a TLS 1.3 server may take to look at the certificate after its client has finished. A server that sends
/// session tickets answers sooner; one that sends none says nothing at all, and silence then means yes.
const VERDICT_WITHIN: Duration = Duration::from_millis(500);

impl Pool {
    /// Makes a handshake with the service, sends no request, and closes.
    ///
    /// # Errors
    /// Why a request would have failed.
    pub async fn probe(self: &Arc<Self>) -> Result<(), Error> {
        let mut secured = self.handshake(false).await?;
        self.verdict(&mut secured).await
    }

    /// Waits for what the service says to the certificate that it was shown.
    ///
    /// # Errors
    /// When it refuses it.
    pub(super) async fn verdict(&self, secured: &mut Secured) -> Result<(), Error> {
        let within = VERDICT_WITHIN.min(self.service().timeouts.response);
        match tokio::time::timeout(within, secured.stream.verdict()).await {
            Ok(Err(error)) => Err(Error::from_handshake(error)),
            Ok(Ok(true)) => {
                self.accepted();
                Ok(())
            }
            // An answer to a request will settle it.
            Err(_) => Ok(()),
            Ok(Ok(false)) => Err(Error::broken(
                "it closed the connection right after the handshake",
            )),
        }
    }
}
