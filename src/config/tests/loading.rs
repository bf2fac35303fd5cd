//! Layers and names: which value wins, and what it is called where.
//!
//! Nothing here is at fault.

use std::path::Path;

use super::super::testing::{Given, folder, load, source_of};
use super::super::*;
use crate::domain::ids::ModuleId;
use crate::domain::policy::ApprovalGroup;
use crate::domain::secret::SecretBytes;

fn names(modules: &[ModuleId]) -> Vec<&str> {
    modules.iter().map(ModuleId::as_str).collect()
}

#[test]
fn with_nothing_set_everything_has_the_default_of_development() {
    let config = load(&Given::nothing()).config;
    assert!(config.environment.is_development());
    assert_eq!(config.data_dir, Path::new("data"));
    assert_eq!(config.kek_file(), Path::new("data/kek"));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8002");
    let ops_listen = config.server.ops_listen.map(|a| a.to_string());
    assert_eq!(ops_listen.as_deref(), Some("127.0.0.1:9002"));
    assert_eq!(config.server.max_body_bytes.get(), 1 << 20);
    assert_eq!(config.server.request_timeout.to_string(), "PT30S");
    assert_eq!(config.server.max_in_flight.get(), 1024);
    assert_eq!(config.server.shutdown_grace.to_string(), "PT20S");
    assert_eq!(config.server.cors_origins, CorsOrigins::Any);
    assert!(config.tls.certificate.is_none() && config.tls.crl.is_none());
    assert!(!config.auth.require_jwt && config.auth.jwks.is_none());
    assert_eq!(config.approvals.mode, ApprovalMode::Development);
    assert_eq!(config.approvals.quorum.get(), 1);
    assert_eq!(config.approvals.operations, [ApprovalGroup::KeyLifecycle]);
    assert_eq!(config.hsm.backend, HsmKind::Software);
    assert!(!config.hsm.allow_software_in_production);
    assert!(config.hsm.pkcs11.pin.is_none() && config.hsm.pkcs11.sessions.is_none());
    assert!(matches!(config.store.url, StoreUrl::Sqlite(path) if path == Path::new("data/kms.db")));
    let schedule = config.keys.rotation_schedule;
    assert_eq!(schedule.rsa_2048.to_string(), "P90D");
    assert_eq!(schedule.ed25519.to_string(), "P365D");
    assert_eq!(schedule.aes_256.to_string(), "P90D");
    assert_eq!(config.keys.rotation_grace_period.to_string(), "P7D");
    assert_eq!(config.keys.erase_after.to_string(), "P7D");
    assert_eq!(config.keys.max_usage_per_day.get(), 10_000);
    assert_eq!(
        names(&config.keys.allowed_modules),
        ["M21", "M23", "M27", "M29", "M34"]
    );
    let rates = config.limits.rates;
    assert_eq!(rates.default.requests_per_second.get(), 100);
    assert_eq!(rates.default.burst.get(), 500);
    assert!(rates.groups.iter().all(Option::is_none));
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level, LogLevel::Info);
}

#[test]
fn outside_development_the_log_is_json_and_production_asks_for_more_approval() {
    let staging = resolve_for("staging");
    assert_eq!(staging.log.format, LogFormat::Json);
    assert_eq!(staging.approvals.mode, ApprovalMode::Development);
    let production = resolve_for("production");
    assert_eq!(production.log.format, LogFormat::Json);
    assert_eq!(production.approvals.mode, ApprovalMode::Signed);
    assert_eq!(
        production.approvals.operations,
        [ApprovalGroup::KeyLifecycle, ApprovalGroup::TrustAnchor]
    );
}

fn resolve_for(environment: &str) -> Config {
    resolve(&source_of(&[("ENVIRONMENT", environment)]))
        .0
        .config
}

