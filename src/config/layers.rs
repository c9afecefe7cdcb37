//! Built-in defaults, then the file, then the environment: merged by the `config` crate, later ones winning.

use std::path::Path;

use ::config::{ConfigError, Map, Source, Value, ValueKind};

use super::defaults;
use super::document::{Document, join};
use super::problem::{Place, Problem, What};

/// What a variable's name begins with when it stands for a key.
pub(super) const PREFIX: &str = "RELAIS__";

/// Marks values that come as text whatever their type: from the environment, or from the defaults.
pub(super) const TEXT_ORIGIN: &str = "text";

/// Everything hangs below one key, because the `config` crate reads a source's own keys as path expressions
/// (`"a[9]"` would become a list): inside, keys are taken literally.
const ROOT: &str = "relais";

/// Keys whose next segment in a variable is a position.
const LISTS: [&str; 4] = ["listeners", "tenants", "bindings", "callers"];

/// Positions beyond this one are typing errors, and a list as long as its largest position would be made of holes.
const LARGEST_POSITION: usize = 63;

/// The deepest key, `services.dmp.timeouts.connect`, has four; the rest is room for an unknown-key message.
const MOST_SEGMENTS: usize = 6;

/// Shown with every name that cannot be understood.
const EXAMPLE: &str = "for example RELAIS__LOG__LEVEL=debug sets log.level, \
                       RELAIS__LISTENERS__0__ADDRESS the first listener's address";

/// An environment variable that stands for a key.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    /// Its name, for messages.
    pub(super) name: String,
    /// The key, as `services.insi-auto.url`.
    pub(super) path: String,
    value: String,
}

impl Variable {
    /// Whether it sets this key, or one below it.
    pub(super) fn is_at_or_below(&self, path: &str) -> bool {
        self.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// `RELAIS__SERVICES__INSI_AUTO__URL` is `services.insi-auto.url`: shells allow no hyphen in a name, and
    /// service names have no underscore.
    fn parse(name: String, value: String) -> Result<Self, Box<Problem>> {
        let refused = |reason: &str| {
            Box::new(Problem {
                place: Place::Variable(name.clone()),
                key: String::new(),
                what: What::Rule(reason.to_owned()),
                hint: Some(EXAMPLE.to_owned()),
            })
        };
        let mut path = String::new();
        let lower = name[PREFIX.len()..].to_lowercase();
        let segments: Vec<&str> = lower.split("__").collect();
        if segments.len() > MOST_SEGMENTS {
            return Err(refused("names no key: too many parts"));
        }
        for (at, segment) in segments.iter().enumerate() {
            if segment.is_empty()
                || !segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            {
                return Err(refused(
                    "names no key: a part is empty or has unusual characters",
                ));
            }
            match (at, segments[0]) {
                (1, list) if LISTS.contains(&list) => match segment.parse::<usize>() {
                    Ok(index) if index <= LARGEST_POSITION => path.push_str(&format!("[{index}]")),
                    _ => {
                        return Err(refused(&format!(
                            "expected a position from 0 to {LARGEST_POSITION} after {list}"
                        )));
                    }
                },
                // So are field names, in which an underscore is as good as never seen.
                (1, "services") | (3, "services") if at == 1 || segments[2] == "headers" => {
                    path = join(&path, &segment.replace('_', "-"))
                }
                _ => path = join(&path, segment),
            }
        }
        Ok(Self { name, path, value })
    }
}

/// Reads variables that stand for keys, and refuses those that contradict each other.
pub(super) fn variables(
    ours: impl IntoIterator<Item = (String, String)>,
) -> (Vec<Variable>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut variables: Vec<Variable> = Vec::new();
    for (name, value) in ours {
        match Variable::parse(name, value) {
            Ok(variable) => variables.push(variable),
            Err(problem) => problems.push(*problem),
        }
    }
    // Sorted, so that messages do not depend on the order of the process's variables.
    variables.sort_by(|a, b| (&a.path, &a.name).cmp(&(&b.path, &b.name)));
    let mut kept: Vec<Variable> = Vec::new();
    for (at, variable) in variables.iter().enumerate() {
        let mut later = variables[at + 1..].iter();
        match later.find(|later| later.is_at_or_below(&variable.path)) {
            // Left out of the merge, whose result would depend on which came last.
            Some(other) => problems.push(Problem {
                place: Place::Variable(variable.name.clone()),
                key: variable.path.clone(),
                what: What::Rule(format!("also set by {}", other.name)),
                hint: Some("keep one of the two".to_owned()),
            }),
            None => kept.push(variable.clone()),
        }
    }
    (kept, problems)
}

/// The three layers as one tree.
pub(super) fn merge(
    document: &Document,
    variables: &[Variable],
    path: &Path,
) -> Result<Map<String, Value>, Box<Problem>> {
    let mut environment = Map::new();
    for variable in variables {
        let value = Value::new(Some(&TEXT_ORIGIN.to_owned()), variable.value.clone());
        environment.insert(format!("{ROOT}.{}", variable.path), value);
    }
    let services = service_names(document, variables);
    let below_root = |table| Map::from_iter([(ROOT.to_owned(), Value::from(table))]);
    let merged = ::config::Config::builder()
        .add_source(Layer(below_root(defaults::table(
            services.iter().map(String::as_str),
        ))))
        .add_source(Layer(below_root(document.table.clone())))
        .add_source(Layer(environment))
        .build()
        .map_err(|error| Problem {
            place: Place::File {
                path: path.to_owned(),
                line: 1,
                column: 1,
            },
            key: String::new(),
            what: What::Rule(error.to_string()),
            hint: None,
        })?;
    let ValueKind::Table(mut whole) = merged.cache.kind else {
        return Ok(Map::new());
    };
    match whole.remove(ROOT).map(|value| value.kind) {
        Some(ValueKind::Table(table)) => Ok(table),
        _ => Ok(Map::new()),
    }
}

/// The services that the file or a variable speaks of.
fn service_names(document: &Document, variables: &[Variable]) -> Vec<String> {
    let mut names: Vec<String> = match document.table.get("services").map(|value| &value.kind) {
        Some(ValueKind::Table(sections)) => sections.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let from_variables = variables
        .iter()
        .filter_map(|variable| variable.path.strip_prefix("services."));
    names.extend(from_variables.map(|rest| rest.split('.').next().unwrap_or(rest).to_owned()));
    names
}

/// A table that is already in memory, as a source of the `config` crate.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
