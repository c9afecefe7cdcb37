//! One gateway after the other: this one serves before it asks its predecessor to stop, and is there for a successor.

use std::io;
use std::sync::Arc;

use socket2::Socket;

use super::supervisor::{self, Pulse};
use super::{App, Bound};
use crate::takeover::{self, Offer, Predecessor};

/// Who was before, and whether somebody may come after.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    predecessor: Option<Predecessor>,
    offer: Option<Offer>,
}

impl Bound {
    /// Asks the gateway before this one to stop, when this one serves.
    #[must_use]
    pub fn take_over_from(mut self, predecessor: Predecessor) -> Self {
        self.takeover.predecessor = Some(predecessor);
        self
    }

    /// Hands the sockets over to a successor that asks for them. There can be one such gateway in a process.
    ///
    /// # Errors
    /// When a successor could not find this process.
    pub fn offer_sockets(&mut self) -> io::Result<()> {
        let listening = self.listeners.iter().flat_map(|one| &one.sockets);
        let mut sockets: Vec<_> = listening.map(Socket::try_clone).collect::<Result<_, _>>()?;
        if let Some(admin) = &self.admin {
            sockets.push(admin.try_clone()?.into());
        }
        self.takeover.offer = Some(Offer::new(sockets)?);
        Ok(())
    }
}

/// Once all workers serve, says so to whoever waits for it, and is there for a successor.
pub(super) async fn follow(app: Arc<App>, mut pulse: Pulse, takeover: Takeover) {
    pulse.felt().await;
    let unready = app.unready();
    tokio::spawn(supervisor::follow(app, pulse));
    match (takeover.predecessor, unready) {
        (None, _) => {}
        (Some(predecessor), None) => predecessor.dismiss(),
        (Some(predecessor), Some(reason)) => {
            tracing::error!(
                reason,
                "nothing can be served here: the gateway before this one goes on, and this one stops"
            );
            // That its connection ends tells it.
            drop(predecessor);
            takeover::stop_this_process();
            return;
        }
    }
    if let Some(offer) = takeover.offer {
        offer.serve().await;
    }
}