#[test]
fn each_layer_overrides_the_one_below_it() {
    let level = |given: &Given| load(given).config.log.level;
    let files = folder(&[
        ("default.toml", "log.level = \"warn\""),
        ("development.toml", "[log]\nlevel = \"debug\""),
        ("staging.toml", "log.level = \"trace\""),
    ]);
    let only_default = folder(&[("default.toml", "log.level = \"warn\"")]);
    let given = || Given::new("development");
    assert_eq!(level(&given()), LogLevel::Info);
    assert_eq!(level(&given().folder(only_default.path())), LogLevel::Warn);
    assert_eq!(level(&given().folder(files.path())), LogLevel::Debug);
    let given = given().folder(files.path()).set("KMS__LOG__LEVEL", "ERROR");
    assert_eq!(level(&given), LogLevel::Error);
}

#[test]
fn a_list_replaces_the_list_below_it() {
    let files = folder(&[("default.toml", "keys.allowed_modules = [\"M35\"]")]);
    let config = load(&Given::nothing().folder(files.path())).config;
    assert_eq!(names(&config.keys.allowed_modules), ["M35"]);
}

#[test]
fn the_names_of_the_python_service_stand_for_ours_and_ours_win() {
    let given = Given::nothing()
        .set("CORS_ORIGINS", "https://a.example,https://b.example")
        .set("HSM_ENDPOINT", "token.so")
        .set("HSM_CREDENTIALS", " 1234 ");
    let config = load(&given).config;
    let both = ["https://a.example", "https://b.example"].map(str::to_owned);
    assert_eq!(config.server.cors_origins, CorsOrigins::Only(both.to_vec()));
    let pkcs11 = config.hsm.pkcs11;
    assert_eq!(pkcs11.module.as_deref(), Some(Path::new("token.so")));
    assert_eq!(
        pkcs11.pin.as_ref().map(SecretBytes::expose),
        Some(&b" 1234 "[..])
    );

    let given = given
        .set("KMS__SERVER__CORS_ORIGINS", "https://c.example")
        .set("KMS__HSM__PKCS11__MODULE", "other.so")
        .set("KMS__HSM__PKCS11__PIN", "5678");
    let config = load(&given).config;
    let ours = vec!["https://c.example".to_owned()];
    assert_eq!(config.server.cors_origins, CorsOrigins::Only(ours));
    let pkcs11 = config.hsm.pkcs11;
    assert_eq!(pkcs11.module.as_deref(), Some(Path::new("other.so")));
    assert_eq!(
        pkcs11.pin.as_ref().map(SecretBytes::expose),
        Some(&b"5678"[..])
    );
}

#[test]
fn a_variable_reaches_settings_with_hyphens_in_any_case() {
    let given = Given::nothing()
        .set("KMS__KEYS__ROTATION_SCHEDULE__RSA_2048", "30d")
        .set("kms__keys__rotation_schedule__ed25519", "P60D")
        .set("KMS__DATA_DIR", "elsewhere");
    let config = load(&given).config;
    assert_eq!(
        config.keys.rotation_schedule.rsa_2048,
        "P30D".parse().expect("a period")
    );
    assert_eq!(
        config.keys.rotation_schedule.ed25519,
        "P60D".parse().expect("a period")
    );
    assert!(
        matches!(config.store.url, StoreUrl::Sqlite(path) if path == Path::new("elsewhere/kms.db"))
    );
}

#[test]
fn the_empty_text_turns_the_operations_listener_off() {
    let loaded = load(&Given::nothing().set("KMS__SERVER__OPS_LISTEN", ""));
    assert!(loaded.config.server.ops_listen.is_none());
    let shown = loaded.effective.to_string();
    assert!(
        shown.contains("server.ops_listen = \"\"  # KMS__SERVER__OPS_LISTEN\n"),
        "{shown}"
    );
}

#[test]
fn only_the_wait_before_an_erasure_may_be_none() {
    for none in ["0s", "PT0S"] {
        let given = Given::nothing().set("KMS__KEYS__ERASE_AFTER", none);
        assert!(load(&given).config.keys.erase_after.as_duration().is_zero());
    }
}
