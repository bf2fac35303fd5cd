//! Production mode as somebody meets it who has the binary, a shell and the usual
//! tools: the files and the settings of `kms dev-pki`, `curl` and `openssl`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Ended;
use super::raw::header;
use super::{Exchange, KmsProcess, with};

/// The scope of the clients that `kms dev-pki` makes.
pub(crate) const TRIED_SCOPE: &str = "tenant_id=acme&environment=prod&plane=tenant";

/// A body in that scope with these fields added.
pub(crate) fn in_tried_scope(fields: Value) -> Value {
    with(
        json!({ "tenant_id": "acme", "environment": "prod", "plane": "tenant" }),
        fields,
    )
}

/// What `kms dev-pki` laid out.
pub(crate) struct Production {
    folder: TempDir,
    printed: String,
}

impl Production {
    /// Lets the binary make everything, in a folder of its own.
    pub(crate) fn lay_out() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("pki");
        let arguments = ["dev-pki", "--out", out.to_str().expect("UTF-8")];
        let made = KmsProcess::run(folder.path(), &arguments, &[]);
        assert_eq!(made.code, Some(0), "{made:?}");
        Self {
            folder,
            printed: made.stdout,
        }
    }

    /// Runs the commands that were printed under these words, as far as the next,
    /// in a shell that finds `kms`; the port is that of the service.
    pub(crate) fn run_printed(&self, kms: &KmsProcess, words: &str) -> String {
        let mut lines = self.printed.lines().skip_while(|line| *line != words);
        assert!(lines.next().is_some(), "{words}: {}", self.printed);
        let commands: Vec<&str> = lines.take_while(|line| line.starts_with(' ')).collect();
        let port = format!(":{}/", kms.api().port());
        let commands = commands.join("\n").replace(":8002/", &port);
        let binary = Path::new(env!("CARGO_BIN_EXE_kms"));
        let mut path = binary.parent().expect("a folder").display().to_string();
        path.push_str(":/usr/local/bin:/usr/bin:/bin");
        let ended = Command::new("/bin/sh")
            .args(["-ec", &commands])
            .env_clear()
            .env("PATH", path)
            .output()
            .expect("a shell runs");
        assert!(ended.status.success(), "{commands}: {ended:?}");
        String::from_utf8(ended.stdout).expect("UTF-8")
    }

    /// The path of a file that was made, or that is to be put beside them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("pki").join(name)
    }

    /// The text of one of the files.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("read")
    }

    /// What a shell makes of the settings that were written.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let ended = Command::new("/bin/sh")
            .args(["-c", ". \"$0\" && env"])
            .arg(self.file("kms.env"))
            .env_clear()
            .output()
            .expect("a shell runs");
        assert!(ended.status.success(), "{ended:?}");
        String::from_utf8(ended.stdout)
            .expect("UTF-8")
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| !["PWD", "OLDPWD", "SHLVL", "_", "PATH"].contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// `kms serve` with exactly these settings, but on free ports.
    pub(crate) fn start(&self) -> KmsProcess {
        self.start_with(&[])
    }

    /// `kms serve` with this environment, which is to end by itself.
    pub(crate) fn serve_in(&self, environment: &BTreeMap<String, String>) -> Ended {
        KmsProcess::run(self.folder.path(), &["serve"], &pairs(environment))
    }

    /// What `kms approve` prints for an approver in the usual scope's environment
    /// and plane.
    pub(crate) fn approve(&self, approver: &str, arguments: &[&str]) -> String {
        let key = self.file(&format!("approver-{approver}.pem"));
        let mut all = vec!["approve", "--signing-key", key.to_str().expect("UTF-8")];
        all.extend(["--approver", approver]);
        all.extend(["--environment", "prod", "--plane", "tenant"]);
        all.extend(arguments);
        let ended = KmsProcess::run(self.folder.path(), &all, &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.trim_end().to_owned()
    }

    /// A request of curl with the certificate of this name: a POST where there is
    /// a body.
    pub(crate) fn curl(
        &self,
        kms: &KmsProcess,
        client: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[&str],
    ) -> Said {
        let mut command = self.curl_command();
        command
            .arg("--cert")
            .arg(self.file(&format!("{client}.pem")))
            .arg("--key")
            .arg(self.file(&format!("{client}.key")));
        if let Some(body) = body {
            command
                .args(["--header", "Content-Type: application/json", "--data"])
                .arg(body.to_string());
        }
        for header in headers {
            command.args(["--header", header]);
        }
        let url = format!("https://{}{path}", kms.api());
        Said::by(&mut command, &url, body)
    }

    /// A GET without a certificate.
    pub(crate) fn curl_nameless(&self, url: &str) -> Said {
        Said::by(&mut self.curl_command(), url, None)
    }

    fn curl_command(&self) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--noproxy", "*"])
            .args(["--max-time", "30", "--dump-header", "-"])
            .args(["--write-out", "\n%{http_code}"])
            .arg("--cacert")
            .arg(self.file("ca.pem"));
        command
    }

    /// Runs openssl beside the files, with this as its input.
    pub(crate) fn openssl(&self, arguments: &[&str], input: &[u8]) -> Ended {
        openssl(&self.folder.path().join("pki"), arguments, input)
    }

    /// The same for a command that has to succeed; its output.
    pub(crate) fn openssl_does(&self, arguments: &[&str]) -> String {
        let ended = self.openssl(arguments, b"");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    }

    /// A token of M21's, signed by openssl with this key.
    pub(crate) fn token(&self, key: &str, claims: &Value) -> String {
        use base64::Engine as _;
        let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let set: Value = serde_json::from_str(&self.read("m21.jwks")).expect("JSON");
        let head = json!({ "alg": "EdDSA", "typ": "JWT", "kid": set["keys"][0]["kid"] });
        let signed = format!(
            "{}.{}",
            part(head.to_string().as_bytes()),
            part(claims.to_string().as_bytes())
        );
        let (input, output) = (self.file("signed"), self.file("signature"));
        std::fs::write(&input, &signed).expect("written");
        let mut arguments = vec!["pkeyutl", "-sign", "-rawin", "-inkey", key];
        arguments.extend(["-in", argument(&input), "-out", argument(&output)]);
        self.openssl_does(&arguments);
        format!("{signed}.{}", part(&std::fs::read(output).expect("read")))
    }

    /// `kms serve` with these settings beside those that were written.
    pub(crate) fn start_with(&self, settings: &[(&str, &str)]) -> KmsProcess {
        let environment = self.environment();
        let all = [&pairs(&environment)[..], settings].concat();
        KmsProcess::start(self.folder.path(), &all)
    }

    /// Lets openssl make an authority: `NAME.pem` and `NAME.key`.
    pub(crate) fn make_authority(&self, name: &str) {
        let (pem, key, subject) = (
            format!("{name}.pem"),
            format!("{name}.key"),
            format!("/CN={name}"),
        );
        let mut arguments = vec!["req", "-x509", "-nodes", "-newkey", "ec"];
        arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "30"]);
        arguments.extend(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        arguments.extend(["-subj", &subject, "-out", &pem, "-keyout", &key]);
        self.openssl_does(&arguments);
    }

    /// Lets openssl make a certificate of an authority: `NAME.pem` and `NAME.key`.
    /// `names` are its subject alternative names as openssl writes them, `usage`
    /// is `clientAuth` or `serverAuth`.
    pub(crate) fn issue(
        &self,
        name: &str,
        authority: &str,
        names: &str,
        usage: &str,
        validity: Validity,
    ) {
        let file = |extension: &str| format!("{name}.{extension}");
        let (pem, key, request, settings) = (file("pem"), file("key"), file("csr"), file("cnf"));
        let text = format!(
            "[ca]\ndefault_ca=one\n[one]\ndatabase={name}.index\nnew_certs_dir=.\nrand_serial=yes\n\
             default_md=sha256\npolicy=any\nx509_extensions=leaf\n[any]\ncommonName=supplied\n\
             [leaf]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage={usage}\nsubjectAltName={names}\n"
        );
        std::fs::write(self.file(&settings), text).expect("written");
        std::fs::write(self.file(&file("index")), "").expect("written");
        let mut arguments = vec!["req", "-new", "-nodes", "-newkey", "ec"];
        arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=made"]);
        arguments.extend(["-out", &request, "-keyout", &key]);
        self.openssl_does(&arguments);
        let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let Validity(start, end) = validity;
        let mut arguments = vec!["ca", "-batch", "-notext", "-config", &settings];
        arguments.extend(["-cert", &ca, "-keyfile", &ca_key, "-in", &request]);
        arguments.extend(["-out", &pem, "-startdate", start, "-enddate", end]);
        self.openssl_does(&arguments);
    }
}

