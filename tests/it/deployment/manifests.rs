//! What the manifests of `deploy/kubernetes` and the chart of `deploy/helm` ask a cluster
//! for: no more rights than needed, and names that lead to each other.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::text;
use crate::support::tools::{in_project, items, passes, yaml, yaml_file};

/// A program that `make tools` laid below `target/tools`.
pub(super) fn tool(name: &str) -> String {
    let path = in_project("target/tools/bin").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// What an overlay or the base comes to, as text.
pub(super) fn kustomized(folder: &str) -> String {
    passes(
        "deploy/kubernetes",
        &tool("kubectl"),
        &["kustomize", folder],
    )
}

/// What the chart comes to with these values, as text.
pub(super) fn charted(values: &[&str]) -> String {
    let mut arguments = vec!["template", "kms", "kms", "--namespace", "kms"];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    passes("deploy/helm", &tool("helm"), &arguments)
}

/// The production overlay, and the chart with the same objects.
pub(super) fn both() -> [(&'static str, Vec<Value>); 2] {
    [
        ("kustomize", yaml(&kustomized("overlays/production"))),
        ("helm", yaml(&charted(&["monitoring.enabled=true"]))),
    ]
}

/// The one object of this kind whose name ends like this.
pub(super) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .filter(|object| text(&object["metadata"]["name"]).starts_with(name))
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name}: {found:?}");
    found[0]
}

pub(super) fn pod(objects: &[Value]) -> &Value {
    &object(objects, "StatefulSet", "kms")["spec"]["template"]["spec"]
}

