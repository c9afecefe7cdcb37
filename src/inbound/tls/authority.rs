//! The local authority under whose certificates requests in tunnels are taken (`[listeners.intercept]`).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::SignatureScheme;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::terms::PROTOCOLS;
use crate::config::{Intercept, KeyReaders};
use crate::identity::load::Pair;
use crate::identity::profile::{Profile, Usage};
use crate::outbound::{pace, tls::provider};

/// How long a host's certificate is valid. It never leaves the process, and a shorter one is worth less to whoever gets
/// hold of its memory.
const VALIDITY: Duration = Duration::from_secs(7 * 86_400);

/// How long it is shown before another is made. By the clock on the wall, as its dates are: when that is set, in either
/// direction, another is made too.
const SHOWN: Duration = Duration::from_secs(86_400);

/// A clock of another machine, or of this one before it was set, may be late.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// An authority of this machine alone, and the certificates that it has issued by now: one for each host of a service.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, Key>,
    /// When it ends, since 1970: nothing that it issues can be valid for longer.
    ends: Duration,
    issued: Mutex<HashMap<String, (SystemTime, Arc<ServerConfig>)>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads its certificate and its key.
    ///
    /// # Errors
    /// When they are not in order or no longer, or the key can be read by more people than `key_readers` allows.
    pub fn read(files: &Intercept, readers: KeyReaders) -> anyhow::Result<Self> {
        let pair = Pair::read(&files.authority, &files.key, readers);
        let pair = pair.map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let ends = ends(pair.profile(), SystemTime::now())?;
        let certificate = pair.chain().next().cloned();
        let certificate = certificate.ok_or_else(|| anyhow::anyhow!("no certificate"))?;
        let key = Key::of(pair.certified().key, &certificate)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            ends,
            issued: Mutex::default(),
        })
    }

    /// Completes a handshake as that host.
    pub(in crate::inbound) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let config = self
            .config(host, SystemTime::now())
            .map_err(io::Error::other)?;
        let stream = pace::in_steps_inbound(TlsAcceptor::from(config).accept(stream)).await?;
        let asked_for = stream.get_ref().1.server_name();
        match asked_for.is_none_or(|name| name.eq_ignore_ascii_case(host)) {
            true => Ok(stream),
            false => Err(io::Error::other(
                "another name than the tunnel's is asked for",
            )),
        }
    }

    fn config(&self, host: &str, now: SystemTime) -> anyhow::Result<Arc<ServerConfig>> {
        let host = host.to_ascii_lowercase();
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, config)) = issued.get(&host)
            && now.duration_since(*since).is_ok_and(|age| age < SHOWN)
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.issue(&host, now)?);
        issued.insert(host, (now, Arc::clone(&config)));
        Ok(config)
    }

    fn issue(&self, host: &str, now: SystemTime) -> anyhow::Result<ServerConfig> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut params = CertificateParams::new([bare.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        (params.distinguished_name).push(DnType::CommonName, "Relais, in a service's place");
        let now = now.duration_since(SystemTime::UNIX_EPOCH)?;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + (now - BACKDATED);
        params.not_after = epoch + (now + VALIDITY).min(self.ends);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // A handshake costs little here, and a session would go from one caller's tunnel to another's.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The authority's private key as it was read with its certificate: it signs, and is in no other form.
struct Key {
    signing: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
    /// The public key, as its certificate has it.
    public: Vec<u8>,
}

impl Key {
    fn of(signing: Arc<dyn SigningKey>, certificate: &[u8]) -> anyhow::Result<Self> {
        let algorithms = [
            (
                SignatureScheme::ECDSA_NISTP256_SHA256,
                &rcgen::PKCS_ECDSA_P256_SHA256,
            ),
            (
                SignatureScheme::ECDSA_NISTP384_SHA384,
                &rcgen::PKCS_ECDSA_P384_SHA384,
            ),
            (
                SignatureScheme::ECDSA_NISTP521_SHA512,
                &rcgen::PKCS_ECDSA_P521_SHA512,
            ),
            (SignatureScheme::ED25519, &rcgen::PKCS_ED25519),
            (SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
        ];
        let mut algorithms = algorithms.into_iter();
        let own = algorithms.find(|(scheme, _)| signing.choose_scheme(&[*scheme]).is_some());
        let (scheme, algorithm) = own.context("keys of this kind sign no certificates here")?;
        let (_, certificate) = X509Certificate::from_der(certificate)?;
        let public = certificate.public_key().subject_public_key.data.to_vec();
        Ok(Self {
            signing,
            scheme,
            algorithm,
            public,
        })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signing.choose_scheme(&[self.scheme]);
        let signed = signer.and_then(|signer| signer.sign(message).ok());
        signed.ok_or(rcgen::Error::RemoteKeyError)
    }
}

/// When an authority ends, if it is one and has not.
fn ends(authority: &Profile, now: SystemTime) -> anyhow::Result<Duration> {
    anyhow::ensure!(
        authority.usage == Usage::Authority,
        "the certificate is not that of an authority; `relais ca` makes one"
    );
    let ends = Duration::from_secs(authority.not_after.try_into().unwrap_or(0));
    anyhow::ensure!(
        now.duration_since(SystemTime::UNIX_EPOCH)? <= ends,
        "the authority has ended; `relais ca` makes another, which applications must then believe"
    );
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa};

    use super::*;

    fn certificate(is_ca: bool, ends: SystemTime, key: &KeyPair) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        params.not_after = ends.into();
        params.self_signed(key).unwrap()
    }

    fn authority(until: SystemTime, key: &KeyPair, written: &[u8]) -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let files = Intercept {
            authority: folder.path().join("ca.pem"),
            key: folder.path().join("ca.key"),
        };
        std::fs::write(&files.authority, certificate(true, until, key).pem()).unwrap();
        crate::simulator::pki::write_private(&files.key, written).unwrap();
        Authority::read(&files, KeyReaders::Owner).unwrap()
    }

    #[tokio::test]
    async fn what_an_authority_issues_is_believed_whatever_its_key_is() {
        let until = SystemTime::now() + 30 * SHOWN;
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            for written in [key.serialize_pem().into_bytes(), key.serialize_der()] {
                let authority = authority(until, &key, &written);
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.certificate.clone()).unwrap();
                let config = rustls::ClientConfig::builder_with_provider(provider())
                    .with_protocol_versions(rustls::ALL_VERSIONS)
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                let (application, server) = tokio::io::duplex(4096);
                let name = "dmp.test".try_into().unwrap();
                let (accepted, connected) = tokio::join!(
                    authority.accept("dmp.test", server),
                    connector.connect(name, application),
                );
                connected.unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
                accepted.unwrap();
            }
        }
    }

    #[test]
    fn another_certificate_is_made_after_a_day_and_when_the_clock_was_set() {
        let now = SystemTime::now();
        let key = KeyPair::generate().unwrap();
        let authority = authority(now + 30 * SHOWN, &key, key.serialize_pem().as_bytes());
        let mut before = authority.config("dmp.test", now).unwrap();
        for (at, is_same) in [
            (now + SHOWN / 2, true),
            (now + 2 * SHOWN, false),
            (now, false),
            (now - SHOWN, false),
        ] {
            let config = authority.config("DMP.test", at).unwrap();
            assert_eq!(Arc::ptr_eq(&config, &before), is_same, "{at:?}");
            before = config;
        }
    }

    #[test]
    fn what_is_no_authority_or_has_ended_is_refused() {
        let now = SystemTime::now();
        let refused = |is_ca, until| {
            let certificate = certificate(is_ca, until, &KeyPair::generate().unwrap());
            ends(&Profile::parse(certificate.der()).unwrap(), now).is_err()
        };
        assert!(refused(false, now + SHOWN));
        assert!(refused(true, now - SHOWN));
        assert!(!refused(true, now + SHOWN));
    }
}
