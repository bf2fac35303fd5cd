//! Where settings come from: the built-in files, a folder of files, and the
//! environment variables, each flattened to dotted names.
//!
//! It knows the order of the layers and not what any setting means.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::environment::EnvironmentName;
use super::fault::Fault;
use super::value::Raw;

const DEFAULTS: &str = include_str!("../../config/default.toml");
const DEVELOPMENT: &str = include_str!("../../config/development.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");

/// The origin of what nobody set.
pub(super) const BUILT_IN: &str = "default";

const ENVIRONMENT: &str = "ENVIRONMENT";
const PREFIX: &str = "KMS__";

/// The names of the Python service, which stand for ours.
const ORIGINAL_NAMES: [(&str, &str); 3] = [
    ("CORS_ORIGINS", "server.cors_origins"),
    ("HSM_ENDPOINT", "hsm.pkcs11.module"),
    ("HSM_CREDENTIALS", "hsm.pkcs11.pin"),
];

/// What a configuration is read from.
pub struct Source {
    /// Environment variables by name. Those that aren't the service's are ignored.
    pub environment: BTreeMap<String, String>,
    /// The folder of `default.toml` and `<environment>.toml`; either may be missing.
    pub directory: Option<PathBuf>,
}

impl Source {
    /// The variables of this process, and the folder given, or `config` of the
    /// current folder where there is one.
    pub fn from_process(config_dir: Option<PathBuf>) -> Self {
        // Not `vars`, which panics on a variable that isn't UTF-8. Such a value
        // keeps a replacement character, which is refused below.
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| is_ours(name))
            .collect();
        let beside = PathBuf::from("config");
        Self {
            environment,
            directory: config_dir.or_else(|| beside.is_dir().then_some(beside)),
        }
    }

    /// The environment's name; `None` where it isn't one, which is a fault.
    pub(super) fn environment_name(&self, faults: &mut Vec<Fault>) -> Option<EnvironmentName> {
        match self.environment.get(ENVIRONMENT) {
            None => Some(EnvironmentName::development()),
            Some(text) => text
                .parse()
                .map_err(|invalid| {
                    let what = format!("{invalid}");
                    faults.push(Fault::new("environment", what).from(ENVIRONMENT));
                })
                .ok(),
        }
    }

    /// Where the environment's name comes from.
    pub(super) fn environment_origin(&self) -> &'static str {
        match self.environment.get(ENVIRONMENT) {
            None => BUILT_IN,
            Some(_) => ENVIRONMENT,
        }
    }

    /// Every layer, lowest first within each field.
    pub(super) fn layers(&self, environment: &EnvironmentName, faults: &mut Vec<Fault>) -> Layers {
        let mut layers = Layers {
            built_in: built_in(environment),
            files: Vec::new(),
            original_names: BTreeMap::new(),
            variables: BTreeMap::new(),
            complete: true,
        };
        if let Some(directory) = &self.directory {
            for name in ["default", environment.as_str()] {
                match read_file(&directory.join(format!("{name}.toml"))) {
                    Ok(layer) => layers.files.push(layer),
                    Err(fault) => {
                        faults.push(fault);
                        layers.complete = false;
                    }
                }
            }
            if !directory.is_dir() {
                let what = "expected the folder of the configuration files, which isn't there";
                faults.push(Fault::new(directory.display().to_string(), what));
                layers.complete = false;
            }
        }
        self.read_variables(&mut layers, faults);
        layers
    }

    fn read_variables(&self, layers: &mut Layers, faults: &mut Vec<Fault>) {
        for (variable, value) in self.environment.iter().filter(|(name, _)| is_ours(name)) {
            if value.contains(char::REPLACEMENT_CHARACTER) {
                faults.push(Fault::new(variable, "expected UTF-8 text"));
            }
            let entry = Entry {
                raw: Raw::Variable(value.clone()),
                origin: variable.clone(),
            };
            if let Some((_, setting)) = ORIGINAL_NAMES.iter().find(|(name, _)| name == variable) {
                layers.original_names.insert((*setting).to_owned(), entry);
            } else if let Some(setting) = setting_of(variable)
                && let Some(other) = layers.variables.insert(setting.clone(), entry)
            {
                let what = format!("expected one variable, and {variable} names it too");
                faults.push(Fault::new(setting, what).from(other.origin));
            }
        }
    }
}

