//! The local authority under whose certificates requests in tunnels are taken (`[listeners.intercept]`).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::terms::PROTOCOLS;
use crate::config::{Identities, Intercept};
use crate::identity::load::{Pair, Unpacker};
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
    issuer: Issuer<'static, KeyPair>,
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
    pub fn read(files: &Intercept, identities: &Identities) -> anyhow::Result<Self> {
        let told = |problem: crate::identity::load::Problem| anyhow::anyhow!("{problem}");
        let pair =
            Pair::read(&files.authority, &files.key, identities.key_readers).map_err(told)?;
        let ends = ends(pair.profile(), SystemTime::now())?;
        let certificate = pair.chain().next().cloned();
        let certificate = certificate.ok_or_else(|| anyhow::anyhow!("no certificate"))?;
        let unpacked = Unpacker::new(identities)?
            .unpack(&files.key)
            .map_err(told)?;
        let own = |key: &&crate::identity::load::BareKey| key.public == pair.profile().public_key;
        let key = unpacked.keys.iter().find(own);
        let key = key.ok_or_else(|| anyhow::anyhow!("no key"))?;
        let key = KeyPair::from_pem(&key.to_pem())?;
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

    fn certificate(is_ca: bool, ends: SystemTime) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::default();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        params.not_after = ends.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().clone(), key)
    }

    fn authority(until: SystemTime) -> Authority {
        let (certificate, key) = certificate(true, until);
        let profile = Profile::parse(&certificate).unwrap();
        Authority {
            issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            certificate,
            ends: ends(&profile, SystemTime::now()).unwrap(),
            issued: Mutex::default(),
        }
    }

    #[test]
    fn another_certificate_is_made_after_a_day_and_when_the_clock_was_set() {
        let now = SystemTime::now();
        let authority = authority(now + 30 * SHOWN);
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
            let (certificate, _) = certificate(is_ca, until);
            ends(&Profile::parse(&certificate).unwrap(), now).is_err()
        };
        assert!(refused(false, now + SHOWN));
        assert!(refused(true, now - SHOWN));
        assert!(!refused(true, now + SHOWN));
    }
}
