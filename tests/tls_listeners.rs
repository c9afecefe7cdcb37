//! Listeners that speak TLS, as applications meet them: handshakes, certificates, sessions, renewals.
#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

mod support;
mod tls_listeners {
    use super::*;

    mod clients;
    mod exposure;
    mod handshakes;
    mod hosts;
    mod readers;
    mod renewal;
    mod sessions;
    mod tunnels;
}

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use relais::config::ListenAddress;
use relais::outbound::tls::provider;
use relais::services::Environment;
use relais::simulator::pki::{Issued, Pki, Purpose, Request as Order, write_private};
use relais::simulator::site::Stand;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use support::raw::Raw;
use support::upstream::{BOTH, ONLY_12, ONLY_13};
use support::{TestGateway, eventually, start_on, within};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in the listeners' certificate.
const NAME: &str = "relais.test";

/// A gateway whose second and further listeners speak TLS.
struct Secured {
    gateway: TestGateway,
    /// Who issues certificates of applications.
    clients: Pki,
    folder: PathBuf,
}

/// Starts a gateway with a TLS listener for each of `listeners`, which are further keys of its `[listeners.tls]`, and
/// `extra` at the end of its configuration.
fn secured(listeners: &[&str], extra: &str) -> Secured {
    secured_by(Pki::new(Environment::Test), listeners, extra)
}

fn secured_by(clients: Pki, listeners: &[&str], extra: &str) -> Secured {
    let (gateway, folder) = start_on(1, &[Stand::new("dmp")], |site, text| {
        let folder = site.directory.clone();
        put_server(&folder, &server(&site.pki, &[NAME]));
        fs::write(folder.join("clients.pem"), clients.authority_pem()).unwrap();
        fs::write(folder.join("clients.crl"), revoked(&clients, &[])).unwrap();
        let mut tables = String::new();
        for (index, keys) in listeners.iter().enumerate() {
            // Each on an address of its own, by which a reload knows it.
            writeln!(
                tables,
                "[[listeners]]\naddress = \"127.0.0.{}:0\"\n[listeners.tls]\ncertificate = \"relais.pem\"\n\
                 key = \"relais.key\"\n{keys}\n",
                index + 2
            )
            .unwrap();
        }
        let identities = format!("{tables}[identities]\nreload = \"manual\"");
        *text = text.replacen("[identities]", &identities, 1);
        text.push_str(extra);
        folder
    });
    Secured {
        gateway,
        clients,
        folder,
    }
}

/// A server's certificate.
fn server(pki: &Pki, names: &[&str]) -> Issued {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    pki.issue(&Order {
        purpose: Purpose::SslServer(names),
        ..Order::new("3187512751", NAME)
    })
}

fn put_server(folder: &Path, issued: &Issued) {
    fs::write(folder.join("relais.pem"), issued.chain_pem()).unwrap();
    write_private(&folder.join("relais.key"), issued.key_pem()).unwrap();
}

/// A list of these serial numbers.
fn revoked(pki: &Pki, serials: &[&[u8]]) -> Vec<u8> {
    let list = pki.revoke(serials, 1_700_000_000, 4_000_000_000);
    list.der().to_vec()
}

/// An application's certificate of that CN.
fn application(pki: &Pki, name: &str) -> Issued {
    pki.issue(&Order::new("3187512751", name))
}

/// How an application makes handshakes; sessions are remembered from one connection to the next.
fn application_config(
    pki: &Pki,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
    shown: Option<&Issued>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root_der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
            builder
                .with_client_auth_cert(vec![issued.cert_der.clone()], key)
                .unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

impl Secured {
    /// The address of the TLS listener of that number.
    fn address(&self, listener: usize) -> SocketAddr {
        let ListenAddress::Tcp(address) = self.gateway.addresses[listener + 1] else {
            panic!("a TCP listener")
        };
        address
    }

    /// How an application of HTTP/1.1 makes handshakes.
    fn config(&self, shown: Option<&Issued>) -> Arc<ClientConfig> {
        application_config(&self.gateway.site.pki, BOTH, &["http/1.1"], shown)
    }

    /// Opens a connection to the first TLS listener.
    async fn open(&self, config: &Arc<ClientConfig>) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
        open(self.address(0), config, NAME).await.map(Raw::over)
    }

    /// Asks once for the first tenant on a connection of its own: the status and the body, or nothing if TLS fails.
    async fn ask(&self, shown: Option<&Issued>) -> Option<(u16, String)> {
        let mut raw = self.open(&self.config(shown)).await.ok()?;
        self.ask_on(&mut raw).await
    }

    async fn ask_on(&self, raw: &mut Raw<TlsStream<TcpStream>>) -> Option<(u16, String)> {
        use tokio::io::AsyncWriteExt as _;
        // A server that refuses a certificate in TLS 1.3 says so after the client has finished.
        let _ = within(raw.stream.write_all(self.request(NAME).as_bytes())).await;
        let answer = raw.answer(false).await?;
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    /// A GET for the first tenant with that Host.
    fn request(&self, host: &str) -> String {
        (self.gateway.get_bytes("/dmp/x")).replace("host: localhost", &format!("host: {host}"))
    }

    async fn reload(&self) -> relais::app::reload::Report {
        within(self.gateway.app.reload()).await.unwrap()
    }

    /// Puts another text in the place of a part of the configuration.
    fn edit(&self, from: &str, to: &str) {
        let path = &self.gateway.site.configuration;
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

/// Connects and completes a handshake, as far as the application sees it.
async fn open(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = within(TcpStream::connect(address)).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await
}

/// `[[callers]]` of this proof, for all tenants.
fn caller(name: &str, proof: &str) -> String {
    format!("\n[[callers]]\nname = \"{name}\"\n{proof}\ntenants = [\"*\"]\nservices = [\"*\"]\n")
}

/// `[[callers]]` of whoever connects to the first TLS listener, for the first tenant.
fn of_listener(secured: &Secured) -> String {
    let tenant = secured.gateway.tenant(0);
    format!(
        "\n[[callers]]\nname = \"site\"\nlistener = \"127.0.0.2:0\"\ntenants = [\"{tenant}\"]\nservices = [\"*\"]\n"
    )
}

/// The first certificate that a listener shows.
fn shown(raw: &Raw<TlsStream<TcpStream>>) -> Vec<u8> {
    let session = raw.stream.get_ref().1;
    session.peer_certificates().unwrap()[0].to_vec()
}
