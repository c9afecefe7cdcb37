//! The composition root: a configuration becomes bound sockets, then a running gateway, then a drained one.

mod changes;
mod difference;
mod listening;
pub mod lists;
pub mod reload;
mod report;
mod securities;
mod side;
mod sources;
mod succession;
mod supervisor;
mod watching;
mod worker;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, watch};

use self::listening::Opened;
use self::lists::Follow;
use self::report::{Restart, Trouble};
use self::side::{Tasks, side_plane};
use self::sources::{Sources, Start};
use self::succession::Takeover;
use self::supervisor::Pulse;
use self::watching::Watched;
use self::worker::{Ending, Share};
use crate::admin;
use crate::config::{Config, ListenAddress};
use crate::gateway::caller::Callers;
use crate::gateway::diagnosis::Diagnosis;
use crate::gateway::limits::Count;
use crate::gateway::table::{Offered, Table, Terms};
use crate::gateway::{Entrance, Gateway};
use crate::identity::clock::Clock;
use crate::identity::load::Problem;
use crate::identity::revocation::Revocations;
use crate::identity::states;
use crate::inbound::Inbound;
use crate::inbound::inherited::Inherited;
use crate::inbound::tls::Authority;
use crate::metrics::Metrics;
use crate::notices::{Notices, Webhook};
use crate::outbound::Outbound;
use crate::services::WantedCertificate;
use crate::telemetry::Level;
use crate::telemetry::access::AccessLog;

/// How long a stop waits for the last lines of the access log.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// What the whole process shares.
#[derive(Debug)]
pub struct App {
    /// Answers requests.
    pub gateway: Arc<Gateway>,
    /// Reaches services.
    pub outbound: Arc<Outbound>,
    /// What is revoked by now.
    pub revocations: ArcSwap<Revocations>,
    /// What time it is.
    pub clock: Clock,
    /// What somebody is told.
    pub notices: Arc<Notices>,
    /// What the folder of certificates holds that cannot be used.
    pub problems: ArcSwap<Vec<Problem>>,
    /// What was wrong with files when they were read last, and which keys of the configuration wait for a restart.
    pub remarks: ArcSwap<(Vec<Trouble>, Vec<Restart>)>,
    /// What a reload reads. Held while it does, so that one comes after the other.
    sources: Arc<tokio::sync::Mutex<Sources>>,
    /// Held while the table is replaced by one that is made of it.
    replacing: Mutex<()>,
    /// Sets the level of the log, where it is this gateway's.
    level: OnceLock<Level>,
    /// When the process was ready.
    pub since: SystemTime,
    /// Whether a stop has begun.
    draining: AtomicBool,
}

/// A gateway whose sockets are bound: from here on connections queue up, and nothing can be refused any more.
#[derive(Debug)]
pub struct Bound {
    app: Arc<App>,
    listeners: Vec<Opened>,
    admin: Option<std::net::TcpListener>,
    reload: Option<watch::Receiver<()>>,
    takeover: Takeover,
    watched: watch::Receiver<Option<Watched>>,
    followed: mpsc::UnboundedReceiver<Follow>,
    inbound: Inbound,
    workers: NonZeroUsize,
    grace: Duration,
}

impl App {
    /// Whether a stop has begun.
    fn is_stopping(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether requests can be served, and if not, why not.
    pub fn unready(&self) -> Option<&'static str> {
        if self.is_stopping() {
            return Some("the gateway is stopping");
        }
        let table = self.gateway.table.load();
        let wants = |one: &Arc<Offered>| one.service.certificate != WantedCertificate::None;
        if table.services().iter().any(wants) && !table.serves_anybody() {
            return Some("no certificate can be used now");
        }
        None
    }
}

/// Loads everything that a configuration names and binds its addresses.
///
/// # Errors
/// What keeps the gateway from starting. Unusable files in the folder of certificates do not: they are reported.
pub fn bind(config: Config) -> anyhow::Result<Bound> {
    bind_with(config, Inherited::default())
}

