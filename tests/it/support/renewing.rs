//! A service as a process whose files are renewed under it, in each of the ways
//! that it can come to know of it.

use std::cell::Cell;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::approver::{new_key, seconds_since_1970};
use super::outsider::{openssl, series};
use super::{
    Answer, Approver, ClientCertificate, KmsProcess, Pki, SCOPE_QUERY, eventually, in_scope, with,
};

/// The files that can be renewed.
const FILES: [(&str, &str); 6] = [
    ("KMS__TLS__CERTIFICATE", "server.pem"),
    ("KMS__TLS__PRIVATE_KEY", "server.key"),
    ("KMS__TLS__CLIENT_CA", "ca.pem"),
    ("KMS__TLS__CRL", "ca.crl"),
    ("KMS__APPROVALS__JWKS", "approvers.json"),
    ("KMS__AUTH__JWKS", "m21.json"),
];

/// How the service comes to know that a file is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// By SIGHUP.
    Signal,
    /// By itself, from the file.
    Change,
    /// By itself, from a link several folders up, as Kubernetes swaps it.
    Swap,
}

impl Notice {
    pub(crate) const ALL: [Self; 3] = [Self::Signal, Self::Change, Self::Swap];

    /// What the log gives as the reason.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Signal => "reason=asked by SIGHUP",
            Self::Change | Self::Swap => "reason=its files changed",
        }
    }
}

/// The service and its files.
pub(crate) struct Renewing {
    pub(crate) kms: KmsProcess,
    pub(crate) pki: Pki,
    notice: Notice,
    mount: TempDir,
    version: Cell<u32>,
    _data: TempDir,
}

impl Renewing {
    /// A service with mutual TLS that knows the approver `alice` and the issuer
    /// `m21`.
    pub(crate) fn start(notice: Notice) -> Self {
        let (pki, mount, data) = (Pki::new(), folder(), folder());
        pki.write("approvers.json", &key_set(&alice()));
        pki.write("m21.json", &key_set(&m21()));
        for (_, file) in FILES {
            let link = mount.path().join(file);
            symlink(format!("..data/{file}"), link).expect("linked");
        }
        swap(&pki, &mount, 0);
        let paths = FILES.map(|(variable, file)| {
            let path = match notice {
                Notice::Swap => mount.path().join(file),
                Notice::Signal | Notice::Change => pki.path(file),
            };
            (variable, path.display().to_string())
        });
        let mut settings: Vec<(&str, &str)> = paths
            .iter()
            .map(|(variable, path)| (*variable, path.as_str()))
            .collect();
        settings.push(("KMS__APPROVALS__MODE", "signed"));
        let kms = KmsProcess::start(data.path(), &settings);
        Self {
            kms,
            pki,
            notice,
            mount,
            version: Cell::new(0),
            _data: data,
        }
    }

    /// Lets the service know of what was written to the files of the
    /// infrastructure since the last time.
    pub(crate) fn give_notice(&self) {
        match self.notice {
            Notice::Signal => self.kms.signal("HUP"),
            Notice::Change => {}
            Notice::Swap => {
                self.version.set(self.version.get() + 1);
                swap(&self.pki, &self.mount, self.version.get());
            }
        }
    }

