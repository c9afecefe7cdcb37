//! The whole configuration, section by section, in the order of the reference.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::parse;
use super::raw::{Mismatch, Parsed, Raw};
use super::section::Section;
use super::{
    AccessLog, Config, Identities, KeyReaders, Limits, Log, LogFormat, Process, Reload, Variables,
    bindings, callers, destinations, files, listeners, notices, revocation, services, structures,
};
use crate::services::Environment;
use crate::services::InFlight;

pub(super) const ENVIRONMENTS: &[(&str, Environment)] = &[
    ("production", Environment::Production),
    ("test", Environment::Test),
];
const KEY_READERS: &[(&str, KeyReaders)] = &[
    ("owner", KeyReaders::Owner),
    ("group", KeyReaders::Group),
    ("anyone", KeyReaders::Anyone),
];
const WITHDRAWAL: &[(&str, InFlight)] = &[("finish", InFlight::Finish), ("cut", InFlight::Cut)];
const RELOAD: &[(&str, Reload)] = &[("auto", Reload::Auto), ("manual", Reload::Manual)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads everything; `None` if anything that a [`Config`] needs could not be read.
pub(super) fn read(mut root: Section<'_>, variables: Variables) -> Option<Config> {
    let environment = root
        .require("environment", parse::word(ENVIRONMENTS))
        .map(|found| found.value);
    let workers = root.require("workers", parse::count(1..=1024));
    let mut names = Vec::new();
    let services = services::read(&mut root, environment, &mut names);
    let bound = listeners::read(&mut root, &names);
    let callers = callers::read(&mut root, &bound, &names);
    listeners::refuse_exposed(&root, &bound, &callers);
    let identities = root
        .section("identities")
        .and_then(|section| identities(section, environment));
    let revocation = root.section("revocation").and_then(revocation::read);
    let notices = root.section("notices").map(notices::read);
    let tenants = structures::tenants(&mut root);
    let bindings = bindings::read(&mut root, &names);
    let vendor = structures::vendor(&mut root);
    let log = root.section("log").and_then(log);
    let limits = root.section("limits").and_then(limits);
    let process = root.section("process").and_then(process);
    let shutdown_grace = root.section("shutdown").and_then(shutdown);
    if let (Some(services), Some(listeners)) = (&services, &bound.listeners) {
        destinations::check(&root, services, listeners, bound.admin.as_ref());
    }
    // It only fails for an empty path, and nothing can be read from one.
    let file =
        std::path::absolute(root.reader.path).unwrap_or_else(|_| root.reader.path.to_owned());
    let reads = root.reader.reads.take();
    root.finish();
    Some(Config {
        file,
        reads,
        variables,
        environment: environment?,
        workers: NonZeroUsize::new(workers?.value)?,
        listeners: bound.listeners?,
        callers,
        identities: identities?,
        tenants,
        services: services?,
        revocation: revocation?,
        notices: notices.map_or(Some(None), |read| read.map(Some))?,
        bindings,
        vendor,
        admin: bound.admin,
        log: log?,
        limits: limits?,
        process: process?,
        shutdown_grace: shutdown_grace?,
    })
}

fn identities(mut section: Section<'_>, environment: Option<Environment>) -> Option<Identities> {
    let reader = section.reader;
    let path = parse::path(&reader.base);
    let directory = section.require("directory", |raw| {
        let path = path(raw)?;
        reader.look(&path, files::directory).map(|()| path)
    });
    let password_file = section.take("password_file", |raw| {
        let path = path(raw)?;
        reader.look(&path, files::readable).map(|()| path)
    });
    let password_env = section.take("password_env", variable_name);
    let password_credential = section.take("password_credential", credential_name);
    let key_readers = section.require("key_readers", parse::word(KEY_READERS));
    let reload = section.require("reload", parse::word(RELOAD));
    let retire_before_expiry = section.require("retire_before_expiry", parse::margin);
    let withdrawal = section.require("withdrawal", parse::word(WITHDRAWAL));
    if let Some(readers) = &key_readers
        && readers.value == KeyReaders::Anyone
        && environment == Some(Environment::Production)
    {
        let text = "private keys of production may be readable by anyone on this machine";
        let hint = "chmod 600 the keys and remove key_readers, or use \"group\"";
        section.reader.warning(&readers.spot, text, hint);
    }
    section.finish();
    Some(Identities {
        directory: directory?.value,
        password_file: password_file.map(|found| found.value),
        password_env: password_env.map(|found| found.value),
        password_credential: password_credential.map(|found| found.value),
        key_readers: key_readers?.value,
        reload: reload?.value,
        retire_before_expiry: retire_before_expiry?.value,
        withdrawal: withdrawal?.value,
    })
}

fn variable_name(raw: &Raw<'_>) -> Parsed<String> {
    let expected = || {
        Mismatch::expected("the name of an environment variable, such as \"RELAIS_KEY_PASSWORD\"")
    };
    // It may well be the password, which may be a number.
    let name = parse::text(raw).map_err(|_| expected().hidden())?;
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    well_formed.then_some(name).ok_or_else(|| {
        let hint = "name the variable; the password itself does not belong here";
        expected().hint(hint).hidden()
    })
}

fn credential_name(raw: &Raw<'_>) -> Parsed<String> {
    let expected = || {
        Mismatch::expected(
            "the name of a systemd credential, without folder, such as \"key-passwords\"",
        )
    };
    // It may well be the password.
    let expected = || expected().hidden();
    let name = parse::text(raw).map_err(|_| expected())?;
    let is_file_name = !name.contains(['/', '\0']) && name != "." && name != "..";
    is_file_name.then_some(name).ok_or_else(expected)
}

fn log(mut section: Section<'_>) -> Option<Log> {
    let base = &section.reader.base;
    let level = section.require("level", log_level);
    let format = section.require("format", parse::word(LOG_FORMATS));
    let access = section.require("access", |raw| access_log(raw, parse::path(base)));
    section.finish();
    Some(Log {
        level: level?.value,
        format: format?.value,
        access: access?.value,
    })
}

/// `level` and `target=level`, separated by commas. `tracing` would take any misspelt level for a target.
fn log_level(raw: &Raw<'_>) -> Parsed<String> {
    let expected = || {
        Mismatch::expected(format!(
            "a level ({}), or levels by module such as \"info,relais=debug\"",
            LOG_LEVELS.join(", ")
        ))
    };
    let text = raw.text().ok_or_else(expected)?;
    let is_target = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'))
    };
    let is_directive = |directive: &str| match directive.split_once('=') {
        Some((target, level)) => is_target(target) && LOG_LEVELS.contains(&level),
        None => LOG_LEVELS.contains(&directive),
    };
    text.split(',')
        .all(is_directive)
        .then(|| text.to_owned())
        .ok_or_else(expected)
}

