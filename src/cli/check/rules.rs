//! `relais check --rules`, and the page that documents the rules.

use std::fmt::Write as _;

use serde::Serialize;

use crate::identity::profile::OFFICIAL;
use crate::identity::rules::Rule;

#[derive(Serialize)]
struct Listed {
    id: &'static str,
    severity: &'static str,
    text: &'static str,
    source: &'static str,
    remedy: &'static str,
}

/// The rules in JSON.
pub(super) fn json() -> serde_json::Result<String> {
    let listed = Rule::ALL.map(|rule| Listed {
        id: rule.id(),
        severity: rule.severity().as_str(),
        text: rule.text(),
        source: rule.source(),
        remedy: rule.remedy(),
    });
    Ok(serde_json::to_string_pretty(&listed)? + "\n")
}

/// The rules in lines for people.
pub(super) fn text() -> String {
    let mut text = String::new();
    for rule in Rule::ALL {
        let severity = rule.severity().as_str();
        let lines = [
            format!("{severity}[{rule}]: {}", rule.text()),
            format!("  source: {}", rule.source()),
            format!("  hint: {}\n", rule.remedy()),
        ];
        text.extend(lines.map(|line| line + "\n"));
    }
    text
}

/// The page `docs/rules.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Rules\n\nWhat `relais check` reports by name, and what Relais refuses to do. Made from the code; \
         `relais check --rules` prints the same.\n\n\
         An *error* keeps something from working that is meant to; a *warning* may not be meant; a *note* is good to know. \
         A request that a rule keeps from its service is answered with `certificate_refused_by_rule` and what to do; \
         one under an expired or revoked certificate with `certificate_expired` or `certificate_revoked`.\n",
    );
    for rule in Rule::ALL {
        let written = write!(
            page,
            "\n## {rule}\n\n{}\n\n- severity: {}\n- source: {}\n- what to do: {}\n",
            rule.text(),
            rule.severity().as_str(),
            rule.source(),
            rule.remedy()
        );
        written.expect("writing to a String does not fail");
    }
    page.push_str(
        "\n## The official authorities\n\n\
         SHA-256 of the production authorities' certificates, as published on <http://igc-sante.esante.gouv.fr/PC/>:\n\n",
    );
    for (name, fingerprint) in OFFICIAL {
        writeln!(page, "- `{name}`: `{fingerprint}`").expect("writing to a String does not fail");
    }
    page
}
