//! A handshake for its own sake: does the service take this certificate, and do we take the service's?

use std::sync::Arc;
use std::time::Duration;

use crate::outbound::error::Error;
use crate::outbound::pool::Pool;
use crate::outbound::sessions::Turn;
use crate::outbound::tls::Secured;

/// How long a TLS 1.3 server may take to look at the certificate after its client has finished. A server that sends
/// session tickets answers sooner; one that sends none says nothing at all, and silence then means yes.
const VERDICT_WITHIN: Duration = Duration::from_millis(500);

/// What a service says of a certificate that it was shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It takes it.
    Taken,
    /// Nothing, before the first answer: most probably yes.
    Silence,
}

impl Pool {
    /// Makes a handshake with the service, sends no request, and closes.
    ///
    /// # Errors
    /// Why a request would have failed.
    pub(crate) async fn probe(self: &Arc<Self>) -> Result<Verdict, Error> {
        let mut secured = self.handshake(false, &mut Turn::free()).await?;
        // Nobody waits for it: a service that asks others about a certificate has the time for it.
        let within = self.service().timeouts.handshake;
        verdict(&mut secured, within.max(VERDICT_WITHIN)).await
    }

    /// Waits for what the service says of the certificate that it was shown, before a request is sent.
    ///
    /// # Errors
    /// When it refuses it.
    pub(super) async fn hear(&self, secured: &mut Secured) -> Result<(), Error> {
        match verdict(secured, VERDICT_WITHIN).await? {
            Verdict::Taken => self.accepted(),
            Verdict::Silence => self.told_nothing(),
        }
        Ok(())
    }
}

async fn verdict(secured: &mut Secured, within: Duration) -> Result<Verdict, Error> {
    match tokio::time::timeout(within, secured.stream.verdict()).await {
        Ok(Err(error)) => Err(Error::from_handshake(error)),
        Ok(Ok(true)) => Ok(Verdict::Taken),
        Err(_) => Ok(Verdict::Silence),
        Ok(Ok(false)) => Err(Error::broken(
            "it closed the connection right after the handshake",
        )),
    }
}
