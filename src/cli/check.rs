//! `relais check`: every problem at once, and nothing served.

mod broken;
mod findings;
mod live;
mod report;
mod rules;

use std::process::ExitCode;
use std::sync::Arc;

pub use rules::page as rules_page;

use crate::app::lists::open_lists;
use crate::cli::check::broken::Broken;
use crate::cli::check::findings::{Finding, Findings};
use crate::cli::check::report::Report;
use crate::cli::{ConfigArgument, EXIT_ERROR, EXIT_WARNINGS, Format, print};
use crate::config::Config;
use crate::gateway::table::{Table, Terms};
use crate::identity::clock::Clock;
use crate::identity::generation::Generation;
use crate::identity::load::{self, Loaded};
use crate::identity::registry::Registry;
use crate::identity::rules::Severity;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::trust::Anchors;

/// Arguments of `relais check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Also make a TLS handshake for each (tenant, service). No request is sent.
    #[arg(long)]
    live: bool,
    /// List the rules that are checked, and check nothing.
    #[arg(long, conflicts_with = "live")]
    rules: bool,
    /// How the findings are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Checks, prints what was found, and says with the exit code how bad it is.
///
/// # Errors
/// When the check itself could not be made.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.rules {
        print(&match arguments.format {
            Format::Text => rules::text(),
            Format::Json => rules::json()?,
        });
        return Ok(ExitCode::SUCCESS);
    }
    let report = examine(arguments)?;
    let text = match arguments.format {
        Format::Text => report.to_text(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    print(&text);
    Ok(match report.findings.worst() {
        Some(Severity::Error) => ExitCode::from(EXIT_ERROR),
        Some(Severity::Warning) => ExitCode::from(EXIT_WARNINGS),
        Some(Severity::Note) | None => ExitCode::SUCCESS,
    })
}

fn examine(arguments: &Arguments) -> anyhow::Result<Report> {
    let mut findings = Findings::default();
    let config = match Config::load(&arguments.config.config) {
        Ok(loaded) => {
            findings.extend(loaded.warnings.iter().map(Finding::from));
            loaded.config
        }
        Err(problems) => {
            findings.extend(problems.errors.iter().map(|problem| Finding {
                severity: Severity::Error,
                ..Finding::from(problem)
            }));
            findings.extend(problems.warnings.iter().map(Finding::from));
            return Ok(Report::of(findings));
        }
    };
    let clock = Clock::default();
    findings.extend(findings::of_listeners(&config, clock.now()));
    let mut broken = Broken::default();
    let anchors = Anchors::of(&config.trusts())
        .map_err(|error| findings.push(Finding::error(error.to_string(), "see `trust`")))
        .ok();
    let identities = match load::load(&config.identities) {
        Ok(Loaded {
            identities,
            problems,
            ..
        }) => {
            findings.extend(findings::of_files(&problems, &mut broken));
            findings.extend(findings::of_folders(&config.identities, &identities));
            identities
        }
        Err(error) => {
            findings.push(Finding::error(error.to_string(), ""));
            Vec::new()
        }
    };
    let Some(anchors) = anchors else {
        return Ok(Report::of(findings));
    };
    let generations: Vec<_> = identities.into_iter().map(Generation::new).collect();
    let revocations = open_lists(&config, &anchors, &generations);
    findings.extend(findings::of_lists(&revocations));
    let terms = Terms::of(clock, &config.identities);
    let (registry, mistakes) = Registry::load(&config.tenants, config.bindings, config.vendor);
    findings.extend(mistakes.iter().map(Finding::from));
    let services: Vec<_> = config.services.into_iter().map(Arc::new).collect();
    let metrics = Metrics::new();
    let connections = config.limits.upstream_connections;
    let outbound = Outbound::new(&anchors, connections, config.workers, Arc::clone(&metrics));
    let table = Table::new(
        &services,
        generations,
        Arc::new(registry),
        Arc::new(revocations),
        terms,
        &outbound,
        &metrics,
    );
    findings.extend(findings::of_table(&table, &mut broken));
    findings.extend(findings::of_callers(&config.callers, &table));
    findings.extend(broken.into_findings());
    let mut report = Report::new(&table, &config.callers);
    if arguments.live {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (reached, failures) = runtime.block_on(live::probe_all(&table));
        report.reached = Some(reached);
        findings.extend(failures);
    }
    report.findings = findings;
    Ok(report)
}
