//! The settings in the manifests are held to the service: it takes them as those of
//! production, finds everything where it is mounted, and answers the probes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::manifests::{both, container, object, pod};
use crate::support::outsider::{Production, argument};
use crate::support::tools::{items, read};
use crate::support::{KmsProcess, eventually, text};

/// The variables that a manifest sets.
fn variables(objects: &[Value]) -> Vec<(&str, &str)> {
    items(&container(objects)["env"])
        .map(|one| (text(&one["name"]), text(&one["value"])))
        .collect()
}

/// Lays the settings out as they are mounted; the folder, as an argument.
fn lay_out(objects: &[Value], folder: &Path) -> String {
    let files = object(objects, "ConfigMap", "kms-config")["data"]
        .as_object()
        .expect("files");
    let settings = folder.join("etc");
    std::fs::create_dir_all(&settings).expect("made");
    for (name, content) in files {
        std::fs::write(settings.join(name), text(content)).expect("written");
    }
    argument(&settings).to_owned()
}

/// What is in effect with the settings of a manifest, by name, and with everything
/// mounted.
fn in_effect(objects: &[Value], production: &Production) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = mount(objects, production, folder.path());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kms"));
    command.args(["check-config", "--config", &settings]);
    command
        .env_clear()
        .envs(variables(objects))
        .current_dir(folder.path());
    let ended = command.output().expect("the binary runs");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "", "a warning");
    let stdout = String::from_utf8(ended.stdout).expect("UTF-8");
    assert!(stdout.contains("# environment: production"), "{stdout}");
    let stdout = stdout.replace(argument(folder.path()), "");
    let lines = stdout.lines().filter_map(|line| line.split_once(" = "));
    let values = lines.map(|(name, rest)| {
        let value = rest.split("  #").next().expect("a value").trim_matches('"');
        (name.to_owned(), value.to_owned())
    });
    values.collect()
}

#[test]
fn the_service_takes_the_settings_as_those_of_production() {
    let production = Production::lay_out();
    for (how, objects) in both() {
        let settings = in_effect(&objects, &production);
        for (name, port) in [
            ("server.listen", "https"),
            ("server.ops_listen", "operations"),
        ] {
            let mut ports = items(&container(&objects)["ports"]);
            let port = ports.find(|one| one["name"] == port).expect("a port");
            let wanted = format!("0.0.0.0:{}", port["containerPort"]);
            assert_eq!(settings[name], wanted, "{how}");
        }
        let mounts: BTreeMap<&str, bool> = items(&container(&objects)["volumeMounts"])
            .map(|mount| (text(&mount["mountPath"]), mount["readOnly"] == true))
            .collect();
        let mut mounted = 0;
        for (name, value) in settings.iter().filter(|(_, value)| value.starts_with('/')) {
            let place = mounts
                .iter()
                .find(|(path, _)| value.starts_with(&format!("{path}/")));
            let (_, read_only) = place.unwrap_or_else(|| panic!("{how}: {name} = {value}"));
            let is_data = value.starts_with("/var/lib/kms/");
            assert_eq!(*read_only, !is_data, "{how}: {name} = {value}");
            mounted += 1;
        }
        assert!(mounted >= 8, "{how}: {settings:?}");
    }
}

#[test]
fn a_pod_has_time_to_end_in_an_orderly_way() {
    let production = Production::lay_out();
    for (how, objects) in both() {
        let grace: jiff::SignedDuration = in_effect(&objects, &production)["server.shutdown_grace"]
            .parse()
            .expect("a duration");
        let pause = &container(&objects)["lifecycle"]["preStop"]["sleep"]["seconds"];
        let pause = pause.as_i64().expect("seconds");
        assert!(pause >= 3, "{how}");
        let all = pod(&objects)["terminationGracePeriodSeconds"]
            .as_i64()
            .expect("seconds");
        // To close the store behind the last request.
        assert!(all >= pause + grace.as_secs() + 10, "{how}: {all}");
    }
}

