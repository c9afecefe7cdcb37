//! `relais demo`: everything on this machine, to see it work.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use http::Response;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::app::{self, Bound};
use crate::cli::{EXIT_ERROR, client, print};
use crate::config::{Config, ListenAddress};
use crate::gateway::address::X_FINESS;
use crate::identity::finess::Finess;
use crate::inbound::listener::BindError;
use crate::services::WantedCertificate;
use crate::simulator::server::Seen;
use crate::simulator::site::{DEMONSTRATION, Ports, Site, Stand};
use crate::{shutdown, telemetry};

/// Arguments of `relais demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How many sample structures.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,
    /// Send one request for each (tenant, service), print which certificate each simulator saw, and exit: 0 if all
    /// are right.
    #[arg(long)]
    check: bool,
    /// Keep certificates, configuration and logs in this folder, instead of a temporary one that is removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The gateway's port; 0 takes any free one. [default: 8080, with --check 0]
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// The administration's port; 0 takes any free one. [default: 9090, with --check 0]
    #[arg(long, value_name = "P")]
    admin_port: Option<u16>,
}

/// Runs the demonstration until a signal asks it to stop, or until its check is done.
///
/// # Errors
/// What keeps it from starting.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let directory = Directory::new(arguments.dir.as_deref())?;
    let default = |port| if arguments.check { 0 } else { port };
    let ports = Ports {
        data: arguments.port.unwrap_or_else(|| default(8080)),
        admin: arguments.admin_port.unwrap_or_else(|| default(9090)),
    };
    eprintln!(
        "making a throw-away PKI and {} sample structures…",
        arguments.tenants
    );
    let site = Site::build(
        &directory.path,
        arguments.tenants as usize,
        &DEMONSTRATION,
        ports,
    )
    .with_context(|| {
        format!(
            "the demonstration cannot be set up in {}",
            directory.path.display()
        )
    })?;
    let text = fs::read_to_string(&site.configuration)?;
    // What the environment overrides in a real gateway must not lead a demonstration to a real service.
    let loaded = Config::from_toml(&text, &site.configuration, [])?;
    telemetry::install(&loaded.config.log)?;
    let signals = shutdown::on_signals()?;
    let bound = app::bind(loaded.config).map_err(|error| {
        let is_port = error.is::<BindError>();
        let advice = "--port and --admin-port choose other ports";
        if is_port {
            error.context(advice)
        } else {
            error
        }
    })?;
    if !arguments.check {
        print(&invitation(&site, &bound));
        bound.run(signals)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (stop, stopped) = watch::channel(false);
    let address = data_address(&bound)?;
    let gateway = thread::spawn(move || bound.run(stopped));
    let all_right = check(&site, address);
    stop.send_replace(true);
    gateway
        .join()
        .map_err(|_| anyhow::anyhow!("the gateway panicked"))??;
    Ok(if all_right? {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}

/// Marks a folder as a demonstration's, so that another may be set up in it.
const MARKER: &str = ".relais-demo";

/// The folder of a demonstration; a temporary one goes with it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Directory {
    fn new(kept: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = kept else {
            // Only its owner can enter it, and its name cannot be foreseen.
            let temporary = tempfile::Builder::new()
                .prefix("relais-demo-")
                .tempdir()
                .context("no temporary folder can be made; --dir names another place")?;
            let path = temporary.path().canonicalize()?;
            return Ok(Self {
                path,
                _temporary: Some(temporary),
            });
        };
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let is_empty = fs::read_dir(path)?.next().is_none();
        if !is_empty && !path.join(MARKER).exists() {
            anyhow::bail!(
                "{} is not empty and not an earlier demonstration's: nothing in it is overwritten; --dir takes a new folder",
                path.display()
            );
        }
        fs::write(path.join(MARKER), "")?;
        Ok(Self {
            path: path.canonicalize()?,
            _temporary: None,
        })
    }
}

fn data_address(bound: &Bound) -> anyhow::Result<SocketAddr> {
    match bound.addresses().first() {
        Some(ListenAddress::Tcp(address)) => Ok(*address),
        _ => anyhow::bail!("the demonstration listens on no TCP address"),
    }
}

fn invitation(site: &Site, bound: &Bound) -> String {
    let gateway = data_address(bound)
        .map(|address| address.to_string())
        .unwrap_or_default();
    let admin = bound
        .admin_address()
        .map(|address| address.to_string())
        .unwrap_or_default();
    let tenant = site.tenants[0];
    let mut text = format!(
        "Relais demonstration: {} structures, {} simulated services\n\
         \n  gateway         http://{gateway}\n  administration  http://{admin}\n  everything in   {}\n\nTry:\n",
        site.tenants.len(),
        site.simulators.len(),
        site.directory.display()
    );
    let commands = [
        format!("curl -H 'X-Finess: {tenant}' http://{gateway}/dmp/v2/services/repository"),
        format!("curl http://{gateway}/@{tenant}/insi-auto/lps"),
        format!("curl http://{gateway}/annuaire/Practitioner"),
        format!(
            "curl -H 'X-Finess: 999999999' http://{gateway}/dmp/   # no such tenant: what a refusal looks like"
        ),
        format!("curl http://{admin}/api/v1/tenants"),
        format!("curl http://{admin}/metrics"),
    ];
    for command in commands {
        writeln!(text, "  {command}").expect("writing to a String does not fail");
    }
    text.push_str("\nCtrl-C stops it.\n");
    text
}

/// Sends a request for each (tenant, service) and prints which certificate was seen. Twice, so that the second goes
/// over a connection that the first opened.
fn check(site: &Site, gateway: SocketAddr) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut wrong = 0;
    print(&format!(
        "{:<11} {:<10} {:<12} {:<28} {:<9} {}\n",
        "tenant", "service", "saw OU", "saw CN", "over", "verdict"
    ));
    for _ in 0..2 {
        for tenant in &site.tenants {
            for (stand, _) in &site.simulators {
                let (line, right) = runtime.block_on(probe(gateway, *tenant, *stand))?;
                wrong += usize::from(!right);
                print(&line);
            }
        }
    }
    let total = 2 * site.tenants.len() * site.simulators.len();
    print(&format!(
        "\n{} of {total} requests were seen under the right certificate\n",
        total - wrong
    ));
    Ok(wrong == 0)
}

