//! The three places that a client's settings come from, and which of them counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::super::fault::Fault;
use super::{Given, profiles};
use crate::domain::secret::SecretBytes;

/// What the variables begin with. The service's own begin with `KMS__`.
const PREFIX: &str = "KMS_CLIENT_";

/// The variables that hold a secret itself, and the field that names its file.
const SECRETS: [(&str, Field); 2] = [
    ("KMS_CLIENT_TOKEN", Field::TokenFile),
    ("KMS_CLIENT_APPROVAL", Field::ApprovalFile),
];

const PROFILE: &str = "KMS_CLIENT_PROFILE";
const PROFILES: &str = "KMS_CLIENT_PROFILES";

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// One setting, as a flag, a variable and a field of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Url,
    Cacert,
    Cert,
    Key,
    TokenFile,
    Module,
    Tenant,
    Environment,
    Plane,
    ApprovalFile,
    Wait,
}

impl Field {
    pub(super) const ALL: [Self; 11] = [
        Self::Url,
        Self::Cacert,
        Self::Cert,
        Self::Key,
        Self::TokenFile,
        Self::Module,
        Self::Tenant,
        Self::Environment,
        Self::Plane,
        Self::ApprovalFile,
        Self::Wait,
    ];

    /// Its name in a profile.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Cacert => "cacert",
            Self::Cert => "cert",
            Self::Key => "key",
            Self::TokenFile => "token_file",
            Self::Module => "module",
            Self::Tenant => "tenant",
            Self::Environment => "environment",
            Self::Plane => "plane",
            Self::ApprovalFile => "approval_file",
            Self::Wait => "wait",
        }
    }

    fn flag(self) -> String {
        format!("--{}", self.name().replace('_', "-"))
    }

    fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().to_ascii_uppercase())
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// What a client's settings are read from.
#[derive(Default)]
pub struct ClientSource {
    /// The flags that were given, by the names of their fields (`token_file`).
    pub flags: BTreeMap<&'static str, String>,
    /// The profile that a flag names.
    pub profile: Option<String>,
    /// The variables of the process by name. Those that are nobody's here are ignored.
    pub environment: BTreeMap<String, String>,
}

impl ClientSource {
    /// These flags, and the variables of this process.
    pub fn from_process(flags: BTreeMap<&'static str, String>, profile: Option<String>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| name.starts_with(PREFIX) || profiles::is_folder(name))
            .collect();
        Self {
            flags,
            profile,
            environment,
        }
    }

    /// The layers, the one that counts most first.
    pub(super) fn layers(&self, faults: &mut Vec<Fault>) -> Layers {
        let mut flags = Layer::default();
        for (name, text) in &self.flags {
            if let Some(field) = Field::named(name) {
                flags.fields.insert(field, (text.clone(), field.flag()));
            }
        }
        let mut layers = vec![flags, self.variables(faults)];
        let named = self.profile.as_ref().or(self.environment.get(PROFILE));
        // The empty text unsets it, a flag's too.
        if let Some(name) = named.filter(|name| !name.is_empty()) {
            match self.profiles_file() {
                Some(file) => match profiles::read(&file, name) {
                    Ok(profile) => layers.push(profile),
                    Err(found) => faults.extend(found),
                },
                None => {
                    let what = format!("there is no home folder to look in: set {PROFILES}");
                    faults.push(Fault::new("profile", what));
                }
            }
        }
        Layers(layers)
    }

    fn profiles_file(&self) -> Option<PathBuf> {
        match self
            .environment
            .get(PROFILES)
            .filter(|path| !path.is_empty())
        {
            Some(path) => Some(PathBuf::from(path)),
            None => profiles::usual_file(&self.environment),
        }
    }

    fn variables(&self, faults: &mut Vec<Fault>) -> Layer {
        let mut layer = Layer::default();
        let ours = self.environment.iter().filter_map(|(variable, value)| {
            let rest = variable.strip_prefix(PREFIX)?;
            (!is_of_kubernetes(rest)).then_some((variable, rest, value))
        });
        for (variable, rest, value) in ours {
            if value.contains(char::REPLACEMENT_CHARACTER) {
                faults.push(Fault::new(variable, "expected UTF-8 text"));
            }
            let secret = SECRETS.iter().find(|(name, _)| name == variable);
            if let Some((_, field)) = secret {
                layer
                    .secrets
                    .insert(*field, (value.clone(), variable.clone()));
            } else if let Some(field) = Field::named(&rest.to_ascii_lowercase())
                .filter(|field| field.variable() == *variable)
            {
                layer
                    .fields
                    .insert(field, (value.clone(), variable.clone()));
            } else if variable != PROFILE && variable != PROFILES {
                let what = match profiles::closest(&rest.to_ascii_lowercase()) {
                    Some(field) => format!("unknown variable; is {} meant?", field.variable()),
                    None => "unknown variable; kms sign --help lists them".to_owned(),
                };
                faults.push(Fault::new(variable, what));
            }
        }
        layer
    }
}