/// Lays what the volumes of a pod are mounted from out below a folder, with the files of
/// `kms dev-pki`, and puts that folder into the settings.
fn mount(objects: &[Value], production: &Production, folder: &Path) -> String {
    let settings = lay_out(objects, folder);
    let file = folder.join("etc/production.toml");
    let mut content = std::fs::read_to_string(&file).expect("read");
    for mounted in ["/etc/kms-tls", "/etc/kms-trust", "/etc/kms-kek"] {
        assert!(content.contains(mounted), "{mounted}");
        content = content.replace(mounted, &format!("{}{mounted}", folder.display()));
    }
    std::fs::write(&file, content).expect("written");
    for (mounted, made) in [
        ("etc/kms-tls/tls.crt", "server.pem"),
        ("etc/kms-tls/tls.key", "server.key"),
        ("etc/kms-trust/client-ca.pem", "ca.pem"),
        ("etc/kms-trust/client-ca.crl", "ca.crl"),
        ("etc/kms-trust/m21.jwks", "m21.jwks"),
        ("etc/kms-trust/approvers.jwks", "approvers.jwks"),
        ("etc/kms-kek/kek", "kek"),
    ] {
        let mounted = folder.join(mounted);
        std::fs::create_dir_all(mounted.parent().expect("a folder")).expect("made");
        std::fs::copy(production.file(made), &mounted).expect("copied");
        set_mode(&mounted, 0o440);
    }
    settings
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn the_service_runs_with_what_is_mounted_and_answers_its_probes() {
    let production = Production::lay_out();
    for (how, objects) in both() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = mount(&objects, &production, folder.path());
        // As a volume is with an fsGroup: the group may write, and hands itself down.
        let volume = folder.path().join("volume");
        std::fs::create_dir(&volume).expect("made");
        set_mode(&volume, 0o2775);
        let data = volume.join("data");
        let mut all = variables(&objects);
        all.push(("KMS__DATA_DIR", argument(&data)));
        // The second time it finds its own files.
        for _ in 0..2 {
            let kms = KmsProcess::start_as(folder.path(), &["--config", &settings], &all);
            let container = container(&objects);
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let asked = &container[probe]["httpGet"];
                assert_eq!(asked["port"], "operations", "{how}");
                let path = text(&asked["path"]).to_owned();
                let wanted = if probe == "readinessProbe" {
                    "/kms/v1/health"
                } else {
                    "/health"
                };
                assert_eq!(path, wanted, "{how}: {probe}");
                let answered = eventually(probe, || async {
                    let answer = kms.get_operations(&path).await;
                    (answer.status == 200).then_some(answer)
                });
                let answered = tokio::time::timeout(Duration::from_secs(20), answered).await;
                let answered = answered.unwrap_or_else(|_| panic!("{how}: {probe}"));
                if probe == "readinessProbe" {
                    assert_eq!(
                        answered.body["status"], "healthy",
                        "{how}: {}",
                        answered.text
                    );
                }
            }
            let monitor = &object(&objects, "ServiceMonitor", "kms")["spec"]["endpoints"][0];
            let scraped = kms.get_operations(text(&monitor["path"])).await;
            assert!(
                scraped.text.contains("kms_build_info"),
                "{how}: {}",
                scraped.text
            );
            let output = kms.stop();
            assert!(!output.contains("\"level\":\"error\""), "{how}: {output}");
        }
        for secret in ["ledger.key", "kms.db"] {
            let mode = std::fs::metadata(data.join(secret))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{how}: {secret} {mode:o}");
        }
    }
}

#[test]
fn every_secret_that_is_mounted_is_explained() {
    let page = read("docs/operations.md");
    for (how, objects) in both() {
        for volume in items(&pod(&objects)["volumes"]) {
            if let Some(name) = volume["secret"]["secretName"].as_str() {
                let made = format!("create secret generic {name} ");
                let tls = format!("create secret tls {name} ");
                assert!(page.contains(&made) || page.contains(&tls), "{how}: {name}");
            }
        }
    }
}