fn access_log(raw: &Raw<'_>, path: impl Fn(&Raw<'_>) -> Parsed<PathBuf>) -> Parsed<AccessLog> {
    match raw.text() {
        Some("off") => Ok(AccessLog::Off),
        Some("stdout") => Ok(AccessLog::Stdout),
        _ => {
            let path = path(raw)
                .map_err(|_| Mismatch::expected("\"off\", \"stdout\", or the path of a file"))?;
            files::appendable(&path).map(|()| AccessLog::File(path))
        }
    }
}

fn limits(mut section: Section<'_>) -> Option<Limits> {
    // A million sockets is what one kernel is commonly stretched to.
    let inbound_connections = section.require("inbound_connections", parse::count(1..=1_000_000));
    let upstream_connections = section.require("upstream_connections", parse::count(1..=1_000_000));
    // Below 1 KiB common clients fail; each connection may hold that much, so 256 KiB is already generous.
    let request_head = section.require(
        "request_head",
        parse::size(ByteSize::kib(1)..=ByteSize::kib(256)),
    );
    let head_timeout = section.require("head_timeout", parse::duration);
    let requests = section.require("requests", parse::count(1..=1_000_000));
    section.finish();
    Some(Limits {
        inbound_connections: inbound_connections?.value,
        upstream_connections: upstream_connections?.value,
        request_head: usize::try_from(request_head?.value).ok()?,
        head_timeout: head_timeout?.value,
        requests: requests?.value,
    })
}

fn process(mut section: Section<'_>) -> Option<Process> {
    let core_dumps = section.require("core_dumps", parse::flag);
    let sandbox = section.require("sandbox", parse::flag);
    section.finish();
    Some(Process {
        core_dumps: core_dumps?.value,
        sandbox: sandbox?.value,
    })
}

fn shutdown(mut section: Section<'_>) -> Option<Duration> {
    let grace = section.require("grace", parse::duration);
    section.finish();
    Some(grace?.value)
}
