//! The configuration: read from three layers, validated whole, all problems reported at once.
//!
//! [`Config::load`] merges built-in defaults, the TOML file and `RELAIS__SECTION__KEY` variables, takes every key
//! out of the result with a typed parser, and gives either a [`Config`] in which nothing is left to check, or all
//! [`Problems`] with file, line, column, what was found, what was expected, and a hint.
//! `config/relais.reference.toml` describes every key.

mod problem;

mod load;
mod named;

mod defaults;
mod document;
mod layers;

mod parse;
mod raw;
mod reader;
mod section;
mod suggest;

mod bindings;
mod callers;
mod destinations;
mod files;
mod headers;
mod listener_tls;
mod listeners;
mod notices;
mod revocation;
mod services;
mod structures;
mod target;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::gateway::caller::Caller;
use crate::identity::finess::Finess;
use crate::identity::profile::Fingerprint;
use crate::identity::structure::StructureId;
use crate::identity::tenants::Structure;
use crate::services::InFlight;
use crate::services::{Environment, Service, Trust};

pub use load::{DEFAULT_PATH, Loaded, PATH_VARIABLE};
pub use problem::{Place, Problem, Problems, What};

/// What `relais serve` runs with: every path absolute, every name resolved, every limit in range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The file that it was read from, absolute; a reload reads it again.
    pub file: PathBuf,
    /// All files and folders that it names to be read, absolute, whether it needs them again or not.
    pub reads: BTreeSet<PathBuf>,
    /// What was read with it: a process's environment does not change.
    variables: Variables,
    /// Which IGC-Santé hierarchy services belong to unless they say otherwise. No default: certificates of the
    /// other one are never used, and built-in services take the URL of this environment.
    pub environment: Environment,
    /// Threads that serve requests, each with its own runtime. Default: one per core; more gain nothing.
    pub workers: NonZeroUsize,
    /// Where applications connect. Never empty.
    pub listeners: Vec<Listener>,
    /// The programs that may make requests. Default: none are named, and whoever can connect to a listener of this
    /// machine may speak for every tenant.
    pub callers: Vec<Caller>,
    /// Where certificates come from.
    pub identities: Identities,
    /// Where lists of revoked certificates come from. Default: nowhere.
    pub revocation: Revocation,
    /// Whom to tell what needs attention. Default: nobody; it is logged.
    pub notices: Option<Notices>,
    /// The structures that tenants can be. Default: none are known besides what certificates say.
    pub tenants: Tenants,
    /// The services that are served, each name once. Never empty.
    pub services: Vec<Service>,
    /// Certificates chosen by hand, each tenant and service once. Default: none.
    pub bindings: Vec<Binding>,
    /// The structures of the vendor (éditeur) itself, whose certificates never serve as a structure's. Default: none.
    pub vendor: Vec<StructureId>,
    /// The administration listener. Default: none, and then neither health nor metrics are served.
    pub admin: Option<Admin>,
    /// Logs.
    pub log: Log,
    /// Limits that hold for the whole process.
    pub limits: Limits,
    /// What the process forbids itself.
    pub process: Process,
    /// How long a stop waits for requests in flight before it cuts them. Default: 30 s.
    pub shutdown_grace: Duration,
}

/// Environment variables that stand for keys.
#[derive(Clone, Default, Eq, PartialEq)]
struct Variables(Vec<(String, String)>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may be a secret.
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// An address on which applications reach Relais.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where to bind. No default. Only this machine can connect, unless the listener has TLS and there are callers.
    pub address: ListenAddress,
    /// The tenant that every request here speaks for; naming another is an error. Default: each request says.
    pub tenant: Option<Finess>,
    /// The service that every request here goes to; the whole path is then the service's. It is one of
    /// [`Config::services`]. Default: the path's first part says.
    pub service: Option<String>,
    /// Values of `Host` accepted besides local ones, without port, lower case. Default: none; requests with
    /// another are refused. The names of the listener's certificate are accepted, too.
    pub allowed_hosts: Vec<String>,
    /// How it speaks TLS. Default: it speaks HTTP in clear text.
    pub tls: Option<ListenerTls>,
    /// What CONNECT is answered under. Default: it is refused.
    pub intercept: Option<Intercept>,
}

