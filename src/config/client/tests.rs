use std::path::Path;

use super::*;

fn source(
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    profile: Option<(&Path, &str)>,
) -> ClientSource {
    let mut source = ClientSource {
        flags: flags
            .iter()
            .map(|(name, text)| (*name, (*text).to_owned()))
            .collect(),
        profile: profile.map(|(_, name)| name.to_owned()),
        environment: variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
    };
    if let Some((file, _)) = profile {
        let file = file.display().to_string();
        source
            .environment
            .insert("KMS_CLIENT_PROFILES".to_owned(), file);
    }
    source
}

const SCOPE: [(&str, &str); 3] = [
    ("KMS_CLIENT_TENANT", "acme"),
    ("KMS_CLIENT_ENVIRONMENT", "prod"),
    ("KMS_CLIENT_PLANE", "tenant"),
];

/// What is read of these flags and variables in the usual scope.
fn in_scope(
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
) -> Result<ClientSettings, String> {
    let source = source(flags, &[&SCOPE[..], variables].concat(), None);
    ClientSettings::load(&source).map_err(|faults| faults.to_string())
}

fn fault(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> String {
    in_scope(flags, variables).err().expect("a fault")
}

fn profiles(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profiles.toml");
    std::fs::write(&file, text).expect("written");
    (folder, file)
}

#[test]
fn a_flag_counts_more_than_a_variable_and_that_more_than_a_profile() {
    let (_folder, file) = profiles(
        "[one]\nurl = \"https://profile\"\ntenant = \"profile\"\nplane = \"shared\"\n\
         environment = \"dev\"\nwait = \"1s\"\n[two]\nnonsense = 1\n",
    );
    let variables = [
        ("KMS_CLIENT_TENANT", "variable"),
        ("KMS_CLIENT_PLANE", "product"),
    ];
    let source = source(&[("plane", "laptop")], &variables, Some((&file, "one")));
    let read = ClientSettings::load(&source).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(read.url, "https://profile");
    assert_eq!(read.scope.tenant_id.as_str(), "variable");
    assert_eq!(read.scope.plane.as_str(), "laptop");
    assert_eq!(read.scope.environment.as_str(), "dev");
    assert_eq!(read.wait, Duration::from_secs(1));
}

#[test]
fn the_usual_service_is_asked_where_nothing_is_said() {
    let read = in_scope(&[], &[]).expect("settings");
    assert_eq!(read.url, DEFAULT_URL);
    assert_eq!(read.wait, DEFAULT_WAIT);
    assert!(read.identity.is_none() && read.token.is_none() && read.approval.is_none());
}

#[test]
fn what_is_missing_names_the_three_ways_to_give_it() {
    let faults = ClientSettings::load(&ClientSource::default()).err();
    let faults = faults.expect("faults").to_string();
    for field in ["tenant", "environment", "plane"] {
        let upper = field.to_ascii_uppercase();
        let line = faults.lines().find(|line| line.trim().starts_with(field));
        let line = line.unwrap_or_else(|| panic!("{field} in {faults}"));
        for way in [
            &format!("--{field}"),
            &format!("KMS_CLIENT_{upper}"),
            "--profile",
        ] {
            assert!(line.contains(way), "{line}");
        }
    }
}

#[test]
fn a_mistake_in_a_profile_is_named_and_its_value_is_not() {
    for (text, named) in [
        (
            "[p]\ntennant = \"s3cret\"",
            "tennant ([p] in FILE): unknown field; is tenant meant?",
        ),
        ("[p]\ntoken = \"s3cret\"", "name its file in token_file"),
        (
            "[p]\nsomething = \"s3cret\"",
            "unknown field; there are: url, cacert,",
        ),
        ("[p]\nurl = 7", "url ([p] in FILE): expected a text"),
        (
            "[p]\nplane = \"s3cret\"",
            "plane ([p] in FILE): expected one of laptop",
        ),
        ("[p\n", "line 1: expected TOML"),
        ("p = \"s3cret\"", "p is no profile: expected [p]"),
        (
            "[other]\n[another]\n",
            "there is no p; there are: another, other",
        ),
    ] {
        let (_folder, file) = profiles(text);
        let given = source(&[], &SCOPE[..2], Some((&file, "p")));
        let faults = ClientSettings::load(&given)
            .err()
            .expect("a fault")
            .to_string();
        let faults = faults.replace(&file.display().to_string(), "FILE");
        assert!(faults.contains(named), "{named:?} in {faults}");
        assert!(!faults.contains("s3cret"), "{faults}");
    }
    let given = source(&[], &SCOPE, Some((Path::new("/nowhere/at/all"), "p")));
    let faults = ClientSettings::load(&given)
        .err()
        .expect("a fault")
        .to_string();
    assert!(faults.contains("/nowhere/at/all"), "{faults}");
}

#[test]
fn the_file_of_profiles_is_where_the_desktop_keeps_settings() {
    let file = |variables: &[(&str, &str)]| {
        profiles::usual_file(&source(&[], variables, None).environment)
    };
    let home = ("HOME", "/home/me");
    assert_eq!(
        file(&[home]),
        Some("/home/me/.config/kms/profiles.toml".into())
    );
    let both = [home, ("XDG_CONFIG_HOME", "/settings")];
    assert_eq!(file(&both), Some("/settings/kms/profiles.toml".into()));
    let relative = [home, ("XDG_CONFIG_HOME", "settings")];
    assert_eq!(
        file(&relative),
        Some("/home/me/.config/kms/profiles.toml".into())
    );
    assert_eq!(file(&[]), None);
}

#[test]
fn paths_in_a_profile_are_relative_to_its_file() {
    let (folder, file) = profiles(
        "[p]\ncacert = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"/keys/c.key\"\ntoken_file = \"t\"\n\
         url = \"https://kms\"\n",
    );
    let read = ClientSettings::load(&source(&[], &SCOPE, Some((&file, "p")))).ok();
    let read = read.expect("settings");
    assert_eq!(read.cacert, Some(folder.path().join("ca.pem")));
    let identity = ClientIdentity {
        cert: folder.path().join("c.pem"),
        key: Some("/keys/c.key".into()),
    };
    assert_eq!(read.identity, Some(identity));
    assert!(matches!(read.token, Some(Given::File(path)) if path == folder.path().join("t")));
}

#[test]
fn a_certificate_and_its_key_come_from_one_place() {
    let profile_key = [
        ("KMS_CLIENT_CERT", "env.pem"),
        ("KMS_CLIENT_KEY", "env.key"),
    ];
    let read = in_scope(&[("cert", "flag.pem")], &profile_key).expect("settings");
    let identity = read.identity.expect("an identity");
    assert_eq!(identity.cert, Path::new("flag.pem"));
    assert_eq!(identity.key, None, "the key of another certificate");
    let alone = fault(&[("key", "flag.key")], &profile_key);
    assert!(alone.contains("key (--key): names the key"), "{alone}");
    assert!(fault(&[("key", "flag.key")], &[]).contains("give cert too"));
}

#[test]
fn the_empty_text_unsets_what_is_below_it() {
    let read = in_scope(&[("module", "")], &[("KMS_CLIENT_MODULE", "M27")]).expect("settings");
    assert!(read.module.is_none());
    let token = [("KMS_CLIENT_TOKEN", "t")];
    let read = in_scope(&[("token_file", "")], &token).expect("settings");
    assert!(read.token.is_none());
    assert!(fault(&[("tenant", "")], &[]).contains("tenant: missing;"));
}

#[test]
fn a_variable_that_is_none_of_ours_is_named() {
    let said = fault(&[], &[("KMS_CLIENT_TENNANT", "x")]);
    assert!(said.contains("KMS_CLIENT_TENNANT: unknown variable; is KMS_CLIENT_TENANT meant?"));
    assert!(fault(&[], &[("KMS_CLIENT_tenant", "x")]).contains("KMS_CLIENT_tenant"));
    // Kubernetes sets these for a service named kms-client; the service's own are its own.
    let others = [
        ("KMS_CLIENT_SERVICE_HOST", "10.0.0.1"),
        ("KMS_CLIENT_PORT", "tcp://10.0.0.1:8002"),
        ("KMS_CLIENT_PORT_8002_TCP", "tcp://10.0.0.1:8002"),
        ("KMS__NO__SUCH__SETTING", "x"),
        ("ENVIRONMENT", "No Such"),
    ];
    assert!(in_scope(&[], &others).is_ok());
}

#[test]
fn a_secret_has_one_source() {
    let both = [
        ("KMS_CLIENT_TOKEN", "s3cret"),
        ("KMS_CLIENT_TOKEN_FILE", "f"),
    ];
    let said = fault(&[], &both);
    assert!(
        said.contains("KMS_CLIENT_TOKEN_FILE and KMS_CLIENT_TOKEN, and both"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    let read = in_scope(&[("token_file", "flag")], &both[..1]).expect("settings");
    assert!(matches!(read.token, Some(Given::File(path)) if path == Path::new("flag")));
    let read = in_scope(&[("approval_file", "-")], &[]).expect("settings");
    assert!(matches!(read.approval, Some(Given::StandardInput)));
    assert!(fault(&[("token_file", "-")], &[]).contains("expected a file"));
}

#[test]
fn a_token_is_not_sent_where_others_read_it() {
    let token = [("KMS_CLIENT_TOKEN", "t")];
    for (url, is_taken) in [
        ("http://127.0.0.1:8002", true),
        ("http://localhost", true),
        ("https://kms", true),
        ("http://kms", false),
        ("HTTP://kms:8002", false),
    ] {
        assert_eq!(in_scope(&[("url", url)], &token).is_ok(), is_taken, "{url}");
        assert!(in_scope(&[("url", url)], &[]).is_ok(), "{url}");
    }
}

#[test]
fn a_certificate_says_who_calls() {
    let said = fault(&[("cert", "c.pem"), ("module", "M27")], &[]);
    assert!(said.contains("module (--module)"), "{said}");
}
