//! Listeners: each bound once for every worker, with what it says of the requests that arrive on it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use socket2::Socket;

use crate::config::{ListenAddress, Listener, ListenerTls};
use crate::gateway::address::Bound as Binding;
use crate::gateway::exchange::Reply;
use crate::gateway::guard::Hosts;
use crate::gateway::{Door, Entrance, Taken};
use crate::inbound::Answer;
use crate::inbound::inherited::Inherited;
use crate::inbound::listener::{self, BindError, SocketFile};
use crate::inbound::peer::Peer;
use crate::inbound::tls::{Authority, Security};

/// A listener with at least one socket for each worker.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) address: ListenAddress,
    pub(super) is_unix: bool,
    pub(super) door: Door,
    pub(super) sockets: Vec<Socket>,
    /// Absent where HTTP is spoken in clear text.
    pub(super) security: Option<Security>,
    /// Absent where no tunnels are taken.
    pub(super) authority: Option<Arc<Authority>>,
    /// Removed when the gateway ends.
    pub(super) file: Option<SocketFile>,
}

impl Answer for Arc<Entrance> {
    type Taken = Taken;
    type Body = Reply;

    fn take(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Taken {
        Entrance::take(self, peer, request)
    }

    fn answer(taken: Taken) -> impl Future<Output = Response<Reply>> + Send {
        taken.answer()
    }
}

/// Binds a listener, with a socket for each worker, or takes the sockets that were inherited for it.
///
/// # Errors
/// When its address is taken or cannot be bound.
pub(super) fn open(
    listener: Listener,
    security: Option<Security>,
    authority: Option<Arc<Authority>>,
    workers: NonZeroUsize,
    inherited: &mut Inherited,
) -> Result<Opened, BindError> {
    let bound = listener::Bound::bind(&listener.address, workers.get(), inherited)?;
    let address = bound.address().clone();
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let door = Door {
        name: listener::describe(&address).into(),
        address: listener.address,
        port: match &address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        },
        bound: Binding {
            tenant: listener.tenant,
            service: listener.service,
        },
        hosts: Hosts {
            allowed: listener.allowed_hosts,
            checked: !is_unix,
        },
        takes_tunnels: authority.is_some(),
        is_closed: listener.tls.as_ref().is_some_and(ListenerTls::is_closed),
    };
    tracing::info!(address = %door.name, "listening");
    Ok(Opened {
        address,
        is_unix,
        door,
        security,
        authority,
        file: SocketFile::of(&bound),
        sockets: bound.into_sockets(),
    })
}

impl Door {
    /// The same way in, with what the configuration says of it by now.
    pub(super) fn renewed(&self, listener: &Listener) -> Self {
        Self {
            name: Arc::clone(&self.name),
            address: self.address.clone(),
            port: self.port,
            bound: Binding {
                tenant: listener.tenant,
                service: listener.service.clone(),
            },
            hosts: Hosts {
                allowed: listener.allowed_hosts.clone(),
                checked: self.hosts.checked,
            },
            takes_tunnels: self.takes_tunnels,
            is_closed: listener.tls.as_ref().is_some_and(ListenerTls::is_closed),
        }
    }
}
