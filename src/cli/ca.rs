//! `relais ca`: an authority for `[listeners.intercept]`, which applications of this machine may believe.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use zeroize::Zeroizing;

use super::{ConfigArgument, print};
use crate::config::Config;

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
    let path = |name: &str| arguments.out.join(name);
    let pem = Zeroizing::new(key.serialize_pem());
    place(&path("relais-ca.key"), pem.as_bytes(), 0o600)?;
    place(&path("relais-ca.pem"), certificate.pem().as_bytes(), 0o644)?;
    print(&format!(
        "\
authority    {}
private key  {}

It can vouch for {} and for nothing else; a service at another host takes another authority.
Whoever has its private key can pass for these services towards every application that believes it: both stay on this
machine. Have applications believe the authority, and name both files under [listeners.intercept].
",
        path("relais-ca.pem").display(),
        path("relais-ca.key").display(),
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
    let now = SystemTime::UNIX_EPOCH.elapsed()?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - Duration::from_secs(86_400));
    params.not_after = epoch + (now + VALIDITY);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: (hosts.iter().cloned())
            .map(GeneralSubtree::DnsName)
            .collect(),
        // What is not spoken of is allowed (RFC 5280 section 4.2.1.10).
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    Ok(params)
}

/// Writes a file that is not there yet.
fn place(path: &Path, contents: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = (options.open(path)).and_then(|mut file| file.write_all(contents));
    written.with_context(|| path.display().to_string())
}
