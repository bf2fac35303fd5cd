//! The dashboard of `deploy/grafana`: it asks for what is there, says what it shows, and
//! its picture shows the same panels.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::catalogue::Catalogue;
use super::rules::add_recorded;
use crate::support::text;
use crate::support::tools::{items, passes, read};

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/kms.json")).expect("JSON")
}

/// The panels that show something, which rows do not.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels: Vec<&Value> = items(&dashboard["panels"])
        .filter(|panel| panel["type"] != "row")
        .collect();
    assert!(panels.len() > 30, "{}", panels.len());
    panels
}

fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let of_panels = panels(dashboard)
        .into_iter()
        .flat_map(|panel| items(&panel["targets"]))
        .map(|target| (text(&target["expr"]), text(&target["legendFormat"])));
    let annotations = items(&dashboard["annotations"]["list"])
        .map(|one| (text(&one["expr"]), text(&one["titleFormat"])));
    of_panels.chain(annotations).collect()
}

#[tokio::test]
async fn every_query_asks_for_metrics_labels_and_values_that_the_service_has() {
    let mut catalogue = Catalogue::of_the_service().await;
    add_recorded(&mut catalogue);
    let dashboard = dashboard();
    for (query, legend) in queries(&dashboard) {
        let labels = match catalogue.check(query) {
            Ok(labels) => labels,
            Err(what) => panic!("{what}"),
        };
        for part in legend.split("{{").skip(1) {
            let (label, _) = part.split_once("}}").expect("closed");
            assert!(labels.contains(label), "{label}: {query}");
        }
    }
    for variable in items(&dashboard["templating"]["list"]) {
        let query = text(&variable["query"]);
        let Some(inside) = query.strip_prefix("label_values(") else {
            assert_eq!(variable["type"], "datasource");
            continue;
        };
        let (selector, label) = inside.rsplit_once(", ").expect("two arguments");
        let labels = catalogue.check(selector).expect("a metric");
        assert!(labels.contains(label.trim_end_matches(')')), "{query}");
    }
}

#[test]
fn every_query_is_one_for_promtool() {
    let dashboard = dashboard();
    let rules: Vec<Value> = queries(&dashboard)
        .into_iter()
        .enumerate()
        .map(|(number, (query, _))| {
            let query = query.replace("$__rate_interval", "1m");
            json!({ "record": format!("panel:{number}"), "expr": query })
        })
        .collect();
    let rules = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("panels.yml");
    // JSON is YAML.
    std::fs::write(&file, rules.to_string()).expect("written");
    let file = file.to_str().expect("UTF-8");
    passes("deploy/prometheus", "promtool", &["check", "rules", file]);
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in items(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "{title}"
        );
        assert!(titles.insert(title), "{title}");
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (left, right) = (place("x"), place("x") + place("w"));
        assert!(right <= 24, "{title}");
        for x in left..right {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another");
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = text(&panel["title"]);
        for said in [
            &panel["description"],
            &panel["fieldConfig"]["defaults"]["unit"],
        ] {
            assert!(
                said.as_str().is_some_and(|said| !said.is_empty()),
                "{title}"
            );
        }
        let sources = items(&panel["targets"]).map(|target| &target["datasource"]);
        for source in sources.chain([&panel["datasource"]]) {
            assert_eq!(source["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn the_picture_shows_the_panels_of_the_dashboard() {
    let picture = read("docs/images/dashboard.svg");
    assert!(picture.len() < 300_000, "{}", picture.len());
    let dashboard = dashboard();
    for panel in items(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        let shown = if panel["type"] == "row" {
            format!(">▾ {title}</text>")
        } else {
            format!(">{title}</text>")
        };
        let how = "deploy/grafana/picture.py draws it again";
        assert_eq!(picture.matches(&shown).count(), 1, "{title}; {how}");
    }
}