pub(super) fn container(objects: &[Value]) -> &Value {
    let containers = &pod(objects)["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
    &containers[0]
}

/// What a pod does that the Pod Security Standards forbid at the level "restricted".
fn unrestricted(pod: &Value) -> Vec<&'static str> {
    let own = &pod["securityContext"];
    let mut faults = Vec::new();
    let mut require = |is_so: bool, what| {
        if !is_so {
            faults.push(what);
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        require(pod[field] != true, "shares with its node");
    }
    require(
        pod["initContainers"].is_null(),
        "a container that is not looked at",
    );
    require(own["sysctls"].is_null(), "sysctls");
    for volume in items(&pod["volumes"]) {
        let kinds = [
            "configMap",
            "secret",
            "emptyDir",
            "projected",
            "persistentVolumeClaim",
        ];
        require(
            kinds.iter().any(|kind| volume.get(kind).is_some()),
            "a volume of the node",
        );
    }
    for container in items(&pod["containers"]) {
        let context = &container["securityContext"];
        let of_either = |field: &str| match &context[field] {
            Value::Null => own[field].clone(),
            set => set.clone(),
        };
        require(context["privileged"] != true, "privileged");
        require(context["allowPrivilegeEscalation"] == false, "escalation");
        require(
            context["capabilities"] == json!({ "drop": ["ALL"] }),
            "capabilities",
        );
        require(of_either("runAsNonRoot") == true, "root");
        require(
            of_either("runAsUser").as_u64().is_none_or(|user| user != 0),
            "user 0",
        );
        require(
            ["RuntimeDefault", "Localhost"]
                .iter()
                .any(|kind| of_either("seccompProfile")["type"] == *kind),
            "seccomp",
        );
        require(
            items(&container["ports"]).all(|port| port["hostPort"].is_null()),
            "a port of the node",
        );
    }
    faults
}

#[test]
fn the_pod_is_restricted_and_writes_to_its_volume_only() {
    for (how, objects) in both() {
        let pod = pod(&objects);
        assert_eq!(unrestricted(pod), Vec::<&str>::new(), "{how}");
        let context = &container(&objects)["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{how}");
        assert_eq!(pod["securityContext"]["runAsUser"], 65_532, "{how}");
        assert_eq!(
            pod["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch",
            "{how}"
        );
        let writable: Vec<&str> = items(&container(&objects)["volumeMounts"])
            .filter(|mount| mount["readOnly"] != true)
            .map(|mount| text(&mount["name"]))
            .collect();
        assert_eq!(writable, ["data"], "{how}");
        for secret in items(&pod["volumes"]).filter(|volume| volume.get("secret").is_some()) {
            // For the owner and the group of the pod.
            assert_eq!(secret["secret"]["defaultMode"], 0o440, "{how}: {secret}");
        }
        for (field, wanted) in [
            ("/securityContext/seccompProfile", Value::Null),
            ("/securityContext/runAsNonRoot", json!(false)),
            (
                "/containers/0/securityContext/capabilities",
                json!({ "drop": [] }),
            ),
            (
                "/containers/0/securityContext/allowPrivilegeEscalation",
                Value::Null,
            ),
            (
                "/volumes/0",
                json!({ "name": "x", "hostPath": { "path": "/" } }),
            ),
        ] {
            let mut other = pod.clone();
            *other
                .pointer_mut(field)
                .unwrap_or_else(|| panic!("{field}")) = wanted;
            assert_eq!(unrestricted(&other).len(), 1, "{field}");
        }
    }
    let namespace = yaml_file("deploy/kubernetes/overlays/production/namespace.yaml");
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn nobody_gives_the_service_a_right_in_the_cluster() {
    for (how, objects) in both() {
        for object in &objects {
            let kind = text(&object["kind"]);
            assert!(!kind.contains("Role"), "{how}: {kind}");
        }
        let account = object(&objects, "ServiceAccount", "kms");
        assert_eq!(account["automountServiceAccountToken"], false, "{how}");
        let pod = pod(&objects);
        assert_eq!(pod["automountServiceAccountToken"], false, "{how}");
        assert_eq!(
            pod["serviceAccountName"], account["metadata"]["name"],
            "{how}"
        );
        // Else every service of the namespace would put variables into the environment.
        assert_eq!(pod["enableServiceLinks"], false, "{how}");
    }
}

/// An operator of Prometheus takes what bears its label, and storage that is no CSI
/// driver's has no volume for one pod.
#[test]
fn the_chart_bears_labels_and_an_access_mode_of_the_cluster() {
    let objects = yaml(&charted(&[
        "monitoring.enabled=true",
        "monitoring.labels.release=prom",
        "persistence.accessMode=ReadWriteOnce",
    ]));
    let mut watched = 0;
    for object in &objects {
        let is_watched = text(&object["apiVersion"]).starts_with("monitoring.");
        let label = &object["metadata"]["labels"]["release"];
        match is_watched {
            true => assert_eq!(label, "prom"),
            false => assert!(label.is_null(), "{object}"),
        }
        watched += usize::from(is_watched);
    }
    assert_eq!(watched, 3);
    let set = object(&objects, "StatefulSet", "kms");
    let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["accessModes"], json!(["ReadWriteOnce"]));
}

#[test]
fn there_is_one_writer_whatever_happens() {
    for (how, objects) in both() {
        let set = &object(&objects, "StatefulSet", "kms")["spec"];
        assert_eq!(set["replicas"], 1, "{how}");
        // One that never gets ready makes room for its mended successor.
        assert_eq!(set["podManagementPolicy"], "Parallel", "{how}");
        let claim = &set["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["accessModes"], json!(["ReadWriteOncePod"]), "{how}");
        let kept = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
        assert_eq!(set["persistentVolumeClaimRetentionPolicy"], kept, "{how}");
        assert!(
            !objects
                .iter()
                .any(|object| object["kind"] == "HorizontalPodAutoscaler")
        );
        let resources = &container(&objects)["resources"];
        let wanted = json!({
            "requests": { "cpu": "4", "memory": "2Gi" }, "limits": { "memory": "2Gi" },
        });
        assert_eq!(resources, &wanted, "{how}");
    }
}

/// Whether all of these labels are among those.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("labels");
    assert!(!selector.is_empty());
    selector.iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn every_selector_finds_what_it_is_for() {
    for (how, objects) in both() {
        let set = object(&objects, "StatefulSet", "kms");
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        assert!(
            selects(&set["spec"]["selector"]["matchLabels"], labels),
            "{how}"
        );
        let services = objects.iter().filter(|object| object["kind"] == "Service");
        let services: BTreeMap<&str, &Value> = services
            .map(|service| (text(&service["metadata"]["name"]), service))
            .collect();
        assert_eq!(
            services.keys().copied().collect::<Vec<_>>(),
            ["kms", "kms-pods"]
        );
        assert_eq!(set["spec"]["serviceName"], "kms-pods", "{how}");
        let named: Vec<&Value> = items(&container(&objects)["ports"])
            .map(|port| &port["name"])
            .collect();
        for service in services.values() {
            assert!(selects(&service["spec"]["selector"], labels), "{how}");
            for port in items(&service["spec"]["ports"]) {
                assert!(named.contains(&&port["targetPort"]), "{how}: {port}");
            }
        }
        let budget = object(&objects, "PodDisruptionBudget", "kms");
        assert!(
            selects(&budget["spec"]["selector"]["matchLabels"], labels),
            "{how}"
        );
        let policy = &object(&objects, "NetworkPolicy", "kms")["spec"];
        assert!(
            selects(&policy["podSelector"]["matchLabels"], labels),
            "{how}"
        );
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]), "{how}");
        assert_eq!(policy["egress"], json!([]), "{how}");
        for rule in items(&policy["ingress"]) {
            assert!(items(&rule["from"]).next().is_some(), "{how}: {rule}");
            for port in items(&rule["ports"]) {
                assert!(named.contains(&&port["port"]), "{how}: {port}");
            }
        }
        let monitor = &object(&objects, "ServiceMonitor", "kms")["spec"];
        let wanted = &monitor["selector"]["matchLabels"];
        assert!(
            selects(wanted, &services["kms-pods"]["metadata"]["labels"]),
            "{how}"
        );
        assert!(
            !selects(wanted, &services["kms"]["metadata"]["labels"]),
            "{how}"
        );
        let endpoint = &monitor["endpoints"][0];
        assert_eq!(
            endpoint["port"],
            services["kms-pods"]["spec"]["ports"][0]["name"]
        );
        // The alerts go by the job.
        let job = text(&monitor["jobLabel"]);
        assert_eq!(
            services["kms-pods"]["metadata"]["labels"][job], "kms",
            "{how}"
        );
    }
}

