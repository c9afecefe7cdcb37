//! What a check prints: what is there, then what is wrong with it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::check::findings::{Findings, Severity};
use crate::gateway::table::Table;

/// Tenants that the text lists one by one. Beyond, a list helps nobody; JSON has them all.
const LISTED_TENANTS: usize = 30;

/// The result of a check.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    certificates: usize,
    services: Vec<String>,
    tenants: Vec<TenantRow>,
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

impl Report {
    /// A report of nothing but findings, where nothing could be loaded.
    pub(super) fn of(findings: Findings) -> Self {
        Self {
            findings,
            ..Self::default()
        }
    }

    /// A report of what is there.
    pub(super) fn new(table: &Table) -> Self {
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
                    .filter(|(_, pool)| pool.is_some())
                    .map(|(name, _)| name.clone())
                    .collect(),
            });
        Self {
            certificates: table.generations().len(),
            tenants: tenants.collect(),
            services: names,
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
        if let Some(reached) = self.reached {
            writeln!(text, "handshakes    {reached} succeeded")?;
        }
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.severity);
        for finding in &findings {
            let word = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            writeln!(text, "{word}: {}", finding.message)?;
            if !finding.hint.is_empty() {
                writeln!(text, "  hint: {}", finding.hint)?;
            }
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