/// The same, with sockets that were open before: they are used for the addresses on which they listen.
///
/// # Errors
/// Also when one of systemd's sockets belongs to no listener.
pub fn bind_with(config: Config, mut inherited: Inherited) -> anyhow::Result<Bound> {
    worker::raise_file_limit();
    let metrics = Metrics::new();
    let log =
        AccessLog::open(&config.log.access, &metrics).context("the access log cannot be opened")?;
    let services: Vec<_> = config.services.iter().cloned().map(Arc::new).collect();
    let clock = Clock::default();
    let (sources, start) = Sources::open(config.clone(), clock.now())?;
    let Start {
        certificates,
        registry,
        revocations,
        followed,
        troubles,
    } = start;
    let outbound = Outbound::new(
        &sources.anchors,
        config.limits.upstream_connections,
        config.workers,
        Arc::clone(&metrics),
    );
    for list in revocations.lists() {
        lists::publish(list, &metrics);
    }
    let revocations = Arc::new(revocations);
    outbound.refuse_revoked(&revocations);
    let (generations, problems) = (certificates.generations, certificates.problems);
    let now = clock.now();
    states::publish_loaded(&generations, &problems, &revocations, &metrics, now);
    let table = Table::new(
        &services,
        generations,
        registry,
        Arc::clone(&revocations),
        Terms::of(clock.clone(), &config.identities),
        &outbound,
        &metrics,
    );
    let listeners = (config.listeners.into_iter().zip(sources.securities.each()))
        .map(|(listener, security)| {
            let authority = listener.intercept.as_ref().map(|files| {
                Authority::read(files, config.identities.key_readers)
                    .with_context(|| format!("listeners.intercept: {}", files.authority.display()))
            });
            let authority = authority.transpose()?.map(Arc::new);
            let workers = config.workers;
            Ok(listening::open(
                listener,
                security,
                authority,
                workers,
                &mut inherited,
            )?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let admin = config
        .admin
        .map(|admin| admin::bind(admin.address, &mut inherited))
        .transpose()?;
    inherited.all_claimed()?;
    let own = listeners.iter().filter_map(|one| match one.address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    });
    outbound.avoid(own.chain(admin.iter().filter_map(|admin| admin.local_addr().ok())));
    let table = table.with_doors(
        listeners.iter().map(|listener| listener.door.clone()),
        Callers::new(config.callers),
    );
    let gateway = Arc::new(Gateway {
        table: ArcSwap::from_pointee(table),
        request_head: config.limits.request_head,
        requests: config.limits.requests,
        under_way: Count::default(),
        metrics: Arc::clone(&metrics),
        log,
        diagnosis: Arc::new(Diagnosis::new(Arc::clone(&metrics))),
    });
    let notices = Notices::default();
    let webhook = config.notices;
    notices.post_to(webhook.and_then(|webhook| Webhook::new(webhook, &sources.anchors)));
    let watched = sources.watched.subscribe();
    let app = Arc::new(App {
        gateway,
        outbound,
        revocations: ArcSwap::new(revocations),
        clock,
        notices: Arc::new(notices),
        problems: ArcSwap::from_pointee(problems),
        remarks: ArcSwap::from_pointee((troubles, Vec::new())),
        sources: Arc::new(tokio::sync::Mutex::new(sources)),
        replacing: Mutex::default(),
        level: OnceLock::new(),
        since: SystemTime::now(),
        draining: AtomicBool::new(false),
    });
    app.tell();
    let inbound = Inbound {
        room: Arc::new(Semaphore::new(config.limits.inbound_connections)),
        request_head: config.limits.request_head,
        head_timeout: config.limits.head_timeout,
        metrics,
    };
    Ok(Bound {
        app,
        listeners,
        admin,
        reload: None,
        takeover: Takeover::default(),
        watched,
        followed,
        inbound,
        workers: config.workers,
        grace: config.shutdown_grace,
    })
}

impl Bound {
    /// The addresses on which applications reach the gateway, in the configuration's order.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        (self.listeners.iter())
            .map(|one| one.address.clone())
            .collect()
    }

    /// The administration listener's address, if there is one.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    }

    /// What the process shares.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Sets the level of the log by this when the configuration's changes.
    #[must_use]
    pub fn with_level(self, level: Option<Level>) -> Self {
        if let Some(level) = level {
            // It is empty: nothing else sets it, and this is called before anything runs.
            let _ = self.app.level.set(level);
        }
        self
    }

    /// Reads everything again whenever this changes.
    #[must_use]
    pub fn reload_on(mut self, changes: watch::Receiver<()>) -> Self {
        self.reload = Some(changes);
        self
    }

    /// Serves until `stop` turns true, then finishes what is in flight. Blocks the calling thread, which runs the
    /// side plane; requests are served on threads of their own.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made.
    pub fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let Self {
            app,
            listeners,
            admin,
            reload,
            takeover,
            watched,
            followed,
            inbound,
            workers,
            grace,
        } = self;
        let mut shares: Vec<Vec<Share>> = (0..workers.get()).map(|_| Vec::new()).collect();
        let mut socket_files = Vec::new();
        for (door, listener) in listeners.into_iter().enumerate() {
            socket_files.extend(listener.file);
            // A predecessor may have had more workers than there are now: none of its sockets is left alone.
            for (index, socket) in listener.sockets.into_iter().enumerate() {
                shares[index % workers].push(Share {
                    socket,
                    is_unix: listener.is_unix,
                    security: listener.security.clone(),
                    authority: listener.authority.clone(),
                    entrance: Entrance::new(&app.gateway, door),
                });
            }
        }
        let (working, drained) = mpsc::channel::<()>(1);
        let (finish, stopping) = watch::channel(false);
        let ending = Ending {
            stop: stopping,
            grace,
            working,
        };
        let (pulse, heart) = Pulse::new(workers.get());
        let threads = shares
            .into_iter()
            .enumerate()
            .map(|(index, share)| {
                let (heart, inbound) = (heart.clone(), inbound.clone());
                let ending = ending.clone();
                let outbound = Arc::clone(&app.outbound);
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || worker::work(index, &outbound, share, heart, inbound, ending))
                    .context("a worker thread cannot be started")
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        drop(ending);
        let tasks = Tasks {
            admin,
            reload,
            takeover,
            pulse,
            watched,
            followed,
        };
        side_plane(&app, tasks, stop, finish, drained)?;
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => anyhow::bail!("a worker thread panicked"),
            }
        }
        app.gateway.table.load().retire();
        app.gateway.log.flush(LOG_FLUSH);
        drop(socket_files);
        tracing::info!("stopped");
        Ok(())
    }
}