#[test]
fn the_rules_in_the_cluster_are_those_that_are_tested() {
    for (how, objects) in both() {
        for rules in ["recording", "alerts"] {
            let object = object(&objects, "PrometheusRule", &format!("kms-{rules}"));
            let tested = yaml_file(&format!("deploy/prometheus/{rules}.rules.yml"));
            assert_eq!(
                object["spec"], tested,
                "{how}: `make manifests` copies them"
            );
        }
    }
}

#[test]
fn kustomize_and_the_chart_ask_for_the_same() {
    let [(_, kustomized), (_, charted)] = both();
    let without_names = |objects: &[Value]| {
        let mut pod = pod(objects).clone();
        for (place, value) in [
            // Kustomize knows it by its hash, the chart by an annotation.
            ("/volumes/0/configMap/name", json!("kms-config")),
            ("/containers/0/image", json!("kms")),
            ("/containers/0/imagePullPolicy", json!("IfNotPresent")),
        ] {
            match pod.pointer_mut(place) {
                Some(field) => *field = value,
                None => pod["containers"][0]["imagePullPolicy"] = value,
            }
        }
        pod
    };
    assert_eq!(without_names(&kustomized), without_names(&charted));
    let data = |objects| object(objects, "ConfigMap", "kms-config")["data"].clone();
    let (one, other) = (data(&kustomized), data(&charted));
    let read =
        |data: &Value| -> toml::Table { text(&data["production.toml"]).parse().expect("TOML") };
    assert_eq!(read(&one), read(&other));
    let rules = |objects| object(objects, "NetworkPolicy", "kms")["spec"]["ingress"].clone();
    assert_eq!(rules(&kustomized), rules(&charted));
}

#[test]
fn the_versions_are_that_of_the_service() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = yaml_file("deploy/helm/kms/Chart.yaml");
    assert_eq!(chart["appVersion"], version);
    let overlay = yaml_file("deploy/kubernetes/overlays/production/kustomization.yaml");
    assert_eq!(overlay["images"][0]["newTag"], version);
    for (how, objects) in both() {
        let image = text(&container(&objects)["image"]).to_owned();
        assert!(image.ends_with(&format!(":{version}")), "{how}: {image}");
    }
}
