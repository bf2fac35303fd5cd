//! The unit of `deploy/systemd`: systemd reads it without a complaint, and what it
//! forbids the service does not need.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::tools::{in_project, passes, read, run};

/// The exposure that is still allowed, in tenths: 0 is none, 100 all there is.
const MOST_EXPOSURE: &str = "12";

/// The unit with the binary of this run, in a folder of its own.
fn unit(change: impl FnOnce(String) -> String) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kms.service");
    let unit = change(read("deploy/systemd/kms.service"));
    let binary = "/usr/local/bin/kms";
    assert!(unit.contains(binary));
    std::fs::write(&path, unit.replace(binary, env!("CARGO_BIN_EXE_kms"))).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

#[test]
fn systemd_reads_the_unit_without_a_complaint() {
    let verify = |path: &str| {
        let mut command = Command::new("systemd-analyze");
        run(".", command.args(["verify", "--man=no", path]), "")
    };
    let (_folder, path) = unit(|unit| unit);
    let ended = verify(&path);
    assert_eq!((ended.code, ended.output().as_str()), (Some(0), ""));
    let (_folder, path) = unit(|unit| unit.replace("WatchdogSec", "WatchDogSec"));
    assert_ne!(verify(&path).output(), "");
}

#[test]
fn the_unit_exposes_next_to_nothing() {
    let (_folder, path) = unit(|unit| unit);
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        &path,
    ];
    let report = passes(".", "systemd-analyze", &arguments);
    let (_, overall) = report
        .rsplit_once("Overall exposure level")
        .expect("a line");
    let level = overall.split_whitespace().nth(2).expect("a number");
    let page = read("docs/operations.md");
    assert!(page.contains(&format!("exposure of {level} ")), "{level}");

    let (_folder, path) = unit(|unit| unit.replace("ProtectSystem=strict\n", ""));
    let mut command = Command::new("systemd-analyze");
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        &path,
    ];
    let laxer = run(".", command.args(arguments), "");
    assert_ne!(laxer.code, Some(0), "{}", laxer.stdout);
}

/// What the filter of the unit lets through, by systemd's own lists.
fn allowed_calls() -> BTreeSet<String> {
    let unit = read("deploy/systemd/kms.service");
    let mut allowed = BTreeSet::new();
    for line in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let (denies, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        for call in names.split(' ').flat_map(calls) {
            if denies {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");
    allowed
}

/// The calls of a group, or the one of this name.
fn calls(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let listed = passes(
        ".",
        "systemd-analyze",
        &["syscall-filter", "--no-pager", name],
    );
    let names = listed.lines().map(str::trim).skip(1);
    let names = names.filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(calls).collect()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn the_service_makes_no_call_that_the_unit_forbids() {
    let folder = tempfile::tempdir().expect("a folder");
    // As a user without rights, as under systemd: what root may do is another matter.
    set_mode(folder.path(), 0o777);
    let binary = folder.path().join("kms");
    std::fs::copy(env!("CARGO_BIN_EXE_kms"), &binary).expect("copied");
    set_mode(&binary, 0o755);
    let trace = folder.path().join("trace");
    let script = r#"
        user=; test "$(id -u)" != 0 || user="setpriv --reuid=65532 --regid=65532 --clear-groups"
        $user strace -f -qq -o "$TRACE" -e signal=none "$KMS" serve >"$TRACE.log" 2>&1 &
        for _ in $(seq 600); do
          grep -q listening "$TRACE.log" && break; sleep 0.1
        done
        api=$(sed -n 's/.* api=\([0-9.:]*\).*/\1/p' "$TRACE.log")
        ops=$(sed -n 's/.* operations=\([0-9.:]*\).*/\1/p' "$TRACE.log")
        scope='"tenant_id":"t","environment":"prod","plane":"laptop"'
        post() { curl -sS --max-time 60 "http://$api/kms/v1/$1" -H 'Content-Type: application/json' \
          -H 'X-Approval-Token: approval-token-123' -d "{$scope,$2}"; }
        post keys '"key_type":"RSA-2048","key_usage":["sign"],"key_alias":"a"'
        post sign '"key_id":"alias/a","data":"AAAA"'
        curl -sS --max-time 60 "http://$ops/kms/v1/metrics" >/dev/null
        pid=$(sed -n '1s/ .*//p' "$TRACE")
        kill -HUP "$pid"; sleep 1; kill -TERM "$pid"; wait
    "#;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TRACE", &trace)
        .env("KMS", &binary)
        .env("KMS__DATA_DIR", folder.path().join("data"))
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        .env("KMS__HSM__SOFTWARE__RSA_STOCK", "2");
    let ended = run(".", &mut command, "");
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&ended.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|_| panic!("{}", ended.output()));
    assert_eq!(answers.len(), 2, "{}", ended.output());
    assert!(answers[1]["signature"].is_string(), "{}", ended.output());

    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let made: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    for expected in ["execve", "fdatasync", "accept4", "setpriority"] {
        assert!(made.contains(expected), "{expected}: {made:?}");
    }
    let allowed = allowed_calls();
    let forbidden: Vec<&&str> = made
        .iter()
        .filter(|name| !allowed.contains(**name))
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    // MemoryDenyWriteExecute=
    let written_and_run = trace.lines().find(|line| {
        line.contains("PROT_WRITE|PROT_EXEC") || line.contains("PROT_EXEC|PROT_WRITE")
    });
    assert_eq!(written_and_run, None);
    // RestrictAddressFamilies=
    for line in trace.lines().filter(|line| line.contains(" socket(")) {
        let families = ["AF_INET,", "AF_INET6,", "AF_UNIX,"];
        assert!(
            families.iter().any(|family| line.contains(family)),
            "{line}"
        );
    }
}

#[test]
fn the_unit_waits_as_long_as_the_service_may_take() {
    let unit = read("deploy/systemd/kms.service");
    let setting = |name: &str| {
        let mut found = unit
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found
            .next()
            .unwrap_or_else(|| panic!("no {name}"))
            .to_owned()
    };
    let settings: toml::Table = std::fs::read_to_string(in_project("config/default.toml"))
        .expect("read")
        .parse()
        .expect("TOML");
    let grace = settings["server"]["shutdown_grace"]
        .as_str()
        .expect("a text");
    let grace: jiff::SignedDuration = grace.parse().expect("a duration");
    let stop: i64 = setting("TimeoutStopSec").parse().expect("seconds");
    assert!(stop >= grace.as_secs() + 10, "{stop}");
    assert_eq!(setting("Type"), "notify");
    assert_eq!(setting("RestartPreventExitStatus"), "64");
    let command = setting("ExecStart");
    assert_eq!(command, "/usr/local/bin/kms --config /etc/kms serve");
}