/// What Kubernetes sets in every container for a service named `kms-client`.
fn is_of_kubernetes(rest: &str) -> bool {
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

/// One place, with a text and its origin a field.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) fields: BTreeMap<Field, (String, String)>,
    /// The secrets themselves, under the field that would name their file.
    pub(super) secrets: BTreeMap<Field, (String, String)>,
    /// What relative paths are relative to, where that is not the current folder.
    pub(super) folder: PathBuf,
}

/// The places, the one that counts most first.
pub(super) struct Layers(Vec<Layer>);

/// A text that counts.
pub(super) struct Value<'a> {
    pub(super) text: &'a str,
    pub(super) origin: &'a String,
    /// Counted from the place that counts most.
    pub(super) layer: usize,
}

impl Layers {
    /// The place that counts for a field, also where it has the empty text.
    pub(super) fn named_in(&self, field: Field) -> Option<usize> {
        self.0
            .iter()
            .position(|place| place.fields.contains_key(&field))
    }

    /// The text of a field. The empty text in a place leaves it unset, whatever the
    /// places below say.
    pub(super) fn text(&self, field: Field) -> Option<Value<'_>> {
        let layer = self.named_in(field)?;
        let (text, origin) = self.0.get(layer)?.fields.get(&field)?;
        let value = Value {
            text,
            origin,
            layer,
        };
        (!text.is_empty()).then_some(value)
    }

    pub(super) fn path(&self, field: Field) -> Option<PathBuf> {
        let value = self.text(field)?;
        self.path_in(value.layer, field)
    }

    /// The path in this place.
    pub(super) fn path_in(&self, layer: usize, field: Field) -> Option<PathBuf> {
        let place = self.0.get(layer)?;
        let (text, _) = place.fields.get(&field)?;
        (!text.is_empty()).then(|| place.folder.join(Path::new(text)))
    }

    /// A value, if there is one.
    pub(super) fn optional<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: Field,
        faults: &mut Vec<Fault>,
    ) -> Option<T> {
        let value = self.text(field)?;
        value
            .text
            .parse()
            .map_err(|expected: T::Err| {
                let fault = Fault::new(field.name(), expected.to_string());
                faults.push(fault.from(value.origin.clone()));
            })
            .ok()
    }

    /// A value that has to be there.
    pub(super) fn required<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: Field,
        faults: &mut Vec<Fault>,
    ) -> Option<T> {
        if self.text(field).is_none() {
            let what = format!(
                "missing; give {}, set {}, or name a profile that has it (--profile, {PROFILE})",
                field.flag(),
                field.variable()
            );
            faults.push(Fault::new(field.name(), what));
        }
        self.optional(field, faults)
    }

    /// A secret or its file: whichever the first place has that has either.
    pub(super) fn secret(&self, field: Field, faults: &mut Vec<Fault>) -> Option<Given> {
        for place in &self.0 {
            let file = place.fields.get(&field);
            let secret = place.secrets.get(&field);
            match (file, secret) {
                (None, None) => {}
                (Some((file, variable)), Some((secret, other)))
                    if !file.is_empty() && !secret.is_empty() =>
                {
                    let what = format!("expected one of {variable} and {other}, and both are set");
                    faults.push(Fault::new(field.name(), what));
                    return None;
                }
                (_, Some((secret, _))) if !secret.is_empty() => {
                    let secret = SecretBytes::from(secret.trim().to_owned());
                    return Some(Given::Text(secret));
                }
                (Some((file, _)), _) if file == STANDARD_INPUT => {
                    return Some(Given::StandardInput);
                }
                (Some((file, _)), _) if !file.is_empty() => {
                    return Some(Given::File(place.folder.join(file)));
                }
                // The empty text leaves it unset.
                _ => return None,
            }
        }
        None
    }
}