/// Runs openssl in a folder, with this as its input.
pub(crate) fn openssl(folder: &Path, arguments: &[&str], input: &[u8]) -> Ended {
    // A bound on what waits for the other end.
    let mut child = Command::new("timeout")
        .args(["30", "openssl"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended without reading.
    let _ = stdin.write_all(input);
    drop(stdin);
    let ended = child.wait_with_output().expect("waited for");
    Ended {
        code: ended.status.code(),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// From when until when, as openssl reads it.
#[derive(Clone, Copy)]
pub(crate) struct Validity(&'static str, &'static str);

impl Validity {
    pub(crate) const NOW: Self = Self("20200101000000Z", "20991231235959Z");
    pub(crate) const ENDED: Self = Self("20200101000000Z", "20210101000000Z");
}

/// The subject alternative name of a module of the tenant `acme`.
pub(crate) fn tried_name(module: &str) -> String {
    format!("URI:spiffe://dev.zeroui.local/tenant/acme/env/prod/plane/tenant/module/{module}")
}

fn pairs(environment: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// What curl printed.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// The answer's status; 0 where there was none.
    pub(crate) status: u16,
    /// The answer's body, where it is JSON.
    pub(crate) body: Value,
    /// The answer's body.
    pub(crate) text: String,
    /// What went wrong.
    pub(crate) stderr: String,
}

impl Said {
    fn by(command: &mut Command, url: &str, sent: Option<&Value>) -> Self {
        let ended = command.arg(url).output().expect("curl runs");
        let stdout = String::from_utf8(ended.stdout).expect("UTF-8");
        let (said, status) = stdout.rsplit_once('\n').expect("a status");
        let status = status.parse().expect("a number");
        // The head goes before the body, and before it that of a `100 Continue`.
        let (mut head, mut text) = ("", said);
        while let Some((before, behind)) = text.split_once("\r\n\r\n")
            && before.starts_with("HTTP/")
        {
            (head, text) = (before, behind);
        }
        if let Ok(status) = StatusCode::from_u16(status) {
            let url: reqwest::Url = url.parse().expect("an address");
            let query = url.query().map(|query| format!("?{query}"));
            Exchange {
                of_operations: url.scheme() == "http",
                is_preflight: false,
                method: if sent.is_some() {
                    &Method::POST
                } else {
                    &Method::GET
                },
                target: &format!("{}{}", url.path(), query.unwrap_or_default()),
                sent: sent.map(Value::to_string).as_deref().map(str::as_bytes),
                status,
                headers: &head.lines().skip(1).map(header).collect(),
                body: text.as_bytes(),
            }
            .check();
        }
        Self {
            code: ended.status.code(),
            status,
            body: serde_json::from_str(text).unwrap_or(Value::Null),
            text: text.to_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }
    }

    /// Checks the status, and gives the body.
    #[track_caller]
    pub(crate) fn with_status(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{self:?}");
        &self.body
    }

    /// Checks that this was refused with a message that has these words in it.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, words: &str) {
        let message = self.with_status(status)["error"]["message"].as_str();
        let has_words = message.is_some_and(|message| message.contains(words));
        assert!(has_words, "{words:?} is not in {self:?}");
    }
}

/// The value of one series of a scrape; zero where it is not there.
pub(crate) fn series(metrics: &str, series: &str) -> f64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map_or(0.0, |number| number.parse().expect("a number"))
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
