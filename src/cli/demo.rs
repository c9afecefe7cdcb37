//! `relais demo`: everything on this machine, to see it work.

mod cases;
mod check;
mod invitation;
mod odd;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use tempfile::TempDir;
use tokio::sync::watch;

use self::odd::Odd;
use crate::app::{self, Bound};
use crate::cli::{EXIT_ERROR, print};
use crate::config::{Config, ListenAddress};
use crate::inbound::listener::BindError;
use crate::simulator::site::{DEMONSTRATION, Ports, Site};
use crate::{shutdown, telemetry};

/// Arguments of `relais demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How many sample structures.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,
    /// Send requests for each (tenant, service) and print which certificate each simulator saw, then requests that must
    /// be refused and what came back, and exit: 0 if all is as it should be.
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
    // First: a temporary folder is removed also when somebody loses patience.
    let signals = shutdown::on_signals()?;
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
    let tenants = arguments.tenants as usize;
    let built = Site::build(&directory.path, tenants, &DEMONSTRATION, ports)
        .and_then(|site| Ok((Odd::prepare(&site)?, site)));
    let (odd, site) = built.with_context(|| {
        format!(
            "the demonstration cannot be set up in {}",
            directory.path.display()
        )
    })?;
    let text = fs::read_to_string(&site.configuration)?;
    // What the environment overrides in a real gateway must not lead a demonstration to a real service.
    let loaded = Config::from_toml(&text, &site.configuration, [])?;
    telemetry::install(&loaded.config.log)?;
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
        print(&invitation::text(&site, &odd, &bound)?);
        bound.reload_on(signals.reload).run(signals.stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (stop, stopped) = watch::channel(false);
    let address = data_address(&bound)?;
    let gateway = thread::spawn(move || bound.run(stopped));
    let all_right = check::run(&site, &odd, address);
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