    /// Waits for the line that says that this was read again for the reason that
    /// was given.
    pub(crate) fn wait_for_reload(&mut self, material: &str) {
        let material = format!("material={material} ");
        self.kms
            .wait_for_line(&[" reloaded", &material, self.notice.reason()]);
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> Client {
        let certificate = self.pki.client("tenant123", "M21");
        self.pki.connector(&certificate)
    }

    /// The status of an answer over this client's connections; nothing where it
    /// does not get one.
    pub(crate) async fn ask(&self, client: &Client) -> Option<StatusCode> {
        let request = client.get(self.url("/kms/v1/config"));
        Answer::attempt(request).await.map(|answer| answer.status)
    }

    /// Waits until a new connection with this certificate is refused.
    pub(crate) async fn wait_for_refusal(&self, certificate: &ClientCertificate) {
        eventually("the refusal", || async {
            let client = self.pki.connector(certificate);
            self.ask(&client).await.is_none().then_some(())
        })
        .await;
    }

    /// Makes a key with this approver's approval.
    pub(crate) async fn make_key(&self, approver: &Approver) -> Answer {
        let approval = approver.approve(new_key());
        let body = in_scope(json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"], "approval_token": approval,
        }));
        let client = self.client();
        Answer::of(client.post(self.url("/kms/v1/keys")).json(&body)).await
    }

    /// Lists the keys with a token of this issuer.
    pub(crate) async fn list_with_token_of(&self, issuer: &Approver) -> Answer {
        let url = self.url(&format!("/kms/v1/keys?{SCOPE_QUERY}"));
        let client = self.client();
        Answer::of(client.get(url).bearer_auth(token(issuer, json!({})))).await
    }

    /// The serial number of the certificate that a new connection is shown, by
    /// openssl.
    pub(crate) fn shown_serial(&self) -> String {
        let certificate = self.pki.client("tenant123", "M21");
        self.pki.write("client.pem", certificate.pem());
        let address = self.kms.api().to_string();
        let mut arguments = vec!["s_client", "-connect", &address, "-CAfile", "ca.pem"];
        arguments.extend(["-cert", "client.pem", "-key", "client.pem"]);
        self.serial_in(&openssl(&self.folder(), &arguments, b"").stdout)
    }

    /// The serial number of the certificate in the file.
    pub(crate) fn serial_in_file(&self) -> String {
        let pem = std::fs::read_to_string(self.pki.path("server.pem")).expect("read");
        self.serial_in(&pem)
    }

    fn serial_in(&self, pem: &str) -> String {
        let arguments = ["x509", "-noout", "-serial"];
        let printed = openssl(&self.folder(), &arguments, pem.as_bytes());
        assert_eq!(printed.code, Some(0), "{printed:?}: {pem}");
        printed.stdout
    }

    fn folder(&self) -> PathBuf {
        let file = self.pki.path("server.pem");
        file.parent().expect("a folder").to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.kms.api())
    }

    /// The value of a series.
    pub(crate) async fn series(&self, name: &str) -> f64 {
        series(&self.kms.get_operations("/kms/v1/metrics").await.text, name)
    }

    /// How often this was read again with this outcome.
    pub(crate) async fn reloads(&self, material: &str, outcome: &str) -> f64 {
        let name = "kms_material_reloads_total";
        self.series(&format!(
            "{name}{{material=\"{material}\",outcome=\"{outcome}\"}}"
        ))
        .await
    }

    /// The service's status, and the names of the checks that warn.
    pub(crate) async fn health(&self) -> (String, Vec<String>) {
        let health = self.kms.get_operations("/kms/v1/health").await;
        let checks = health.ok()["checks"].as_array().expect("a list");
        let names = checks
            .iter()
            .filter(|check| check["status"] == "warn")
            .map(|check| super::text(&check["name"]).to_owned());
        (
            super::text(&health.body["status"]).to_owned(),
            names.collect(),
        )
    }

    /// Waits for exactly these checks to warn.
    pub(crate) async fn wait_for_warnings(&self, names: &[&str]) {
        let status = match names {
            [] => "healthy",
            _ => "degraded",
        };
        eventually(&format!("{status}, with warnings of {names:?}"), || async {
            let (now, mut warnings) = self.health().await;
            warnings.sort_unstable();
            (now == status && warnings == names).then_some(())
        })
        .await;
    }
}

/// The approver that the service starts with.
pub(crate) fn alice() -> Approver {
    Approver::new("alice@example.com", 1)
}

/// The issuer of tokens that the service starts with.
pub(crate) fn m21() -> Approver {
    Approver::new("m21", 5)
}

/// A key set of one key.
pub(crate) fn key_set(owner: &Approver) -> String {
    json!({ "keys": [owner.jwk()] }).to_string()
}

/// A token of this issuer for module M21 in the usual scope, with these fields in
/// its header too.
pub(crate) fn token(issuer: &Approver, header: Value) -> String {
    let claims = json!({
        "sub": "workload-7", "module_id": "M21", "tenant_id": "tenant123", "environment": "prod",
        "exp": seconds_since_1970() + 300,
    });
    let usual = json!({ "alg": "EdDSA", "kid": issuer.jwk()["kid"], "typ": "JWT" });
    issuer.sign(&with(usual, header), &claims)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Lays the files out as Kubernetes does: `file` is a link to `..data/file`, and
/// `..data` one to a folder that holds them all, which is replaced in one step.
fn swap(pki: &Pki, mount: &TempDir, version: u32) {
    let name = format!("..{version}");
    let dated = mount.path().join(&name);
    std::fs::create_dir(&dated).expect("made");
    for (_, file) in FILES {
        std::fs::copy(pki.path(file), dated.join(file)).expect("copied");
    }
    let new = mount.path().join("..data_tmp");
    symlink(name, &new).expect("linked");
    std::fs::rename(new, mount.path().join("..data")).expect("renamed");
}
