//! `relais ca`: an authority for `[listeners.intercept]`, which applications of this machine may believe.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use zeroize::Zeroizing;

use super::{ConfigArgument, print};
use crate::config::Config;
use crate::identity::enrol::files;

/// How long the authority is valid: as long as the structures' own certificates.
const VALIDITY: Duration = Duration::from_secs(3 * 365 * 86_400);

/// Arguments of `relais ca`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The folder for relais-ca.pem and relais-ca.key, neither of which may be there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Makes an authority for the hosts of the configuration's services, and for no other.
///
/// # Errors
/// When the configuration cannot be read, or a file is there already.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loaded = Config::load(&arguments.config.config)?;
    let hosts: Vec<_> = (loaded.config.services.iter())
        .map(|service| service.target.host().to_owned())
        .collect();
    let key = KeyPair::generate()?;
    let certificate = params(&hosts)?.self_signed(&key)?;
    let pem = Zeroizing::new(key.serialize_pem());
    let of_key = arguments.out.join("relais-ca.key");
    let of_authority = arguments.out.join("relais-ca.pem");
    files::sweep(&arguments.out);
    let place = |path: &Path, contents: &str, mode| {
        let placed = files::place(path, contents.as_bytes(), mode);
        placed.with_context(|| path.display().to_string())
    };
    place(&of_key, &pem, files::SECRET)?;
    // Applications of other accounts are to believe it.
    if let Err(error) = place(&of_authority, &certificate.pem(), files::PUBLIC) {
        // A key without its authority serves nobody, and the next run would stop at it.
        files::remove(&of_key).with_context(|| of_key.display().to_string())?;
        return Err(error);
    }
    print(&format!(
        "\
authority    {}
private key  {}

It can vouch for servers at {} and at names below these, and for nothing else; a service at another host takes another authority.
Whoever has its private key can pass for these services towards every application that believes it: both stay on this
machine. Have applications believe the authority, and name both files under [listeners.intercept].
",
        of_authority.display(),
        of_key.display(),
        hosts.join(", ")
    ));
    Ok(ExitCode::SUCCESS)
}

fn params(hosts: &[String]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    (params.distinguished_name).push(DnType::CommonName, "Relais of this machine");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Most who verify hold an authority to it as well: no certificate of a client, of code or of mail.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::UNIX_EPOCH.elapsed()?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - Duration::from_secs(86_400));
    params.not_after = epoch + (now + VALIDITY);
    params.name_constraints = Some(constraints(hosts));
    Ok(params)
}

/// These hosts alone. A name stands for those below it, too, and nothing can be done about that (RFC 5280 section
/// 4.2.1.10); a kind of name which is not spoken of is allowed, so that each kind that is not permitted is excluded.
fn constraints(hosts: &[String]) -> NameConstraints {
    let permitted: Vec<_> = (hosts.iter())
        .map(|host| match host.parse() {
            Ok(IpAddr::V4(address)) => {
                GeneralSubtree::IpAddress(CidrSubnet::V4(address.octets(), [0xff; 4]))
            }
            Ok(IpAddr::V6(address)) => {
                GeneralSubtree::IpAddress(CidrSubnet::V6(address.octets(), [0xff; 16]))
            }
            Err(_) => GeneralSubtree::DnsName(host.clone()),
        })
        .collect();
    let mut excluded = vec![
        GeneralSubtree::DnsName(String::new()),
        GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
        GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
    ];
    let is_of_a_kind = |one: &GeneralSubtree, other: &GeneralSubtree| match (one, other) {
        (GeneralSubtree::IpAddress(one), GeneralSubtree::IpAddress(other)) => {
            std::mem::discriminant(one) == std::mem::discriminant(other)
        }
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    };
    // What is excluded is not permitted, whatever else is said.
    excluded.retain(|all| !permitted.iter().any(|one| is_of_a_kind(one, all)));
    NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: excluded,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::outbound::tls::provider;

    /// Whether an authority for `hosts` is believed about `name`.
    fn vouches(hosts: &[&str], name: &str) -> bool {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let authority = params(&hosts).unwrap().self_signed(&key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = (params.signed_by(&KeyPair::generate().unwrap(), &issuer)).unwrap();
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap()
            .verify_server_cert(
                leaf.der(),
                &[],
                &ServerName::try_from(name).unwrap(),
                &[],
                UnixTime::now(),
            )
            .is_ok()
    }

    #[test]
    fn an_authority_vouches_for_its_hosts_and_names_below_them_alone() {
        let named = ["dmp.test", "192.0.2.1"];
        for (hosts, name, expected) in [
            (&named[..], "dmp.test", true),
            (&named, "a.dmp.test", true),
            (&named, "bank.test", false),
            (&named, "192.0.2.1", true),
            (&named, "192.0.2.2", false),
            (&named, "2001:db8::1", false),
            (&["2001:db8::1"], "2001:db8::1", true),
            (&["2001:db8::1"], "2001:db8::2", false),
            (&["2001:db8::1"], "192.0.2.1", false),
            (&["2001:db8::1"], "dmp.test", false),
        ] {
            assert_eq!(vouches(hosts, name), expected, "{hosts:?} {name}");
        }
    }
}
