//! The rules of `deploy/prometheus`: they ask for what is there, each alert was seen to
//! fire and to stay quiet, and each leads to its chapter.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::catalogue::Catalogue;
use crate::support::tools::{items, passes, read, run, yaml_file};
use crate::support::{KmsProcess, text};

const FOLDER: &str = "deploy/prometheus";
const FILES: [&str; 2] = ["recording.rules.yml", "alerts.rules.yml"];
const TESTS: [&str; 2] = ["alerts.test.yml", "slow.test.yml"];

/// The rules of a file.
fn rules(file: &str) -> Vec<Value> {
    let rules = yaml_file(&format!("{FOLDER}/{file}"));
    let rules: Vec<Value> = items(&rules["groups"])
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect();
    assert!(!rules.is_empty(), "{file}");
    rules
}

/// The recorded series, with what is left of their labels.
pub(super) fn add_recorded(catalogue: &mut Catalogue) {
    for rule in rules(FILES[0]) {
        let by_operation = text(&rule["expr"]).contains("by (job, operation)");
        let labels: &[&str] = if by_operation { &["operation"] } else { &[] };
        catalogue.add_recorded(text(&rule["record"]), labels);
    }
}

#[tokio::test]
async fn every_rule_asks_for_metrics_labels_and_values_that_the_service_has() {
    let mut catalogue = Catalogue::of_the_service().await;
    add_recorded(&mut catalogue);
    for rule in FILES.iter().flat_map(|file| rules(file)) {
        let labels = match catalogue.check(text(&rule["expr"])) {
            Ok(labels) => labels,
            Err(what) => panic!("{what}"),
        };
        let summary = rule["annotations"]["summary"].as_str().unwrap_or_default();
        for part in summary.split("$labels.").skip(1) {
            let label: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            assert!(labels.contains(&label), "{label}: {summary}");
        }
    }
    for wrong in [
        "kms_ledger_sizes > 1",
        "kms_keys_due{sort=\"rotate\"} > 1",
        "kms_keys_due{kind=\"renew\"} > 1",
        "sum by (kind) (kms_ledger_size) > 1",
        "rate(kms_operation_latency_ms_bucket{operation=\"sign\",le=\"70\"}[5m])",
        "rate(kms_requests_total{operation=~\"sign|sing\"}[5m])",
        "rate(kms_requests_total{status=~\"6..\"}[5m])",
    ] {
        assert!(catalogue.check(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_rules_and_settings() {
    passes(FOLDER, "promtool", &["check", "rules", FILES[0], FILES[1]]);
    passes(FOLDER, "promtool", &["check", "config", "prometheus.yml"]);
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics_but_their_old_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let key_id = kms.generate_id("Ed25519").await;
    kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await.ok();
    let scraped = kms.get_operations("/kms/v1/metrics").await.text;
    kms.stop();
    let ended = run(
        FOLDER,
        Command::new("promtool").args(["check", "metrics"]),
        &scraped,
    );
    let output = ended.output();
    let said: BTreeSet<&str> = output.lines().collect();
    // The names of the service whose place this one takes.
    let wanted: BTreeSet<&str> = [
        "kms_hsm_operation_latency_ms metric names should not contain abbreviated units",
        "kms_keys_total non-counter metrics should not have \"_total\" suffix",
        "kms_ledger_commit_latency_ms metric names should not contain abbreviated units",
        "kms_operation_latency_ms metric names should not contain abbreviated units",
    ]
    .into();
    assert_eq!(said, wanted);
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let mut fires = BTreeSet::new();
    let mut stays_quiet = BTreeSet::new();
    for file in TESTS {
        let tests = yaml_file(&format!("{FOLDER}/{file}"));
        for test in items(&tests["tests"]) {
            let asked: Vec<&Value> = items(&test["alert_rule_test"]).collect();
            for one in &asked {
                let name = text(&one["alertname"]).to_owned();
                if items(&one["exp_alerts"]).next().is_some() {
                    fires.insert(name);
                } else if asked.len() == 1 {
                    // One that is only early counts for nothing here.
                    stays_quiet.insert(name);
                }
            }
        }
    }
    let alerts: BTreeSet<String> = rules(FILES[1])
        .iter()
        .map(|rule| text(&rule["alert"]).to_owned())
        .collect();
    assert_eq!(fires, alerts);
    assert_eq!(stays_quiet, alerts);
}

#[test]
fn alerts_fire_when_they_should() {
    passes(FOLDER, "promtool", &["test", "rules", TESTS[0]]);
}

#[test]
fn alerts_that_look_back_for_days_fire_when_they_should() {
    passes(FOLDER, "promtool", &["test", "rules", TESTS[1]]);
}

#[test]
fn each_alert_leads_to_a_chapter_that_says_what_it_means_and_what_mends_it() {
    let page = read("docs/operations.md");
    let mut chapters: Vec<&str> = page.split("\n### Kms").skip(1).collect();
    for rule in rules(FILES[1]) {
        let name = text(&rule["alert"]);
        let wanted = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(text(&rule["annotations"]["runbook_url"]), wanted);
        let severity = text(&rule["labels"]["severity"]);
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let title = format!("{}\n", name.strip_prefix("Kms").expect("a prefix"));
        let place = chapters
            .iter()
            .position(|chapter| chapter.starts_with(&title));
        let place = place.unwrap_or_else(|| panic!("no chapter ### {name}"));
        let chapter = chapters.remove(place);
        for part in ["**Means:**", "**Look:**", "**Mends it:**", "`"] {
            assert!(chapter.contains(part), "{part} in {name}");
        }
    }
    let left: Vec<_> = chapters
        .iter()
        .filter_map(|chapter| chapter.lines().next())
        .collect();
    assert!(left.is_empty(), "chapters without an alert: {left:?}");
}
