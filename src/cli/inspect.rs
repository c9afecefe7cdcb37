//! `relais inspect`: what a file is, what it may serve, and what not and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::{EXIT_ERROR, Format, print};
use crate::identity::load::{ExaminedCertificate, examine};
use crate::identity::profile::{Authority, Profile, Usage};
use crate::identity::revocation::Revocations;
use crate::identity::select::objection;
use crate::identity::states::{State, now, timestamp};
use crate::services::{CATALOGUE, Environment, WantedCertificate};

/// Arguments of `relais inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Certificates, private keys, PKCS#12 files or certificate requests.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Passwords for what is encrypted, one a line. `FILE.password` beside the file is tried as well.
    #[arg(long, value_name = "F")]
    password_file: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is printed of one file.
#[derive(Debug, Serialize)]
struct Inspected {
    file: String,
    certificates: Vec<Described>,
    lone_private_keys: usize,
    requests: Vec<String>,
    problems: Vec<Trouble>,
}

#[derive(Debug, Serialize)]
struct Trouble {
    reason: String,
    hint: String,
}

#[derive(Debug, Serialize)]
struct Described {
    usage: &'static str,
    subject: String,
    issuer: String,
    environment: Option<&'static str>,
    /// Whether it is one of IGC-Santé's production authorities, where it is an authority's.
    #[serde(skip_serializing_if = "Option::is_none")]
    official: Option<bool>,
    structure: Option<String>,
    finess: Option<String>,
    serial: String,
    sha256: String,
    not_before: String,
    not_after: String,
    state: &'static str,
    private_key_in_file: bool,
    /// The services that it may be shown to.
    serves: Vec<&'static str>,
    /// The services that it may not be shown to, and why.
    refused: BTreeMap<&'static str, String>,
}

/// Describes each file.
///
/// # Errors
/// When the password file cannot be read.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let inspected = arguments
        .files
        .iter()
        .map(|file| inspect(file, arguments.password_file.as_deref()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let text = match arguments.format {
        Format::Text => inspected.iter().map(Inspected::to_text).collect(),
        Format::Json => serde_json::to_string_pretty(&inspected)? + "\n",
    };
    print(&text);
    let is_clean = inspected.iter().all(|one| one.problems.is_empty());
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}

fn inspect(file: &Path, password_file: Option<&Path>) -> anyhow::Result<Inspected> {
    let examined = examine(file, password_file)?;
    let trouble = |problem: &crate::identity::load::Problem| Trouble {
        reason: problem.kind.to_string(),
        hint: problem.hint.clone(),
    };
    Ok(Inspected {
        file: file.display().to_string(),
        certificates: examined.certificates.iter().map(Described::from).collect(),
        lone_private_keys: examined.lone_keys,
        requests: examined.requests,
        problems: examined.problems.iter().map(trouble).collect(),
    })
}

impl From<&ExaminedCertificate> for Described {
    fn from(examined: &ExaminedCertificate) -> Self {
        let profile = &examined.profile;
        let mut serves = Vec::new();
        let mut refused = BTreeMap::new();
        if profile.usage != Usage::Authority {
            for service in CATALOGUE
                .iter()
                .filter(|one| one.certificate.value != WantedCertificate::None)
            {
                match verdict(profile, service.certificate.value) {
                    None => serves.push(service.name),
                    Some(reason) => {
                        refused.insert(service.name, reason);
                    }
                }
            }
        }
        Self {
            usage: profile.usage.as_str(),
            subject: profile.subject.to_string(),
            issuer: profile.issuer.to_string(),
            environment: profile.environment.map(Environment::as_str),
            official: (profile.usage == Usage::Authority)
                .then(|| Authority::of(profile) == Authority::Official),
            structure: profile.structure.as_ref().map(ToString::to_string),
            finess: profile
                .structure
                .as_ref()
                .and_then(|one| one.finess())
                .map(|one| one.to_string()),
            serial: profile.serial.to_string(),
            sha256: profile.fingerprint.to_string(),
            not_before: timestamp(profile.not_before),
            not_after: timestamp(profile.not_after),
            state: State::of(profile, &Revocations::default(), now()).as_str(),
            private_key_in_file: examined.has_key,
            serves,
            refused,
        }
    }
}

/// Why the certificate may not be shown to a service that wants `wanted`, in the environment that it comes from.
fn verdict(profile: &Profile, wanted: WantedCertificate) -> Option<String> {
    let environment = profile.environment.unwrap_or(Environment::Production);
    let objected = objection(profile, wanted, environment).map(|one| one.as_str().to_owned());
    objected.or_else(
        || match State::of(profile, &Revocations::default(), now()) {
            State::Expired => Some("has expired".to_owned()),
            State::NotYetValid => Some("is not valid yet".to_owned()),
            State::Revoked => Some("is revoked".to_owned()),
            State::Expiring | State::Valid => None,
        },
    )
}

impl Inspected {
    fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text)
            .expect("writing to a String does not fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{}", self.file)?;
        for certificate in &self.certificates {
            certificate.write(text)?;
        }
        for subject in &self.requests {
            writeln!(text, "  certificate request\n    subject       {subject}")?;
        }
        if self.lone_private_keys > 0 {
            writeln!(
                text,
                "  private key   {} without its certificate in this file",
                self.lone_private_keys
            )?;
        }
        for problem in &self.problems {
            writeln!(
                text,
                "  error: {}\n    hint: {}",
                problem.reason, problem.hint
            )?;
        }
        Ok(())
    }
}

impl Described {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let environment = self.environment.unwrap_or("not IGC-Santé");
        writeln!(
            text,
            "  certificate   {} ({environment}), {}",
            self.usage, self.state
        )?;
        match self.official {
            Some(true) => writeln!(
                text,
                "    authority   one of the official ones of IGC-Santé"
            )?,
            Some(false) => writeln!(
                text,
                "    authority   none of the official ones of production"
            )?,
            None => {}
        }
        writeln!(text, "    subject     {}", self.subject)?;
        writeln!(text, "    issuer      {}", self.issuer)?;
        if let Some(structure) = &self.structure {
            let finess = self
                .finess
                .as_ref()
                .map(|finess| format!(" (FINESS {finess})"))
                .unwrap_or_default();
            writeln!(text, "    structure   {structure}{finess}")?;
        }
        writeln!(
            text,
            "    validity    {} to {}",
            self.not_before, self.not_after
        )?;
        writeln!(text, "    serial      {}", self.serial)?;
        writeln!(text, "    SHA-256     {}", self.sha256)?;
        writeln!(
            text,
            "    key         {}",
            if self.private_key_in_file {
                "in this file"
            } else {
                "not in this file"
            }
        )?;
        if !self.serves.is_empty() {
            writeln!(text, "    may serve   {}", self.serves.join(", "))?;
        }
        // Services refused for the same reason are told together.
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (service, reason) in &self.refused {
            by_reason.entry(reason).or_default().push(service);
        }
        for (reason, services) in by_reason {
            writeln!(text, "    not for     {}: it {reason}", services.join(", "))?;
        }
        Ok(())
    }
}
