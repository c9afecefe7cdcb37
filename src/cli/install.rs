//! `relais install`: delivered certificates, verified and put where the gateway finds them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::app::lists::open_lists;
use crate::cli::{ConfigArgument, EXIT_ERROR, Format, print};
use crate::config::Config;
use crate::identity::enrol::install::Installer;
use crate::identity::enrol::report::{Installed, Previous};
use crate::identity::enrol::{Refusal, pending_folder};
use crate::identity::generation::Generation;
use crate::identity::load;
use crate::outbound::trust::Anchors;

/// When a running gateway takes a certificate up.
const TAKEN_UP: &str = "a running gateway takes it up within a second, or at `relais reload` where `identities.reload` is \"manual\"";

/// Arguments of `relais install`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Delivered certificates (PEM or DER, with or without their chain), or PKCS#12 files with their keys.
    #[arg(required = true, value_name = "CERT")]
    certificates: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// The folder in which keys wait. [default: `pending` beside identities.directory]
    #[arg(long, value_name = "DIR")]
    pending: Option<PathBuf>,
    /// Passwords for what is encrypted, one a line. `CERT.password` beside the file is tried as well.
    #[arg(long, value_name = "F")]
    password_file: Option<PathBuf>,
    /// Verify and explain, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What came of one file.
#[derive(Debug, Serialize)]
struct Row<'a> {
    file: &'a Path,
    /// Where it lies now; in a dry run, where it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    installed: Option<Installed>,
    problems: Vec<Refusal>,
}

/// Installs each certificate; one that is refused stops no other.
///
/// # Errors
/// When configuration, certificates or keys that are there cannot be read.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut installer = installer(arguments)?;
    let rows: Vec<_> = (arguments.certificates.iter())
        .map(|file| install(&mut installer, file, arguments.dry_run))
        .collect();
    print(&match arguments.format {
        Format::Text => text_of(&rows, arguments.dry_run),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
    });
    Ok(if rows.iter().all(|row| row.problems.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}

fn installer(arguments: &Arguments) -> anyhow::Result<Installer> {
    let path = &arguments.config.config;
    let config = Config::load(path)?.config;
    let pending = match &arguments.pending {
        Some(folder) => folder.clone(),
        None => pending_folder(&config.identities, path)?,
    };
    let loaded = load::load(&config.identities)?;
    let generations: Vec<_> = loaded.identities.into_iter().map(Generation::new).collect();
    let anchors = Anchors::of(&config.trusts())?;
    let revocations = open_lists(&config, &anchors, &generations);
    let passwords = arguments.password_file.as_deref();
    Ok(Installer::new(
        &config,
        &generations,
        revocations,
        pending,
        passwords,
    )?)
}

fn install<'a>(installer: &mut Installer, file: &'a Path, dry_run: bool) -> Row<'a> {
    let outcome = installer.plan(file).and_then(|plan| match dry_run {
        true => Ok(plan.report),
        false => installer.place(plan).map_err(|refusal| vec![refusal]),
    });
    let (installed, problems) = match outcome {
        Ok(installed) => (Some(installed), Vec::new()),
        Err(problems) => (None, problems),
    };
    Row {
        file,
        installed,
        problems,
    }
}

fn text_of(rows: &[Row<'_>], dry_run: bool) -> String {
    let mut text = String::new();
    for row in rows {
        write_row(&mut text, row, dry_run).expect("writing to a String does not fail");
    }
    if !dry_run && rows.iter().any(|row| row.installed.is_some()) {
        text.push_str(&format!(
            "{TAKEN_UP}; `relais check` tells what it will use\n"
        ));
    }
    text
}

fn write_row(text: &mut String, row: &Row<'_>, dry_run: bool) -> std::fmt::Result {
    for problem in &row.problems {
        writeln!(text, "error: {}: {}", row.file.display(), problem.message)?;
        writeln!(text, "  hint: {}", problem.hint)?;
    }
    let Some(installed) = &row.installed else {
        return Ok(());
    };
    let done = match (installed.was_there, dry_run) {
        (true, _) => "is there already:",
        (false, true) => "would be installed as",
        (false, false) => "installed as",
    };
    writeln!(
        text,
        "{} {done} {}",
        row.file.display(),
        installed.path.display()
    )?;
    writeln!(text, "  subject   {}", installed.subject)?;
    writeln!(text, "  serial    {}", installed.serial)?;
    writeln!(
        text,
        "  validity  {} to {}",
        installed.not_before, installed.not_after
    )?;
    if let Some(old) = &installed.replaces {
        write_previous(text, "replaces", old)?;
    }
    if let Some(old) = &installed.beside {
        write_previous(text, "beside  ", old)?;
    }
    for warning in &installed.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    Ok(())
}

fn write_previous(text: &mut String, word: &str, old: &Previous) -> std::fmt::Result {
    let key = if old.same_key { "the same" } else { "new" };
    writeln!(
        text,
        "  {word}  {} (serial {}, until {})",
        old.path.display(),
        old.serial,
        old.not_after
    )?;
    writeln!(text, "    key     {key}")?;
    if old.subject.is_empty() {
        writeln!(text, "    subject the same")?;
    }
    for field in &old.subject {
        writeln!(text, "    subject {field}")?;
    }
    for whom in &old.tell {
        writeln!(text, "    tell    {whom}")?;
    }
    writeln!(text, "    {}", old.advice)
}
