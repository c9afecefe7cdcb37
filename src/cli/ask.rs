//! `relais status` and `relais reload`: ask a running gateway.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::Value;

use crate::cli::{ConfigArgument, EXIT_ERROR, EXIT_WARNINGS, Format, print};
use crate::config::Config;
use crate::fetch;

/// Certificates that the text lists of each kind; JSON has them all.
const LISTED: usize = 20;

/// Longer than a gateway takes to give up on a service by itself, so that its own answer is what is shown.
const PATIENCE: Duration = Duration::from_secs(90);

/// Bytes of an answer, at most: a reload that adds a million certificates tells 200 bytes of each.
const ANSWER_MAX: usize = 256 << 20;

/// Arguments of both commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The administration's address. Default: that of the configuration file.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Has the configuration and everything that it names read again, and prints what has changed.
///
/// # Errors
/// When no gateway answers.
pub fn reload(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (is_done, answer) = ask(arguments, Method::POST, "/api/v1/reload")?;
    print(&match arguments.format {
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
        Format::Text => text_of_reload(&answer),
    });
    let is_clean = answer["problems"].as_array().is_none_or(Vec::is_empty);
    Ok(match (is_done, is_clean) {
        (false, _) => ExitCode::from(EXIT_ERROR),
        (true, false) => ExitCode::from(EXIT_WARNINGS),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Prints how the gateway is.
///
/// # Errors
/// When no gateway answers.
pub fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (_, answer) = ask(arguments, Method::GET, "/api/v1/status")?;
    print(&match arguments.format {
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
        Format::Text => text_of_status(&answer),
    });
    Ok(match answer["ready"] == true {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_ERROR),
    })
}

/// Whether it went well, and the answer.
fn ask(arguments: &Arguments, method: Method, path: &str) -> anyhow::Result<(bool, Value)> {
    let address = match arguments.admin {
        Some(address) => address,
        None => configured(arguments)?,
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Bytes::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = (runtime.block_on(send(address, request)))
        .context(
            "is the gateway running, and is this its administration address? One that was changed in the configuration \
             needs a restart first: --admin names the one in use",
        )?;
    let json = serde_json::from_slice(answer.body())
        .with_context(|| format!("{address} is no gateway's administration"))?;
    Ok((answer.status().is_success(), json))
}

/// Sends a request, whose URI is a path, to a gateway on this machine and reads the whole answer.
///
/// # Errors
/// When the gateway cannot be reached or does not answer.
pub(super) async fn send(
    address: SocketAddr,
    mut request: Request<Bytes>,
) -> anyhow::Result<Response<Bytes>> {
    let uri = format!("http://{address}{}", request.uri());
    let what = format!("{} {uri}", request.method());
    *request.uri_mut() = uri.parse()?;
    let answer = fetch::exchange(request, None, PATIENCE, ANSWER_MAX).await;
    // Its text tells the causes too.
    answer.map_err(|error| anyhow!("{what}: {error}"))
}

fn configured(arguments: &Arguments) -> anyhow::Result<SocketAddr> {
    let file = &arguments.config.config;
    let admin = match Config::load(file) {
        Ok(loaded) => loaded.config.admin.map(|admin| admin.address),
        // The gateway runs under the last good one; where it is has most often not changed since.
        Err(problems) => match fs::read_to_string(file).ok().and_then(|text| stated(&text)) {
            Some(address) => Some(address),
            None => Err(problems).context(
                "--admin names the gateway's administration address without a configuration",
            )?,
        },
    };
    admin.filter(|address| address.port() != 0).with_context(|| {
        format!(
            "{} has no [admin] section with a fixed port: add address = \"127.0.0.1:9090\" there, or give --admin",
            arguments.config.config.display()
        )
    })
}

/// The administration's address in the text of a configuration with errors elsewhere.
fn stated(text: &str) -> Option<SocketAddr> {
    let table: toml::Table = text.parse().ok()?;
    table.get("admin")?.get("address")?.as_str()?.parse().ok()
}

fn text_of_reload(answer: &Value) -> String {
    if let Some(error) = answer["error"].as_str() {
        return format!("error: {error}\n  hint: everything stays as it was loaded before\n");
    }
    let mut text = text_of_configuration(answer);
    for (kind, what) in [
        ("added", "added"),
        ("removed", "removed"),
        ("kept", "kept as it was"),
    ] {
        let entries = answer[kind].as_array().map_or(&[][..], Vec::as_slice);
        for entry in entries.iter().take(LISTED) {
            let word = |key: &str| entry[key].as_str().unwrap_or_default();
            let line = format!("{what}  {} ({})", word("file"), word("subject"));
            writeln!(text, "{line}").expect("writing to a String does not fail");
        }
        if entries.len() > LISTED {
            writeln!(text, "{what}  … and {} more", entries.len() - LISTED)
                .expect("writing to a String does not fail");
        }
    }
    text.push_str(&text_of_problems(answer));
    let changed = match answer["changed"] == true {
        true => "",
        false => "nothing has changed; ",
    };
    text + &format!(
        "{changed}{} certificates, read in {} ms\n",
        answer["certificates"], answer["milliseconds"]
    )
}

/// What of the configuration and of trust files is in use now, and what is not before a restart.
fn text_of_configuration(answer: &Value) -> String {
    let entries = |kind: &str| answer[kind].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for (kind, what) in [
        ("configuration", "configuration"),
        ("trust", "other authorities"),
    ] {
        for entry in entries(kind) {
            text.push_str(&format!("{what}  {}\n", entry.as_str().unwrap_or_default()));
        }
    }
    text + &text_of_restart(answer)
}

fn text_of_restart(answer: &Value) -> String {
    let mut text = String::new();
    for entry in answer["restart"].as_array().into_iter().flatten() {
        let word = |key: &str| entry[key].as_str().unwrap_or_default();
        let (running, configured) = (word("running"), word("configured"));
        let key = word("key");
        text.push_str(&format!(
            "restart needed  {key}: {running} is in use, {configured} is configured\n"
        ));
    }
    text
}

fn text_of_problems(answer: &Value) -> String {
    let mut text = String::new();
    for problem in answer["problems"].as_array().into_iter().flatten() {
        let word = |key: &str| problem[key].as_str().unwrap_or_default();
        text.push_str(&format!("error: {}: {}\n", word("file"), word("reason")));
        if !word("hint").is_empty() {
            text.push_str(&format!("  hint: {}\n", word("hint")));
        }
    }
    text
}

fn text_of_status(answer: &Value) -> String {
    let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let ready = match answer["ready"] == true {
        true => "ready".to_owned(),
        false => format!("not ready: {}", word("reason")),
    };
    let mut text = format!(
        "relais {}, {ready}, since {}\n{} structures with certificates, {} services, {} connections to services\n",
        word("version"),
        word("since"),
        answer["tenants"],
        answer["services"],
        answer["upstream_connections"]
    );
    if let Some(sandbox) = answer["sandbox"].as_str() {
        writeln!(text, "sandbox  {sandbox}").expect("writing to a String does not fail");
    }
    for (state, count) in answer["certificates"].as_object().into_iter().flatten() {
        writeln!(text, "certificates  {count} {state}").expect("writing to a String does not fail");
    }
    text.push_str(&text_of_problems(answer));
    text.push_str(&text_of_restart(answer));
    for rejected in answer["rejected_certificates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let word = |key: &str| rejected[key].as_str().unwrap_or_default();
        let line = format!(
            "warning: {} refuses the renewed certificate {} of {} ({}); {} serves on\n  hint: {}\n",
            word("service"),
            word("serial"),
            word("structure"),
            word("alert"),
            word("previous_serial"),
            word("hint")
        );
        text.push_str(&line);
    }
    for problem in answer["certificate_problems"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let word = |key: &str| problem[key].as_str().unwrap_or_default();
        let line = format!(
            "warning: {} answers {} ({} times)\n  hint: {}\n",
            word("service"),
            word("problem"),
            problem["count"],
            word("hint")
        );
        text.push_str(&line);
    }
    text
}
