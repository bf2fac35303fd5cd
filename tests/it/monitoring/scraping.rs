//! A real Prometheus scrapes the real binary, with the settings and rules that are
//! laid out for it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::catalogue::rules_folder;
use crate::support::tools::{items, read};
use crate::support::{KmsProcess, eventually, text};

/// A running Prometheus, killed when dropped.
pub(super) struct Prometheus {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one on a free port with the settings of the project, but for the target
    /// and a shorter interval.
    pub(super) fn scraping(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (rules, target) = (rules_folder(), target.to_string());
        let mut settings = read("deploy/prometheus/prometheus.yml");
        for (there, here) in [
            ("127.0.0.1:9002", target.as_str()),
            ("scrape_interval: 15s", "scrape_interval: 500ms"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("- recording", &format!("- {rules}/recording")),
            ("- alerts", &format!("- {rules}/alerts")),
        ] {
            assert_eq!(settings.matches(there).count(), 1, "{there}");
            settings = settings.replace(there, here);
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, settings).expect("written");
        let mut child = Command::new("prometheus")
            .arg(argument("--config.file=", &file))
            .arg(argument(
                "--storage.tsdb.path=",
                &folder.path().join("data"),
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus runs; `make tools` installs it");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.kill();
                panic!("prometheus ended: {said:?}");
            };
            if let Some((_, address)) = line.split_once("\"Listening on\" address=") {
                break address.trim().to_owned();
            }
            said.push(line);
        };
        // Reads on, so that it never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// What its API answers.
    pub(super) async fn api(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let asked = reqwest::Client::new().get(url).query(query);
        let Ok(answer) = asked.send().await else {
            return Value::Null;
        };
        let answer: Value = answer.json().await.unwrap_or_default();
        answer["data"].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn argument(name: &str, path: &Path) -> String {
    format!("{name}{}", path.display())
}

#[tokio::test]
async fn a_prometheus_scrapes_the_service_and_evaluates_every_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("Ed25519").await;
    let operations = kms.operations().expect("an operations listener");
    let prometheus = Prometheus::scraping(operations);

    eventually("a target that is up", || async {
        let targets = prometheus.api("targets", &[]).await;
        let mut targets = items(&targets["activeTargets"]);
        let up = targets.find(|target| target["health"] == "up")?;
        assert_eq!(up["labels"]["job"], "kms", "{up}");
        assert_eq!(up["lastError"], "", "{up}");
        Some(())
    })
    .await;
    let stored = eventually("a metric of the service", || async {
        let query = [("query", "kms_ledger_size")];
        let found = prometheus.api("query", &query).await;
        items(&found["result"]).next().cloned()
    })
    .await;
    assert_eq!(stored["value"][1], "1", "{stored}");
    assert_eq!(stored["metric"]["instance"], operations.to_string());

    // Two samples of a counter make a rate, and the rules use it.
    eventually("a series of a recording rule", || async {
        kms.get("/kms/v1/config").await;
        let query = [("query", r#"kms:requests:rate5m{operation="config"}"#)];
        let found = prometheus.api("query", &query).await;
        items(&found["result"]).next().map(|_| ())
    })
    .await;
    let rules = eventually("every rule evaluated", || async {
        let found = prometheus.api("rules", &[]).await;
        let groups = items(&found["groups"]);
        let rules: Vec<Value> = groups
            .flat_map(|group| items(&group["rules"]))
            .cloned()
            .collect();
        let is_done = rules.iter().all(|rule| rule["health"] != "unknown");
        (is_done && !rules.is_empty()).then_some(rules)
    })
    .await;
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // Nothing is the matter with a service that was just started.
        assert_ne!(rule["state"], "firing", "{}", text(&rule["name"]));
    }
    kms.stop();

    let down = eventually("a target that is down", || async {
        let found = prometheus
            .api("query", &[("query", "up{job=\"kms\"} == 0")])
            .await;
        items(&found["result"]).next().cloned()
    })
    .await;
    assert_eq!(down["value"][1], "0");
}
