//! Every object fits the schemas of Kubernetes, strictly, in the oldest version that the
//! manifests are for and in newer ones.

use std::process::Command;

use serde_json::Value;

use super::manifests::{charted, kustomized, tool};
use crate::support::tools::{in_project, passes, run, yaml};

/// `preStop.sleep` is there since the first.
const VERSIONS: [&str; 3] = ["1.30", "1.34", "1.37"];

/// What the schemas say of these manifests: exit code and output.
fn validated(manifests: &str, version: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifests.yaml");
    std::fs::write(&file, manifests).expect("written");
    let ended = run(
        "deploy",
        Command::new("python3")
            .args(["-m", "kubernetes_validate", "--strict", "-k", version])
            .arg(&file)
            .env("PYTHONPATH", in_project("target/tools/python")),
        "",
    );
    (ended.code, ended.output())
}

/// The objects of the Prometheus operator have no schema there: promtool reads the
/// rules, and a test of its own the one other.
fn is_foreign(object: &Value) -> bool {
    object["apiVersion"] == "monitoring.coreos.com/v1"
}

#[test]
fn every_object_fits_its_schema() {
    let digest = format!("image.digest=sha256:{}", "0".repeat(64));
    let everything = [
        "monitoring.enabled=true",
        digest.as_str(),
        "persistence.storageClassName=fast",
        "extraEnv[0].name=HSM_CREDENTIALS",
        "extraEnv[0].valueFrom.secretKeyRef.name=kms-hsm",
        "extraEnv[0].valueFrom.secretKeyRef.key=pin",
        "networkPolicy.egress[0].to[0].ipBlock.cidr=192.0.2.0/24",
        "podAnnotations.a=b",
        "nodeSelector.a=b",
        "tolerations[0].operator=Exists",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=a",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
    ];
    for manifests in [
        kustomized("base"),
        kustomized("overlays/production"),
        charted(&[]),
        charted(&everything),
    ] {
        let objects = yaml(&manifests);
        let own = objects.iter().filter(|object| !is_foreign(object)).count();
        for version in VERSIONS {
            let (code, output) = validated(&manifests, version);
            assert_eq!(code, Some(0), "{output}");
            assert_eq!(
                output.matches(" passed for resource ").count(),
                own,
                "{output}"
            );
            let unknown = objects.len() - own;
            assert_eq!(
                output.matches("Couldn't find schema").count(),
                unknown,
                "{output}"
            );
        }
    }
    let misspelt = kustomized("base").replace("readOnlyRootFilesystem", "readonlyRootFilesystem");
    assert_eq!(validated(&misspelt, VERSIONS[0]).0, Some(1));
}

#[test]
fn the_chart_has_no_faults_and_refuses_values_that_it_does_not_know() {
    passes("deploy/helm", &tool("helm"), &["lint", "--strict", "kms"]);
    for wrong in [
        "replicas=2",
        "image.digest=latest",
        "secrets.kek=",
        "preStopSeconds=0",
    ] {
        let mut command = Command::new(tool("helm"));
        let ended = run(
            "deploy/helm",
            command.args(["template", "kms", "kms", "--set", wrong]),
            "",
        );
        assert_ne!(ended.code, Some(0), "{wrong}");
        assert!(
            ended.stderr.contains("values.schema.json") || ended.stderr.contains("schema"),
            "{}",
            ended.stderr
        );
    }
}