/// The authority under whose certificates Relais takes, in a service's place, what applications send in a tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Intercept {
    /// Its certificate, in PEM. No default; `relais ca` makes one.
    pub authority: PathBuf,
    /// Its private key. No default. [`Identities::key_readers`] says who else may be able to read it.
    pub key: PathBuf,
}

/// What a listener proves itself with in TLS, and which certificates it asks of applications.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerTls {
    /// The certificate and its issuers, the certificate first, in PEM. No default.
    pub certificate: PathBuf,
    /// Its private key. No default. [`Identities::key_readers`] says who else may be able to read it.
    pub key: PathBuf,
    /// The certificates that applications are asked for. Default: none.
    pub clients: Option<ClientCertificates>,
}

impl ListenerTls {
    /// Whether nobody gets in without a certificate.
    pub fn is_closed(&self) -> bool {
        (self.clients.as_ref()).is_some_and(|clients| clients.is_required)
    }
}

/// The certificates that applications are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificates {
    /// The authorities that issue them, in PEM. No default.
    pub authorities: PathBuf,
    /// Whether a handshake without one fails. Default: it does.
    pub is_required: bool,
    /// Files of lists of those that are revoked, in PEM or DER. Default: none. With one, each authority between a
    /// certificate and [`Self::authorities`] must have a list: what no list speaks of is refused.
    pub crls: Vec<PathBuf>,
}

/// A TCP address or a Unix socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenAddress {
    /// An address of this machine; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Where certificates and keys come from, and how they are opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identities {
    /// The folder, read at any depth. No default; it existed when the configuration was read.
    pub directory: PathBuf,
    /// Passwords for encrypted keys and PKCS#12 files: one a line, tried in turn. Default: none.
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds a password. Default: none. Whether it is set was not looked at.
    pub password_env: Option<String>,
    /// The name of a systemd credential (a file in `$CREDENTIALS_DIRECTORY`) that holds passwords, one a line.
    /// Default: none. Whether it exists was not looked at.
    pub password_credential: Option<String>,
    /// Who may be able to read a private key's file. Default: its owner; keys that more can read are not used.
    pub key_readers: KeyReaders,
    /// When the folder, the configuration and the files that it names are read again. Default: whenever one has changed.
    pub reload: Reload,
    /// How long before its end a certificate is no longer used. Default: 30 s; a request that begins later could
    /// reach its service when the certificate has ended.
    pub retire_before_expiry: Duration,
    /// What becomes of requests in flight when their certificate is revoked or its files are removed. Default: they
    /// finish, within [`crate::services::PoolLimits::drain`].
    pub withdrawal: InFlight,
}

/// When the configuration and what it names are read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// Whenever their files have changed, and when asked.
    Auto,
    /// Only when asked: by SIGHUP, `relais reload` or `POST /api/v1/reload`.
    Manual,
}

/// Who may be able to read a private key's file, by its mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyReaders {
    /// Only its owner (`0600` or less), who is root or the gateway's account.
    Owner,
    /// Its owner, whoever that is, and its group (Kubernetes secrets mounted with `fsGroup`, accounts that deploy keys).
    Group,
    /// Anyone: for examples and tests.
    Anyone,
}

/// Where lists of revoked certificates (CRLs) come from, and what they are worth.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// The lists. Default: none, and then nothing is known to be revoked.
    pub crls: Vec<CrlSource>,
    /// The folder that keeps fetched lists over a restart; it can be made. No default where there are URLs.
    pub cache: Option<PathBuf>,
    /// How often lists are fetched, unless they end sooner. Default: 6 h.
    pub refresh: Duration,
    /// How long fetching one may take. Default: 60 s.
    pub timeout: Duration,
    /// Certificates of authorities that sign lists, besides those in the trust files of services. Default: none.
    pub trust: Option<PathBuf>,
    /// What to do with a service of a private authority that has no list in force. Default: believe it.
    pub unknown: Unknown,
}

