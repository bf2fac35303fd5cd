//! The file of profiles: one table a profile, with the fields of a client's settings.
//! It holds no secret, only the names of files that do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::fault::Fault;
use super::super::reader::distance;
use super::super::source::read_table;
use super::layers::{Field, Layer};

/// Where the file is in a folder of settings.
const FILE: &str = "kms/profiles.toml";

/// How many letters a misspelt name may be away from the right one.
const NEAR: usize = 2;

/// Whether this variable names a folder that the file may be in.
pub(super) fn is_folder(variable: &str) -> bool {
    matches!(variable, "XDG_CONFIG_HOME" | "HOME")
}

/// Where the file is where nothing names it: as the XDG Base Directory Specification
/// has it.
pub(super) fn usual_file(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = environment.get(name).map(PathBuf::from);
        // A path that is not absolute is to be ignored, says the specification.
        path.filter(|path| path.is_absolute())
    };
    let settings = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    Some(settings?.join(FILE))
}

/// The field that is a letter or two away.
pub(super) fn closest(name: &str) -> Option<Field> {
    Field::ALL
        .into_iter()
        .map(|field| (distance(name, field.name()), field))
        .filter(|(distance, _)| *distance <= NEAR)
        .min()
        .map(|(_, field)| field)
}

/// The profile of this name. Paths in it are relative to the file's folder.
pub(super) fn read(file: &Path, name: &str) -> Result<Layer, Vec<Fault>> {
    let fault = |what: String| vec![Fault::new("profile", what).from(file.display().to_string())];
    let table = read_table(file).map_err(|fault| vec![fault])?;
    let Some(table) = table else {
        return Err(fault(format!(
            "{name} is wanted, and the file is not there"
        )));
    };
    let names = || {
        let names: Vec<&str> = table.keys().map(String::as_str).collect();
        names.join(", ")
    };
    let profile = match table.get(name) {
        Some(toml::Value::Table(profile)) => profile,
        Some(_) => return Err(fault(format!("{name} is no profile: expected [{name}]"))),
        None => return Err(fault(format!("there is no {name}; there are: {}", names()))),
    };
    let origin = format!("[{name}] in {}", file.display());
    let mut layer = Layer {
        folder: file.parent().map(Path::to_owned).unwrap_or_default(),
        ..Layer::default()
    };
    let mut faults = Vec::new();
    for (key, value) in profile {
        match (Field::named(key), value) {
            (Some(field), toml::Value::String(text)) => {
                layer.fields.insert(field, (text.clone(), origin.clone()));
            }
            (Some(_), _) => {
                faults.push(Fault::new(key, "expected a text, in quotes").from(&origin));
            }
            (None, _) => faults.push(Fault::new(key, unknown(key)).from(&origin)),
        }
    }
    if faults.is_empty() {
        Ok(layer)
    } else {
        Err(faults)
    }
}

fn unknown(key: &str) -> String {
    match key {
        "token" | "approval" => {
            format!("unknown field: a profile holds no secret; name its file in {key}_file")
        }
        _ => match closest(key) {
            Some(field) => format!("unknown field; is {} meant?", field.name()),
            None => {
                let names = Field::ALL.map(Field::name).join(", ");
                format!("unknown field; there are: {names}")
            }
        },
    }
}
