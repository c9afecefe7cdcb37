//! The bare forwarder: the least work that sends each request over mutual TLS with its tenant's certificate.
//!
//! It is the lower bound that Relais is measured against, and shares its shape: one current-thread runtime per
//! worker, each with its own `SO_REUSEPORT` listener, TLS configurations and idle connections, so that a request
//! never leaves its thread. It does nothing else whatever: no limit, deadline, retry, log, metric or reload, and
//! `X-Finess` is believed. Not for use.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use clap::Parser;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsConnector;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Parser)]
#[command(
    about = "The least that forwards HTTP over mutual TLS per tenant: a lower bound to measure against"
)]
struct Args {
    /// Where to listen for plain HTTP/1.1.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The upstream's address.
    #[arg(long)]
    upstream: SocketAddr,
    /// The name that the upstream's certificate must bear.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// PEM file of the upstream's trust anchors.
    #[arg(long)]
    trust: PathBuf,
    /// Folder of `<FINESS>.pem` files, each with leaf, chain and key.
    #[arg(long)]
    identities: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Speak HTTP/2 to the upstream.
    #[arg(long)]
    h2: bool,
}

/// What one worker knows of one tenant.
struct Tenant {
    tls: TlsConnector,
    idle: RefCell<Vec<Connection>>,
}

/// An open upstream connection; one of HTTP/2 stays in the idle stack while it is used.
enum Connection {
    H1(http1::SendRequest<Incoming>),
    H2(http2::SendRequest<Incoming>),
}

/// A worker: everything here belongs to one thread.
struct Worker {
    args: Args,
    server_name: ServerName<'static>,
    authority: Authority,
    tenants: HashMap<Box<[u8]>, Rc<Tenant>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let workers: Vec<_> = (0..args.workers)
        .map(|_| {
            let args = args.clone();
            thread::spawn(move || serve(args))
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a worker panicked"))??;
    }
    Ok(())
}

fn serve(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let worker = Rc::new(Worker {
            server_name: ServerName::try_from(args.server_name.clone())?,
            authority: Authority::try_from(args.server_name.as_str())?,
            tenants: load(&args)?,
            args,
        });
        // Last, so that an open port means that every tenant is loaded.
        let listener = listen(worker.args.listen)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let worker = worker.clone();
            spawn_local(async move {
                let service = service_fn(|request| answer(&worker, request));
                // A client that goes away is not worth a word here.
                let _ = server::Builder::new()
                    .header_read_timeout(None)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("cannot bind {address}"))?;
    socket.listen(1024)?;
    Ok(TcpListener::from_std(socket.into())?)
}

fn load(args: &Args) -> Result<HashMap<Box<[u8]>, Rc<Tenant>>> {
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_file_iter(&args.trust)? {
        roots.add(anchor?)?;
    }
    let roots = Arc::new(roots);
    let mut tenants = HashMap::new();
    for entry in std::fs::read_dir(&args.identities)? {
        let path = entry?.path();
        let finess = path
            .file_stem()
            .context("a file without a name")?
            .as_encoded_bytes();
        let config = tls_config(&path, roots.clone(), args.h2)
            .with_context(|| format!("cannot load {}", path.display()))?;
        let tenant = Tenant {
            tls: TlsConnector::from(Arc::new(config)),
            idle: RefCell::default(),
        };
        tenants.insert(finess.into(), Rc::new(tenant));
    }
    Ok(tenants)
}

fn tls_config(path: &Path, roots: Arc<RootCertStore>, h2: bool) -> Result<ClientConfig> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(path)?)?;
    // There is one upstream; room for the default 256 would cost more memory than all the rest of a tenant.
    config.resumption = Resumption::in_memory_sessions(1);
    config.alpn_protocols = vec![if h2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    Ok(config)
}

async fn answer(
    worker: &Worker,
    request: Request<Incoming>,
) -> Result<Response<Either<Reply, Empty<Bytes>>>, Infallible> {
    Ok(forward(worker, request).await.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        let mut response = Response::new(Either::Right(Empty::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

async fn forward(
    worker: &Worker,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Reply, Empty<Bytes>>>> {
    let finess = request.headers().get("x-finess").context("no X-Finess")?;
    let tenant = worker
        .tenants
        .get(finess.as_bytes())
        .context("unknown tenant")?;
    let connection = match tenant.ready_connection().await {
        Some(connection) => connection,
        None => worker.connect(tenant).await?,
    };
    let (response, lease) = match connection {
        Connection::H1(mut sender) => {
            let response = sender.send_request(request).await?;
            (response, Some((tenant.clone(), sender)))
        }
        Connection::H2(mut sender) => {
            request.headers_mut().remove(header::HOST);
            // Values are slices of the client connection's read buffer. The HPACK encoder remembers some, and
            // would keep 8 KiB alive for each: 0.7 MiB per upstream connection.
            for value in request.headers_mut().values_mut() {
                *value = HeaderValue::from_bytes(value.as_bytes())?;
            }
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.scheme = Some(Scheme::HTTPS);
            uri.authority = Some(worker.authority.clone());
            *request.uri_mut() = Uri::from_parts(uri)?;
            (sender.send_request(request).await?, None)
        }
    };
    Ok(response.map(|body| Either::Left(Reply::new(body, lease))))
}

impl Worker {
    async fn connect(&self, tenant: &Tenant) -> Result<Connection> {
        let stream = TcpStream::connect(self.args.upstream).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(tenant.tls.connect(self.server_name.clone(), stream).await?);
        if self.args.h2 {
            let (sender, connection) = http2::handshake(LocalExecutor, stream).await?;
            spawn_local(connection);
            tenant
                .idle
                .borrow_mut()
                .push(Connection::H2(sender.clone()));
            Ok(Connection::H2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            spawn_local(connection);
            Ok(Connection::H1(sender))
        }
    }
}

impl Tenant {
    /// The idle connection used last that is still open.
    async fn ready_connection(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            match connection {
                Connection::H1(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Some(Connection::H1(sender));
                    }
                }
                Connection::H2(mut sender) => {
                    if sender.ready().await.is_ok() {
                        self.idle.borrow_mut().push(Connection::H2(sender.clone()));
                        return Some(Connection::H2(sender));
                    }
                }
            }
        }
    }
}

type Lease = (Rc<Tenant>, http1::SendRequest<Incoming>);

/// A response body that gives its HTTP/1.1 connection back once it has been read to the end, and closes it otherwise.
struct Reply {
    body: Incoming,
    lease: Option<Lease>,
}

impl Reply {
    fn new(body: Incoming, lease: Option<Lease>) -> Self {
        let mut reply = Self { body, lease };
        if reply.body.is_end_stream() {
            reply.release();
        }
        reply
    }

    fn release(&mut self) {
        if let Some((tenant, sender)) = self.lease.take() {
            tenant.idle.borrow_mut().push(Connection::H1(sender));
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.release();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Runs HTTP/2's own tasks on the worker's thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
