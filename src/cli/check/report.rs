//! What a check prints: what is there, then what is wrong with it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::check::findings::{Finding, Findings};
use crate::gateway::caller::{Caller, Tenants};
use crate::gateway::table::Table;
use crate::identity::finess::Finess;
use crate::identity::rules::Severity;

/// Tenants that the text lists one by one. Beyond, a list helps nobody; JSON has them all.
const LISTED_TENANTS: usize = 30;

/// Cases of one rule that the text lists one by one.
const LISTED_CASES: usize = 5;

/// The result of a check.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    certificates: usize,
    services: Vec<String>,
    tenants: Vec<TenantRow>,
    /// Who may make requests; nobody in particular, where it is empty.
    callers: Vec<CallerRow>,
    /// Handshakes that succeeded, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reached: Option<usize>,
    pub(super) findings: Findings,
}

#[derive(Debug, Serialize)]
struct TenantRow {
    finess: String,
    /// The services that it can use.
    services: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CallerRow {
    name: String,
    /// The structures that it may speak for: their numbers, those of legal entities with their sites, or `*`.
    tenants: Vec<String>,
    /// The services that it may use, or `*`.
    services: Vec<String>,
}

impl From<&Caller> for CallerRow {
    fn from(caller: &Caller) -> Self {
        let Tenants {
            all,
            listed,
            legal_entities,
        } = &caller.tenants;
        let sites = |entity: &Finess| format!("{entity} and its sites");
        let mut tenants: Vec<_> = (listed.iter().map(ToString::to_string))
            .chain(legal_entities.iter().map(sites))
            .chain(all.then(|| "*".to_owned()))
            .collect();
        tenants.sort_unstable();
        let mut services: Vec<_> = match &caller.services {
            Some(services) => services.iter().cloned().collect(),
            None => vec!["*".to_owned()],
        };
        services.sort_unstable();
        Self {
            name: caller.name.to_string(),
            tenants,
            services,
        }
    }
}

impl Report {
    /// A report of nothing but findings, where nothing could be loaded.
    pub(super) fn of(findings: Findings) -> Self {
        Self {
            findings,
            ..Self::default()
        }
    }

    /// A report of what is there.
    pub(super) fn new(table: &Table, callers: &[Caller]) -> Self {
        let names: Vec<_> = table
            .services()
            .iter()
            .map(|one| one.service.name.to_string())
            .collect();
        let tenants = table
            .tenants()
            .into_iter()
            .map(|(finess, pools)| TenantRow {
                finess: finess.to_string(),
                services: names
                    .iter()
                    .zip(pools)
                    .filter(|(_, slot)| slot.pool().is_some())
                    .map(|(name, _)| name.clone())
                    .collect(),
            });
        Self {
            certificates: table.generations().len(),
            tenants: tenants.collect(),
            services: names,
            callers: callers.iter().map(CallerRow::from).collect(),
            ..Self::default()
        }
    }

    /// Lines for people.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text)
            .expect("writing to a String does not fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        if !self.services.is_empty() {
            writeln!(text, "services      {}", self.services.join(", "))?;
            writeln!(text, "certificates  {}", self.certificates)?;
            writeln!(text, "structures    {}", self.tenants.len())?;
            for tenant in self.tenants.iter().take(LISTED_TENANTS) {
                let services = if tenant.services.is_empty() {
                    "nothing".to_owned()
                } else {
                    tenant.services.join(", ")
                };
                writeln!(text, "  {} may use {services}", tenant.finess)?;
            }
            if self.tenants.len() > LISTED_TENANTS {
                writeln!(
                    text,
                    "  … and {} more (--format json lists them)",
                    self.tenants.len() - LISTED_TENANTS
                )?;
            }
        }
        if !self.callers.is_empty() {
            writeln!(text, "callers       {}", self.callers.len())?;
        }
        for caller in self.callers.iter().take(LISTED_TENANTS) {
            let (tenants, services) = (caller.tenants.join(", "), caller.services.join(", "));
            writeln!(
                text,
                "  {} may speak for {tenants} at {services}",
                caller.name
            )?;
        }
        if let Some(reached) = self.reached {
            writeln!(text, "handshakes    {reached} succeeded")?;
        }
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.severity);
        for finding in &findings {
            finding.write(text)?;
        }
        let count = |severity| self.findings.count(severity);
        writeln!(
            text,
            "{} errors, {} warnings, {} notes",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note)
        )
    }
}

impl Finding {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let severity = self.severity.as_str();
        match self.rule {
            Some(rule) => writeln!(text, "{severity}[{rule}]: {}", self.message)?,
            None => writeln!(text, "{severity}: {}", self.message)?,
        }
        for case in self.cases.iter().take(LISTED_CASES) {
            writeln!(text, "  - {case}")?;
        }
        if self.cases.len() > LISTED_CASES {
            let more = self.cases.len() - LISTED_CASES;
            writeln!(text, "  - … and {more} more (--format json lists them)")?;
        }
        if !self.hint.is_empty() {
            writeln!(text, "  hint: {}", self.hint)?;
        }
        Ok(())
    }
}