async fn probe(
    gateway: SocketAddr,
    tenant: Finess,
    stand: Stand,
) -> anyhow::Result<(String, bool)> {
    let path = format!("/{}/check", stand.name);
    let response = client::get(gateway, &path, &[(X_FINESS.as_str(), tenant.as_str())]).await?;
    let Ok(seen) = serde_json::from_slice::<Seen>(response.body()) else {
        let refused = String::from_utf8_lossy(response.body()).into_owned();
        return Ok((
            format!(
                "{tenant:<11} {:<10} WRONG: {} {refused}\n",
                stand.name,
                response.status()
            ),
            false,
        ));
    };
    let right = is_right(&seen, &response, tenant, stand);
    let line = format!(
        "{:<11} {:<10} {:<12} {:<28} {:<9} {}\n",
        tenant,
        stand.name,
        seen.ou.as_deref().unwrap_or("-"),
        seen.cn.as_deref().unwrap_or("no certificate"),
        seen.tls,
        if right { "right" } else { "WRONG" }
    );
    Ok((line, right))
}

fn is_right(seen: &Seen, response: &Response<bytes::Bytes>, tenant: Finess, stand: Stand) -> bool {
    let ou = Some(format!("1{tenant}"));
    let as_wanted = match stand.certificate {
        WantedCertificate::None => seen.ou.is_none() && seen.cn.is_none(),
        WantedCertificate::OrgAuthCli => {
            seen.ou == ou && seen.cn.as_deref().is_some_and(|cn| !cn.starts_with("INSI"))
        }
        WantedCertificate::InsiAuto => seen.ou == ou && seen.cn.as_deref() == Some("INSI-AUTO"),
        WantedCertificate::InsiManu => seen.ou == ou && seen.cn.as_deref() == Some("INSI-MANU"),
    };
    let leaked = seen
        .headers
        .iter()
        .any(|(name, _)| name == X_FINESS.as_str());
    response.status().is_success() && seen.service == stand.name && as_wanted && !leaked
}
