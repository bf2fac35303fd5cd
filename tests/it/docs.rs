//! The page that shows the OpenAPI document, as a browser meets it: on a developer's
//! machine, whole, and from here alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, KmsProcess, Pki, TestKms};

const PAGE: &str = "/kms/v1/docs";

/// What a browser made of a page.
struct Seen {
    /// The document that it came to.
    dom: String,
    /// What the browser said, the page's own complaints included.
    said: String,
    /// Every address that the page asked for.
    asked: BTreeSet<String>,
}

/// Opens a page in a browser that resolves no name, and waits until it rests.
fn open(origin: &str, folder: &Path) -> Seen {
    let log = folder.join("net.json");
    let ended = Command::new("timeout")
        .args([
            "120",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        // The browser has business of its own, which is none of the page's.
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--disable-sync", "--disable-extensions", "--no-first-run"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        .arg("--enable-logging=stderr")
        .arg(format!(
            "--user-data-dir={}",
            folder.join("browser").display()
        ))
        .arg(format!("--log-net-log={}", log.display()))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("{origin}{PAGE}"))
        .stdin(Stdio::null())
        .output()
        .expect("`make tools` installs a browser");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    let log: Value = serde_json::from_slice(&std::fs::read(log).expect("written")).expect("JSON");
    let started = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    let events = log["events"].as_array().expect("events").iter();
    let asked = events
        .filter(|event| event["type"] == *started)
        .filter_map(|event| {
            let (url, by) = (&event["params"]["url"], &event["params"]["initiator"]);
            let is_the_pages =
                by == origin || url.as_str().is_some_and(|url| url.starts_with(origin));
            is_the_pages.then(|| url.as_str().unwrap_or_default().to_owned())
        });
    Seen {
        asked: asked.collect(),
        dom: String::from_utf8_lossy(&ended.stdout).into_owned(),
        said,
    }
}

#[test]
fn a_browser_sees_every_operation_and_asks_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let origin = format!("http://{}", kms.api());
    let seen = open(&origin, folder.path());

    let document: Value = serde_json::from_slice(&kms::http::openapi_document()).expect("JSON");
    for (path, item) in document["paths"].as_object().expect("paths") {
        let shown = seen.dom.matches(&format!("data-path=\"{path}\"")).count();
        let operations = item.as_object().map_or(0, serde_json::Map::len);
        assert_eq!(shown, operations, "{path}: {}", seen.dom);
    }
    let needed = [
        "",
        "/swagger-ui.css",
        "/swagger-ui-bundle.js",
        "/start.js",
        "/openapi.json",
    ];
    let needed = needed.map(|part| format!("{origin}{PAGE}{part}"));
    assert_eq!(seen.asked, BTreeSet::from(needed));
    // What the policy had kept from loading would be in here.
    assert!(
        !seen.said.contains("Content Security Policy"),
        "{}",
        seen.said
    );
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere_and_lacks_nothing() {
    let kms = TestKms::start().await;
    for (part, media_type) in [
        ("", "text/html; charset=utf-8"),
        ("/start.js", "text/javascript; charset=utf-8"),
        ("/swagger-ui-bundle.js", "text/javascript"),
        ("/swagger-ui.css", "text/css"),
        ("/openapi.json", "application/json"),
    ] {
        let answer = kms.get(&format!("{PAGE}{part}")).await;
        assert_eq!(answer.status, 200, "{part}");
        assert_eq!(answer.headers["content-type"], media_type, "{part}");
        let policy = answer.headers["content-security-policy"]
            .to_str()
            .expect("text");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; connect-src 'self';"));
        for elsewhere in ["http:", "https:", "*", "unsafe-eval"] {
            assert!(!policy.contains(elsewhere), "{policy}");
        }
    }
    let shown = kms.get("/kms/v1/docs/openapi.json").await;
    assert_eq!(shown.bytes, kms::http::openapi_document());
    for part in ["/", "/index.html", "/swagger-ui.js", "/..", "/%FF", "/a/b"] {
        let answer = kms.get(&format!("{PAGE}{part}")).await;
        answer.refused(404, "INVALID_REQUEST");
    }
    let asked = Answer::of(kms.operations_request(Method::GET, PAGE)).await;
    asked.refused(404, "INVALID_REQUEST");
}

#[tokio::test]
async fn outside_of_development_there_is_no_such_page() {
    let pki = Pki::new();
    let staging = [
        ("ENVIRONMENT", "staging"),
        ("CORS_ORIGINS", "https://app.example.com"),
    ];
    let kms = TestKms::start_tls(&pki, &staging).await;
    for part in ["", "/", "/start.js", "/swagger-ui.css", "/openapi.json"] {
        let answer = kms.get(&format!("{PAGE}{part}")).await;
        answer.refused(404, "INVALID_REQUEST");
    }
    kms.get("/kms/v1/openapi.json").await.ok();
}