/// Where one list comes from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CrlSource {
    /// A file in DER or PEM, which somebody else keeps up to date.
    File(PathBuf),
    /// A plain http URL: lists are signed.
    Url(Uri),
}

/// What to do with a service when nobody can say whether its certificate is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// Believe it, as long as no list says otherwise.
    Accept,
    /// Do not.
    Refuse,
}

/// Whom to tell what needs attention.
#[derive(Clone, Eq, PartialEq)]
pub struct Notices {
    /// Where notices are posted: https, or http on this machine. No default.
    pub webhook: Uri,
    /// Fields to send along, which identify Relais. Default: none.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whom to believe there. Default: the web's roots.
    pub trust: Trust,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a webhook is often a secret.
        f.debug_struct("Notices")
            .field("webhook", &self.webhook.authority())
            .field("headers", &self.headers)
            .field("trust", &self.trust)
            .finish()
    }
}

/// Where the table of structures comes from; [`crate::identity::tenants::load`] makes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tenants {
    /// CSV files, in the order of the configuration. They could be read when it was; their content was not looked at.
    pub files: Vec<PathBuf>,
    /// The structures of the configuration itself. A number may come several times.
    pub inline: Vec<(Finess, Structure)>,
}

/// The certificate that a tenant is to use for a service, instead of the one that would be chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Binding {
    /// One of [`Config::services`].
    pub service: String,
    /// The tenant. Default: all that have no binding of their own for this service.
    pub tenant: Option<Finess>,
    /// Which certificate. Whether there is such a one, and whether the tenant may use it, was not looked at.
    pub certificate: BoundBy,
    /// The Pro Santé Connect client_id that the certificate was declared for. Default: none.
    pub client_id: Option<String>,
}

/// How a binding names its certificate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BoundBy {
    /// By the certificate itself.
    Fingerprint(Fingerprint),
    /// By its file, absolute, whatever certificate is in it.
    File(PathBuf),
    /// By the exact CN of its subject; a renewal that keeps the CN takes its place.
    CommonName(String),
}

impl fmt::Display for BoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => write!(f, "SHA-256 {fingerprint}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::CommonName(name) => write!(f, "CN {name:?}"),
        }
    }
}

/// The administration listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admin {
    /// A loopback address; port 0 lets the system choose.
    pub address: SocketAddr,
}

/// What is logged, how, and where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// A level, or levels by module: `info`, `warn,relais::outbound=debug`. Default: `info`.
    pub level: String,
    /// How diagnostics are written on standard error. Default: as text.
    pub format: LogFormat,
    /// Where the line of each request goes. Default: standard output, so that who acted for whom is on record.
    pub access: AccessLog,
}

/// What the process forbids itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// Whether a crash may leave a core file, and a debugger of the same account attach. Default: no; both would have
    /// the private keys.
    pub core_dumps: bool,
    /// Whether the kernel is to keep the process to the files that its configuration needs (Landlock). Default: no;
    /// folders that are named later need a restart.
    pub sandbox: bool,
}

/// The shape of diagnostics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Where the line of each request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Limits that hold for the whole process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections from applications at once, over all listeners. Default: 10,000; those beyond wait.
    pub inbound_connections: usize,
    /// Connections to services at once, over all tenants. Default: 10,000; requests beyond wait for one.
    pub upstream_connections: usize,
    /// The largest request head, names and values together, in bytes. Default: 32 KiB; each connection
    /// may hold as much.
    pub request_head: usize,
    /// How long an application may take to send a request's head, and may stay idle between two. Default: 60 s.
    pub head_timeout: Duration,
    /// Requests under way at once, to all services. Default: 10,000; those beyond are refused.
    pub requests: usize,
}
