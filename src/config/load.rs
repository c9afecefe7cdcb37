//! From a file and the environment to a [`Config`].

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::document::{Document, Lines};
use super::problem::{Place, Problem, Problems, What};
use super::reader::Reader;
use super::{Config, Variables, layers, whole};

/// The environment variable that names the configuration file.
pub const PATH_VARIABLE: &str = "RELAIS_CONFIG";

/// The configuration file when nothing names another.
pub const DEFAULT_PATH: &str = "config/relais.toml";

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// What works but should be looked at.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads this file and the environment.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        let text = text_of(path)?;
        // Not `vars`, which panics on what is not Unicode: a damaged value is refused by its key's parser instead.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::from_toml(&text, path, environment)
    }

    /// Reads the file that this came from once more, with the same environment. What it names on disk and is in use
    /// already is not looked at: it may be half written just now, and that is no error of the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_again(&self) -> Result<Loaded, Problems> {
        let text = text_of(&self.file)?;
        let variables = self.variables.0.iter().cloned();
        read(&text, &self.file, variables, &self.in_use()).into_result()
    }

    /// Reads the text of a file that would be at this path, and this environment.
    ///
    /// The path is shown in messages, and relative paths in the text start from its folder.
    pub fn from_toml(
        text: &str,
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Problems> {
        read(text, path, environment, &HashSet::new()).into_result()
    }
}

/// What reading came to, before it is decided whether it will do.
#[derive(Default)]
pub(super) struct Outcome {
    config: Option<Config>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The keys that were asked for, as `services.*.tls`.
    #[cfg(test)]
    pub(super) asked: BTreeSet<String>,
}

impl Outcome {
    fn into_result(self) -> Result<Loaded, Problems> {
        let (errors, warnings) = (self.errors, self.warnings);
        match self.config {
            Some(config) if errors.is_empty() => Ok(Loaded { config, warnings }),
            _ => Err(Problems { errors, warnings }),
        }
    }
}

/// Reads everything. `in_use` is what the gateway uses already, and what is not looked at.
pub(super) fn read(
    text: &str,
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    in_use: &HashSet<PathBuf>,
) -> Outcome {
    let environment = environment.into_iter();
    let ours: Vec<_> = environment
        .filter(|(name, _)| name.starts_with(layers::PREFIX))
        .collect();
    let given = Variables(ours.clone());
    let (variables, mut errors) = layers::variables(ours);
    let merged = Document::parse(text, path)
        .and_then(|document| Ok((layers::merge(&document, &variables, path)?, document)));
    let (merged, document) = match merged {
        Ok(merged) => merged,
        Err(problem) => {
            errors.insert(0, *problem);
            return Outcome {
                errors,
                ..Outcome::default()
            };
        }
    };
    let reader = Reader {
        document: &document,
        lines: Lines::new(text),
        variables: &variables,
        path,
        base: folder(path),
        in_use,
        reads: BTreeSet::new().into(),
        errors: errors.into(),
        warnings: Vec::new().into(),
        #[cfg(test)]
        asked: BTreeSet::new().into(),
    };
    let config = whole::read(reader.root(merged), given);
    let mut errors = reader.errors.into_inner();
    let mut warnings = reader.warnings.into_inner();
    errors.sort_by(|a, b| a.place.cmp(&b.place));
    warnings.sort_by(|a, b| a.place.cmp(&b.place));
    Outcome {
        config,
        errors,
        warnings,
        #[cfg(test)]
        asked: reader.asked.into_inner(),
    }
}

/// The folder of the file, absolute.
fn folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}

fn text_of(path: &Path) -> Result<String, Problems> {
    let text = crate::files::read(path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8 text"))
    });
    text.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    let problem = Problem {
        place: Place::File {
            path: path.to_owned(),
            line: 1,
            column: 1,
        },
        key: String::new(),
        what: What::Unreadable(error.to_string()),
        hint: Some(format!(
            "name another with --config or {PATH_VARIABLE}; relais.reference.toml describes every key"
        )),
    };
    Problems {
        errors: vec![problem],
        warnings: Vec::new(),
    }
}