/// The layers of a configuration, flattened to dotted names.
pub(super) struct Layers {
    /// The files compiled in.
    pub(super) built_in: Layer,
    /// The files of the folder.
    pub(super) files: Vec<Layer>,
    /// Variables under the names of the Python service.
    pub(super) original_names: Layer,
    /// Variables under our names, keyed by [`variable_key`].
    pub(super) variables: Layer,
    /// Whether every file could be read: if not, what isn't set may only be unread.
    pub(super) complete: bool,
}

pub(super) type Layer = BTreeMap<String, Entry>;

/// A value and the file or variable that holds it.
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: String,
}

/// A dotted name as a variable can spell it: lower-case, `_` for `-`.
pub(super) fn variable_key(setting: &str) -> String {
    setting.to_ascii_lowercase().replace('-', "_")
}

/// The variable that sets a dotted name.
pub(super) fn variable_name(setting: &str) -> String {
    let key = variable_key(setting).replace('.', "__");
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

fn setting_of(variable: &str) -> Option<String> {
    let (prefix, rest) = variable.split_at_checked(PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(PREFIX)
        .then(|| rest.to_ascii_lowercase().replace("__", "."))
}

fn is_ours(variable: &str) -> bool {
    variable == ENVIRONMENT
        || ORIGINAL_NAMES.iter().any(|(name, _)| *name == variable)
        || setting_of(variable).is_some()
}

fn built_in(environment: &EnvironmentName) -> Layer {
    let mut texts = vec![DEFAULTS];
    if environment.is_development() {
        texts.push(DEVELOPMENT);
    } else if environment.is_production() {
        texts.push(PRODUCTION);
    }
    let mut layer = Layer::new();
    for text in texts {
        let table = text.parse().expect("the built-in files are read by a test");
        flatten("", table, BUILT_IN, &mut layer);
    }
    layer
}

fn read_file(path: &Path) -> Result<Layer, Fault> {
    let mut layer = Layer::new();
    if let Some(table) = read_table(path)? {
        flatten("", table, &path.display().to_string(), &mut layer);
    }
    Ok(layer)
}

/// What a TOML file holds; `None` where there is no such file.
pub(super) fn read_table(path: &Path) -> Result<Option<toml::Table>, Fault> {
    let origin = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let what = format!("expected a readable file of UTF-8 text: {}", error.kind());
            return Err(Fault::new(origin, what));
        }
    };
    text.parse().map(Some).map_err(|error: toml::de::Error| {
        // Never the error's own display: it quotes the line, secrets and all.
        let start = error.span().map_or(0, |span| span.start);
        let before = text.as_bytes().iter().take(start);
        let line = 1 + before.filter(|&&byte| byte == b'\n').count();
        let what = format!("line {line}: expected TOML: {}", error.message());
        Fault::new(origin, what)
    })
}

fn flatten(section: &str, table: toml::Table, origin: &str, layer: &mut Layer) {
    for (key, value) in table {
        // A dot inside a quoted key is no section: such a name stays unknown.
        let key = if key.contains('.') || key.is_empty() {
            format!("{key:?}")
        } else {
            key
        };
        let name = if section.is_empty() {
            key
        } else {
            format!("{section}.{key}")
        };
        match value {
            toml::Value::Table(table) if !table.is_empty() => flatten(&name, table, origin, layer),
            value => {
                let entry = Entry {
                    raw: Raw::File(value),
                    origin: origin.to_owned(),
                };
                layer.insert(name, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_spells_a_dotted_name() {
        assert_eq!(
            setting_of("KMS__Server__LISTEN").as_deref(),
            Some("server.listen")
        );
        assert_eq!(
            setting_of("KMS__KEYS__ROTATION_SCHEDULE__RSA_2048"),
            Some(variable_key("keys.rotation_schedule.RSA-2048"))
        );
        assert_eq!(
            variable_name("keys.rotation_schedule.RSA-2048"),
            "KMS__KEYS__ROTATION_SCHEDULE__RSA_2048"
        );
    }

    #[test]
    fn variables_of_others_are_not_ours() {
        // Kubernetes sets the second for a service named kms.
        for name in ["PATH", "KMS_SERVICE_HOST", "XKMS__SERVER__LISTEN", "ü"] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn of_the_process_only_our_variables_and_the_given_folder_are_taken() {
        let source = Source::from_process(Some(PathBuf::from("elsewhere")));
        assert!(source.environment.keys().all(|name| is_ours(name)));
        assert_eq!(source.directory.as_deref(), Some(Path::new("elsewhere")));
        // Tests run in the project's folder, which has one.
        let beside = Source::from_process(None).directory;
        assert_eq!(beside.as_deref(), Some(Path::new("config")));
    }
}
