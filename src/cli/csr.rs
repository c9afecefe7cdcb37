//! `relais csr`: a private key and the request for its certificate, for one structure or for many.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{EXIT_ERROR, Format, print};
use crate::config::{Config, DEFAULT_PATH, PATH_VARIABLE};
use crate::identity::enrol::bulk::{self, Outcome};
use crate::identity::enrol::request::{self, Pending};
use crate::identity::enrol::subject::{Department, Organization, ServiceName, Subject, doubt};
use crate::identity::enrol::{Refusal, pending_folder};
use crate::identity::finess::Finess;
use crate::identity::load::shell_word;

/// Where certificates are ordered.
const PLATFORM: &str = "https://pfc.eservices.esante.gouv.fr";

/// Arguments of `relais csr`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The structure's FINESS number.
    #[arg(
        long,
        value_name = "F",
        required_unless_present = "from",
        conflicts_with = "from"
    )]
    finess: Option<Finess>,
    /// The name of the application, which becomes the CN; exactly INSI-AUTO or INSI-MANU for INSi.
    #[arg(long, value_name = "CN")]
    service_name: ServiceName,
    /// The structure's name. The platform writes the one in its register, whatever is asked for.
    #[arg(long, value_name = "O", conflicts_with = "from")]
    organization: Option<Organization>,
    /// The structure's department, such as "Paris (75)". The platform writes the one in its register.
    #[arg(long, value_name = "ST", conflicts_with = "from")]
    department: Option<Department>,
    /// One request for each structure of this CSV file (columns finess or nofinesset, and name, rs or rslongue).
    /// Interrupted, it goes on where it stopped.
    #[arg(long, value_name = "CSV")]
    from: Option<PathBuf>,
    /// The folder for key and request. [default: `pending` beside the configured identities.directory; without a
    /// configuration, `pending` here]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The configuration file, which only says where `pending` is. [default: config/relais.toml if it is there]
    #[arg(long, value_name = "FILE", env = PATH_VARIABLE)]
    config: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is printed in JSON when nothing was made.
#[derive(Debug, Serialize)]
struct Failed {
    problems: Vec<Refusal>,
}

impl Failed {
    fn of(error: &anyhow::Error) -> Self {
        let refusal = (error.downcast_ref::<Refusal>().cloned()).unwrap_or_else(|| Refusal {
            message: format!("{error:#}"),
            hint: "`relais check` tells more of the configuration".to_owned(),
        });
        Self {
            problems: vec![refusal],
        }
    }
}

/// Makes the request or requests, and says what to do with them.
///
/// # Errors
/// Why there is none.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let outcome = make(arguments);
    if let (Err(error), Format::Json) = (&outcome, arguments.format) {
        print(&(serde_json::to_string_pretty(&Failed::of(error))? + "\n"));
    }
    outcome
}

fn make(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => default_folder(arguments.config.as_deref())?,
    };
    match (arguments.finess, &arguments.from) {
        (_, Some(from)) => many(arguments, from, &folder),
        (Some(finess), None) => one(arguments, finess, &folder),
        (None, None) => anyhow::bail!("neither --finess nor --from says for whom"),
    }
}

fn default_folder(config: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = config.unwrap_or_else(|| Path::new(DEFAULT_PATH));
    if config.is_none() && !path.exists() {
        return Ok(PathBuf::from("pending"));
    }
    let loaded = Config::load(path)?;
    Ok(pending_folder(&loaded.config.identities, path)?)
}

fn one(arguments: &Arguments, finess: Finess, folder: &Path) -> anyhow::Result<ExitCode> {
    let subject = Subject {
        finess,
        service_name: arguments.service_name.clone(),
        organization: arguments.organization.clone(),
        department: arguments.department.clone(),
    };
    let pending = request::make(&subject, folder)?;
    if let Some(warning) = doubt(finess) {
        eprintln!("warning: {warning}");
    }
    print(&match arguments.format {
        Format::Text => text_of_one(&pending, arguments),
        Format::Json => serde_json::to_string_pretty(&pending)? + "\n",
    });
    Ok(ExitCode::SUCCESS)
}

fn text_of_one(pending: &Pending, arguments: &Arguments) -> String {
    format!(
        "request      {}\nprivate key  {}\nsubject      {}\npublic key   {} (SHA-256)\n{}",
        pending.csr.display(),
        pending.key.display(),
        pending.subject,
        pending.public_key_sha256,
        next_steps(arguments, "the request")
    )
}

fn next_steps(arguments: &Arguments, what: &str) -> String {
    let option = |name: &str, path: &Option<PathBuf>| {
        (path.as_deref()).map_or_else(String::new, |path| format!(" {name} {}", shell_word(path)))
    };
    format!(
        "\nnext\n  1. at {PLATFORM} order ORG / AUTH_CLI for the structure;\n     Service applicatif: {}\n  \
         2. upload {what} there, from this machine: never by e-mail; the private key stays where it is\n  \
         3. once it is delivered: relais install{}{} CERTIFICATE\n",
        arguments.service_name.as_str(),
        option("--config", &arguments.config),
        option("--pending", &arguments.out)
    )
}

fn many(arguments: &Arguments, from: &Path, folder: &Path) -> anyhow::Result<ExitCode> {
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{pos} of {len} requests {wide_bar} {eta}",
    )?);
    let progress = |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let outcome = bulk::make_all(from, &arguments.service_name, folder, &progress);
    bar.finish_and_clear();
    let outcome = outcome?;
    print(&match arguments.format {
        Format::Text => text_of_many(&outcome, arguments),
        Format::Json => serde_json::to_string_pretty(&outcome)? + "\n",
    });
    Ok(if outcome.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}

fn text_of_many(outcome: &Outcome, arguments: &Arguments) -> String {
    let mut text = String::new();
    for failure in &outcome.failures {
        writeln!(
            text,
            "error: {}: {}\n  hint: {}",
            failure.place, failure.refusal.message, failure.refusal.hint
        )
        .expect("writing to a String does not fail");
    }
    for warning in &outcome.warnings {
        writeln!(text, "warning: {warning}").expect("writing to a String does not fail");
    }
    text + &format!(
        "{} requests made, {} made before, {} failed\nmanifest     {}\n{}",
        outcome.made,
        outcome.done_before,
        outcome.failures.len(),
        outcome.manifest.display(),
        next_steps(arguments, "each request")
    )
}
