//! Every metric that the service has, with its labels and their values, as it was
//! scraped; and whether an expression names nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::promql::{Selector, names};
use crate::support::outsider::{Production, argument, in_tried_scope};
use crate::support::{KmsProcess, base64, eventually, in_scope, text};

/// What a scraper adds to every series.
const ADDED: [&str; 2] = ["instance", "job"];

/// Metrics and their labels with all values seen.
#[derive(Debug, Default)]
pub(super) struct Catalogue(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Catalogue {
    /// Scrapes two services: one in which everything was done that has a number of its
    /// own, and one in production, with certificates, revocation lists and key sets.
    pub(super) async fn of_the_service() -> Self {
        let mut catalogue = Self::default();
        let folder = tempfile::tempdir().expect("a folder");
        let kms = KmsProcess::start(folder.path(), &[]);
        use_everything(&kms).await;
        catalogue.add(&scrape(&kms).await);
        kms.stop();
        let production = Production::lay_out();
        let kms = production.start();
        let body = in_tried_scope(json!({ "key_id": "alias/none", "data": "" }));
        production.curl(&kms, "client-M27", "/kms/v1/sign", Some(&body), &[]);
        catalogue.add(&scrape(&kms).await);
        // What Prometheus itself says of a target.
        catalogue.0.insert("up".to_owned(), BTreeMap::new());
        catalogue
    }

    /// Adds what a recording rule makes: it keeps these labels of the scraped series.
    pub(super) fn add_recorded(&mut self, name: &str, labels: &[&str]) {
        let operations = self.0["kms_requests_total"]["operation"].clone();
        let labels = labels
            .iter()
            .map(|label| ((*label).to_owned(), operations.clone()));
        self.0.insert(name.to_owned(), labels.collect());
    }

    fn add(&mut self, scraped: &str) {
        for line in scraped.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                let names = match kind {
                    "histogram" => vec![
                        format!("{name}_bucket"),
                        format!("{name}_count"),
                        format!("{name}_sum"),
                    ],
                    _ => vec![name.to_owned()],
                };
                for name in names {
                    self.0.entry(name).or_default();
                }
            } else if !line.starts_with('#') {
                let (series, _) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let known = self.0.get_mut(name).expect("its type came first");
                for pair in labels
                    .trim_end_matches('}')
                    .split("\",")
                    .filter(|pair| !pair.is_empty())
                {
                    let (label, value) = pair.split_once("=\"").expect("a label");
                    let values = known.entry(label.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }

    /// What an expression names that is not there, in words; and all labels that its
    /// result can have.
    pub(super) fn check(&self, expression: &str) -> Result<BTreeSet<String>, String> {
        let names = names(expression);
        let mut possible: BTreeSet<String> = ADDED.iter().map(ToString::to_string).collect();
        for selector in &names.selectors {
            let labels = self
                .0
                .get(&selector.metric)
                .ok_or_else(|| format!("no metric {} in {expression}", selector.metric))?;
            check_matchers(selector, labels).map_err(|what| format!("{what} in {expression}"))?;
            possible.extend(labels.keys().cloned());
        }
        match names
            .grouping
            .iter()
            .find(|label| !possible.contains(*label))
        {
            Some(label) => Err(format!("no label {label} to group by in {expression}")),
            None => Ok(possible),
        }
    }
}

fn check_matchers(
    selector: &Selector,
    labels: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), String> {
    for (label, operator, value) in &selector.matchers {
        if ADDED.contains(&label.as_str()) {
            continue;
        }
        let metric = &selector.metric;
        let Some(values) = labels.get(label) else {
            return Err(format!("{metric} has no label {label}"));
        };
        // A bucket's name as either version of a scraper writes it.
        let value = value.replace(r"(\.0)?", "");
        let wanted: Vec<&str> = match operator.as_str() {
            "=~" | "!~" => value.split('|').collect(),
            _ => vec![&value],
        };
        for wanted in wanted {
            if !wanted.starts_with('$') && !values.iter().any(|value| fits(wanted, value)) {
                return Err(format!(
                    "{metric} has no {label}={wanted:?}, but {values:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Whether a value is the wanted one, in which a dot stands for any one character.
fn fits(wanted: &str, value: &str) -> bool {
    let alike = |(wanted, is): (u8, u8)| wanted == b'.' || wanted == is;
    wanted.len() == value.len() && wanted.bytes().zip(value.bytes()).all(alike)
}

/// Once the disk was looked at, and what keeps itself fresh has begun to.
async fn scrape(kms: &KmsProcess) -> String {
    eventually("a whole scrape", || async {
        let scraped = kms.get_operations("/kms/v1/metrics").await.text;
        let is_whole = ["kms_disk_free_bytes ", "kms_material_reloads_total{"]
            .iter()
            .all(|series| scraped.contains(series));
        is_whole.then_some(scraped)
    })
    .await
}

/// Every operation of the budgets, and an unknown path.
async fn use_everything(kms: &KmsProcess) {
    let pair = kms.generate_id("Ed25519").await;
    let secret = kms.generate_id("AES-256").await;
    kms.get_scoped(&format!("/kms/v1/keys/{pair}")).await.ok();
    let ask = async |path: &str, fields| kms.post(path, &in_scope(fields)).await.ok().clone();
    let signed = ask(
        "/kms/v1/sign",
        json!({ "key_id": pair, "data": base64("d") }),
    )
    .await;
    let signature = text(&signed["signature"]);
    let verify = json!({ "key_id": pair, "data": base64("d"), "signature": signature });
    ask("/kms/v1/verify", verify).await;
    let encrypted = ask(
        "/kms/v1/encrypt",
        json!({ "key_id": secret, "plaintext": "" }),
    )
    .await;
    let decrypt = json!({
        "key_id": secret, "ciphertext": encrypted["ciphertext"], "iv": encrypted["iv"],
    });
    ask("/kms/v1/decrypt", decrypt).await;
    for path in ["/nowhere", "/health", "/kms/v1/metrics"] {
        kms.get(path).await;
    }
    // What was kept last is counted after it was answered.
    eventually("a write of the ledger", || async {
        let scraped = kms.get_operations("/kms/v1/metrics").await.text;
        (!scraped.contains("kms_ledger_commit_latency_ms_count 0\n")).then_some(())
    })
    .await;
}

/// The folder of the rules, as an argument.
pub(super) fn rules_folder() -> String {
    argument(&crate::support::tools::in_project("deploy/prometheus")).to_owned()
}
