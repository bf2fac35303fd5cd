//! Names of things: tenants, modules, keys, aliases, receipts, requests.
//!
//! Each is made by parsing and is private inside, so whoever holds one holds a
//! valid one.

use uuid::Uuid;

use super::wire::text_form;

/// The grammar of the names of tenants, modules and aliases, as a regular expression
/// (ECMA-262); each has a length of its own.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._:-]*$";

/// The one form of a UUID that is read, as a regular expression (ECMA-262).
pub const UUID_PATTERN: &str =
    "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";

/// The characters of a UUID in that form.
pub const UUID_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

/// Whether `text` is 1 to `longest` of `A-Za-z0-9._:-` and starts with a letter
/// or a digit: the one grammar of tenants, aliases and modules.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// A tenant of the platform. The tenant `GLOBAL` is the platform itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

/// The platform's own name among the tenants.
const PLATFORM: &str = "GLOBAL";

impl TenantId {
    /// The most characters of one.
    pub const LONGEST: usize = 128;

    /// Whether this is the platform itself.
    pub fn is_platform(&self) -> bool {
        self.0 == PLATFORM
    }

    fn parse(text: &str) -> Option<Self> {
        is_name(text, Self::LONGEST).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_form!(
    TenantId,
    "1 to 128 of A-Z a-z 0-9 . _ : - starting with a letter or a digit"
);

/// A module of the platform by its first name (`M21`); the second names
/// (`EPC-1`) are read as the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(String);

/// The platform's second names for modules, and the first name each stands for.
const SECOND_MODULE_NAMES: [(&str, &str); 9] = [
    ("EPC-1", "M21"),
    ("EPC-2", "M22"),
    ("EPC-3", "M23"),
    ("PM-7", "M27"),
    ("CCP-6", "M29"),
    ("CCP-1", "M32"),
    ("EPC-11", "M33"),
    ("EPC-12", "M34"),
    ("EPC-13", "M35"),
];

impl ModuleId {
    /// The most characters of one.
    pub const LONGEST: usize = 64;

    fn parse(text: &str) -> Option<Self> {
        if !is_name(text, Self::LONGEST) {
            return None;
        }
        let first_name = SECOND_MODULE_NAMES
            .iter()
            .find(|(second, _)| *second == text)
            .map_or(text, |(_, first)| first);
        Some(Self(first_name.to_owned()))
    }

    /// The id as text, always the first name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_form!(
    ModuleId,
    "a module such as M21: 1 to 64 of A-Z a-z 0-9 . _ : - starting with a letter or a digit"
);

/// The name an operator gives to a line of rotated keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyAlias(String);

impl KeyAlias {
    /// The most characters of one.
    pub const LONGEST: usize = 128;

    fn parse(text: &str) -> Option<Self> {
        is_name(text, Self::LONGEST).then(|| Self(text.to_owned()))
    }

    /// The alias as text, without the `alias/` of a reference.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_form!(
    KeyAlias,
    "1 to 128 of A-Z a-z 0-9 . _ : - starting with a letter or a digit"
);

/// A UUID in its own type. Only the hyphenated form is read: an id that can be
/// written in five ways is five ids to whoever compares text.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id: a UUID of version 7, so that ids sort by time (RFC 9562 §5.7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id with these 16 bytes, as a store keeps it.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the id.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            fn parse(text: &str) -> Option<Self> {
                if text.len() != UUID_LENGTH {
                    return None;
                }
                Uuid::try_parse(text).ok().map(Self)
            }

            /// The id as text, without an allocation.
            pub fn as_text(&self) -> impl AsRef<str> + use<> {
                self.as_str()
            }

            fn as_str(&self) -> impl AsRef<str> + use<> {
                let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
                self.0.hyphenated().encode_lower(&mut buffer);
                AsciiText(buffer)
            }
        }

        text_form!($name, "a UUID such as 018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e");
    };
}

/// The text of a UUID without an allocation.
struct AsciiText([u8; uuid::fmt::Hyphenated::LENGTH]);

impl AsRef<str> for AsciiText {
    fn as_ref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

uuid_id! {
    /// One key. A rotated key is a new key with a new id.
    KeyId
}
uuid_id! {
    /// One receipt.
    ReceiptId
}
uuid_id! {
    /// One ingested trust anchor.
    TrustAnchorId
}
uuid_id! {
    /// One request to this service; callers find it in `X-Request-Id`.
    RequestId
}

/// What a request may call a key: its id, or `alias/<name>` for the newest
/// active key of that alias.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// This very key.
    Id(KeyId),
    /// The active key that bears this alias now.
    Alias(KeyAlias),
}

impl KeyRef {
    /// What stands before an alias.
    pub const ALIAS_PREFIX: &'static str = "alias/";

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(Self::ALIAS_PREFIX) {
            Some(alias) => KeyAlias::parse(alias).map(Self::Alias),
            None => KeyId::parse(text).map(Self::Id),
        }
    }

    fn as_str(&self) -> impl AsRef<str> {
        match self {
            Self::Id(id) => id.as_str().as_ref().to_owned(),
            Self::Alias(alias) => format!("{}{alias}", Self::ALIAS_PREFIX),
        }
    }
}

text_form!(KeyRef, "a key id (a UUID) or alias/<name>");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_grammar() {
        for good in ["a", "tenant123", "A.b_c:d-e", "9", &"x".repeat(128)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            ":a",
            "a b",
            "a/b",
            "ä",
            "a\n",
            "a\0",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?}");
            assert!(bad.parse::<KeyAlias>().is_err(), "{bad:?}");
            assert!(bad.parse::<ModuleId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_platform_is_the_tenant_of_exactly_that_name() {
        let is_platform = |name: &str| name.parse::<TenantId>().expect("valid").is_platform();
        assert!(is_platform("GLOBAL"));
        assert!(
            !["global", "GLOBAL1", "tenant123"]
                .into_iter()
                .any(is_platform)
        );
    }

    #[test]
    fn second_module_names_mean_the_first() {
        assert_eq!("EPC-1".parse::<ModuleId>(), "M21".parse());
        assert_eq!("PM-7".parse::<ModuleId>(), "M27".parse());
        assert_ne!("EPC-99".parse::<ModuleId>(), "M21".parse());
    }

    #[test]
    fn ids_are_version_7_and_read_back_in_one_form_only() {
        let id = KeyId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().as_bytes()[14], b'7');
        assert_eq!(KeyId::from_bytes(*id.as_bytes()), id);
        for bad in [
            id.to_string().replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            "key-123".to_owned(),
        ] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_reference_is_an_id_or_an_alias() {
        let id = KeyId::generate();
        assert_eq!(id.to_string().parse(), Ok(KeyRef::Id(id)));
        let alias: KeyRef = "alias/jwt".parse().expect("an alias");
        assert_eq!(alias.to_string(), "alias/jwt");
        for bad in ["alias/", "alias", "alias/a b", "Alias/a", ""] {
            assert!(bad.parse::<KeyRef>().is_err(), "{bad}");
        }
    }
}
