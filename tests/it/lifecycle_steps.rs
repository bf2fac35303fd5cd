//! The steps between a key's first day and its last: a schedule of its own, archiving,
//! the rotation of an emergency, its versions and its usage.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::lifecycle::time;
use crate::support::approver::seconds_since_1970;
use crate::support::{
    APPROVAL, Answer, Approver, SignedKms, TestKms, UNKNOWN, eventually, field_names, in_scope,
    text,
};

#[tokio::test]
async fn a_key_has_the_schedule_that_its_maker_asks_for_and_its_successors_inherit_it() {
    let kms = TestKms::start().await;
    for (period, written, hours, lead_hours) in [
        ("P5D", "P5D", 120, 6..=12),
        ("36h", "P1DT12H", 36, 1..=4),
        ("P36500D", "P36500D", 876_000, 12..=24),
    ] {
        let made = kms
            .generate("Ed25519", json!({ "rotation_period": period }))
            .await;
        let mut key = kms.details(text(&made["key_id"])).await;
        for _ in 0..2 {
            assert_eq!(key["rotation_period"], written);
            let end = time(&key["valid_until"]);
            assert_eq!(
                end.duration_since(time(&key["created_at"])),
                SignedDuration::from_hours(hours)
            );
            let lead = end.duration_since(time(&key["rotate_at"])).as_hours();
            assert!(lead_hours.contains(&lead), "{lead}");
            let rotated = kms.rotate(text(&key["key_id"])).await;
            key = kms.details(text(&rotated.ok()["new_key_id"])).await;
        }
    }
    let usual = kms.details(&kms.generate_id("Ed25519").await).await;
    assert_eq!(usual["rotation_period"], Value::Null);
}

#[tokio::test]
async fn a_schedule_that_is_none_is_refused_by_its_name() {
    let kms = TestKms::start().await;
    for period in [
        json!("PT0S"),
        json!("PT0.5S"),
        json!("-P1D"),
        json!("P36500DT1S"),
        json!("P1Y"),
        json!("P1M"),
        json!("soon"),
        json!(""),
        json!(90),
    ] {
        let body = in_scope(json!({
            "key_type": "Ed25519",
            "key_usage": ["sign"],
            "rotation_period": period,
            "approval_token": APPROVAL,
        }));
        let refused = kms.post("/kms/v1/keys", &body).await;
        refused.refused_fields(&["rotation_period"]);
    }
}

#[tokio::test]
async fn a_key_past_its_time_verifies_and_decrypts_and_protects_nothing_more() {
    let kms = TestKms::start().await;
    for (key_type, protects) in [("Ed25519", "sign"), ("AES-256", "encrypt")] {
        let (key_id, protected) = eventually("something protected in time", || async {
            let short = json!({ "rotation_period": "PT1S" });
            let made = kms.generate(key_type, short).await;
            let key_id = text(&made["key_id"]).to_owned();
            let answer = protect(&kms, protects, &key_id).await;
            (answer.status == 200).then(|| (key_id, answer.body.clone()))
        })
        .await;
        let refused = eventually("the end of the key's time", || async {
            let answer = protect(&kms, protects, &key_id).await;
            (answer.status != 200).then_some(answer)
        })
        .await;
        refused.refused(409, "KEY_INACTIVE");
        if protects == "sign" {
            let verified = kms.verify(&key_id, b"data", &protected["signature"]).await;
            assert_eq!(verified.ok()["valid"], true);
        } else {
            kms.decrypt(&key_id, &protected).await.ok();
        }
    }
}

async fn protect(kms: &TestKms, operation: &str, key_id: &str) -> Answer {
    match operation {
        "sign" => kms.sign(key_id, b"data").await,
        _ => kms.encrypt(key_id, b"data").await,
    }
}

#[tokio::test]
async fn an_archived_key_reads_the_past_and_gives_up_its_alias() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let key_id = text(&made["key_id"]);
    let signed = kms.sign("alias/line", b"data").await;
    let answer = kms.step("alias/line", "archive", json!({})).await;
    let archived = answer.ok();
    assert_eq!(
        field_names(archived),
        ["archived_at", "key_id", "key_state", "receipt_id"]
    );
    assert_eq!(archived["key_id"], key_id);
    assert_eq!(archived["key_state"], "archived");
    let details = kms.details(key_id).await;
    assert_eq!(details["archived_at"], archived["archived_at"]);
    assert_eq!(details["key_state"], "archived");
    assert_eq!(details["rotate_at"], Value::Null);

    let receipt = kms.receipt(&archived["receipt_id"]).await.receipt;
    assert_eq!(receipt["operation"], "key_archived");
    assert_eq!(receipt["kms_context"]["operation_type"], "archive");
    assert_eq!(receipt["kms_context"]["key_id"], key_id);

    kms.sign("alias/line", b"data")
        .await
        .refused(404, "KEY_NOT_FOUND");
    kms.sign(key_id, b"data").await.refused(409, "KEY_INACTIVE");
    let verified = kms.verify(key_id, b"data", &signed.ok()["signature"]).await;
    assert_eq!(verified.ok()["valid"], true);
    kms.generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let again = kms.step(key_id, "archive", json!({})).await;
    assert_eq!(
        again.refused(409, "KEY_INACTIVE"),
        &json!({ "key_state": "archived" })
    );
    kms.rotate(key_id).await.refused(409, "KEY_INACTIVE");
    kms.revoke(key_id).await.ok();
    let again = kms.step(key_id, "archive", json!({})).await;
    again.refused(409, "KEY_REVOKED");
}

#[tokio::test]
async fn a_replaced_key_is_archived_early_by_whoever_wants_it_so() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let sealed = kms.encrypt(&key_id, b"data").await;
    kms.rotate(&key_id).await.ok();
    kms.step(&key_id, "archive", json!({})).await.ok();
    kms.decrypt(&key_id, sealed.ok()).await.ok();
}

#[tokio::test]
async fn archiving_and_updating_and_restoring_need_an_approval_and_a_key() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let retired_id = kms.generate_id("Ed25519").await;
    kms.revoke_as(&retired_id, "retired").await.ok();
    for (step, key_id) in [("archive", &key_id), ("restore", &retired_id)] {
        let path = format!("/kms/v1/keys/{key_id}/{step}");
        let refused = kms.post(&path, &in_scope(json!({}))).await;
        refused.refused(403, "UNAUTHORIZED");
        let unknown = kms.step(UNKNOWN, step, json!({})).await;
        unknown.refused(404, "KEY_NOT_FOUND");
        let misspelt = kms.step(key_id, step, json!({ "why": "so" })).await;
        misspelt.refused_fields(&["why"]);
    }
    let body = in_scope(json!({ "key_alias": "line" }));
    let path = format!("/kms/v1/keys/{key_id}");
    let unapproved = kms.request(reqwest::Method::PATCH, &path).json(&body);
    Answer::of(unapproved).await.refused(403, "UNAUTHORIZED");
    let unknown = kms.update(UNKNOWN, json!({ "key_alias": "line" })).await;
    unknown.refused(404, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn an_emergency_archives_the_old_key_at_once() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let old_id = text(&made["key_id"]);
    let size = kms.ledger_size().await;
    let answer = kms
        .step("alias/line", "rotate", json!({ "emergency": true }))
        .await;
    let rotated = answer.ok();
    assert_eq!(rotated["old_key_id"], old_id);
    assert_eq!(rotated["grace_until"], Value::Null);
    let old = kms.details(old_id).await;
    assert_eq!(old["key_state"], "archived");
    assert_eq!(old["grace_until"], Value::Null);
    assert_eq!(old["archived_at"], old["rotated_at"]);
    assert_eq!(old["successor_key_id"], rotated["new_key_id"]);
    assert_eq!(
        kms.details("alias/line").await["key_id"],
        rotated["new_key_id"]
    );
    assert_eq!(kms.ledger_size().await, size + 2);
    let receipt = kms.receipt(&rotated["receipt_id"]).await;
    assert_eq!(receipt.receipt["operation"], "key_rotated");
    let path = format!("/kms/v1/receipts?key_id={old_id}&operation=key_archived");
    let archived = kms.get_scoped(&path).await;
    let archived = &archived.ok()["receipts"][0];
    assert_eq!(archived["leaf_index"], receipt.leaf_index + 1);

    let planned = kms
        .step("alias/line", "rotate", json!({ "emergency": false }))
        .await;
    assert_ne!(planned.ok()["grace_until"], Value::Null);
    let malformed = kms
        .step("alias/line", "rotate", json!({ "emergency": "yes" }))
        .await;
    malformed.refused_fields(&["emergency"]);
}

#[tokio::test]
async fn an_approval_of_one_step_is_none_of_another() {
    const STEPS: [(&str, &str); 6] = [
        ("key_archive", "archive"),
        ("key_rotate", "rotate"),
        ("key_rotate_emergency", "rotate"),
        ("key_revoke", "revoke"),
        ("key_restore", "restore"),
        ("key_update", ""),
    ];
    let alice = Approver::new("alice@example.com", 1);
    let service = SignedKms::start(&[&alice]).await;
    let key_id = service.key(&alice, "Ed25519", false).await;
    let retired_id = service.key(&alice, "Ed25519", false).await;
    let ask = async |operation: &str, step: &str, key_id: &str, approval: &str| {
        let fields = match operation {
            "key_rotate_emergency" => json!({ "emergency": true }),
            "key_revoke" => json!({ "revocation_reason": "retired" }),
            "key_update" => json!({ "key_alias": "line" }),
            _ => json!({}),
        };
        match step {
            "" => {
                let path = format!("/kms/v1/keys/{key_id}");
                let request = service.kms.request(reqwest::Method::PATCH, &path);
                let request = request.header("x-approval-token", approval);
                Answer::of(request.json(&in_scope(fields))).await
            }
            step => {
                let path = format!("/kms/v1/keys/{key_id}/{step}");
                service.post(&path, fields, Some(approval)).await
            }
        }
    };
    let approval = alice.approve_on("key_revoke", &retired_id);
    let revoked = ask("key_revoke", "revoke", &retired_id, &approval).await;
    revoked.ok();
    for (operation, step) in STEPS {
        let key_id = match step {
            "restore" => &retired_id,
            _ => &key_id,
        };
        for (other, _) in STEPS {
            if other != operation {
                let approval = alice.approve_on(other, key_id);
                let refused = ask(operation, step, key_id, &approval).await;
                refused.refused_approval("for another operation");
            }
        }
    }
    for (operation, step) in [
        ("key_update", ""),
        ("key_rotate_emergency", "rotate"),
        ("key_revoke", "revoke"),
        ("key_restore", "restore"),
    ] {
        let approval = alice.approve_on(operation, &key_id);
        ask(operation, step, &key_id, &approval).await.ok();
        let again = ask(operation, step, &key_id, &approval).await;
        assert_ne!(again.status, 200, "{operation} twice");
    }
}

#[tokio::test]
async fn the_versions_of_a_line_are_told_from_any_of_its_keys() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    kms.generate_id("Ed25519").await;
    let mut line = vec![text(&made["key_id"]).to_owned()];
    for emergency in [false, true, false] {
        let fields = json!({ "emergency": emergency });
        let rotated = kms.step("alias/line", "rotate", fields).await;
        line.push(text(&rotated.ok()["new_key_id"]).to_owned());
    }
    kms.revoke(&line[1]).await.ok();
    let ids = |answer: &Answer| -> Vec<String> {
        let versions = answer.ok()["versions"].as_array().expect("a list");
        let ids = versions.iter().map(|one| text(&one["key_id"]).to_owned());
        ids.collect()
    };
    let names = line.iter().map(String::as_str).chain(["alias/line"]);
    for name in names {
        let path = format!("/kms/v1/keys/{name}/versions");
        let all = kms.get_scoped(&path).await;
        assert_eq!(ids(&all), line, "{name}");
        assert_eq!(all.ok()["next_cursor"], Value::Null);
        let first = kms.get_scoped(&format!("{path}?limit=3")).await;
        assert_eq!(ids(&first), line[..3]);
        let cursor = text(&first.ok()["next_cursor"]);
        let rest = kms
            .get_scoped(&format!("{path}?limit=3&cursor={cursor}"))
            .await;
        assert_eq!(ids(&rest), line[3..]);
    }
    let path = format!("/kms/v1/keys/{}/versions", line[0]);
    let all = kms.get_scoped(&path).await;
    let versions = all.ok()["versions"].as_array().expect("a list");
    for (count, version) in versions.iter().enumerate() {
        assert_eq!(
            field_names(version),
            [
                "archived_at",
                "created_at",
                "grace_until",
                "key_id",
                "key_state",
                "revoked_at",
                "rotated_at",
                "rotation_count",
                "valid_until"
            ]
        );
        assert_eq!(version["rotation_count"], count);
        let details = kms.details(text(&version["key_id"])).await;
        for (name, value) in version.as_object().expect("an object") {
            assert_eq!(&details[name], value, "{name}");
        }
    }
    let states = versions.iter().map(|version| text(&version["key_state"]));
    assert!(states.eq([
        "pending_rotation",
        "destroyed",
        "pending_rotation",
        "active"
    ]));
    for (query, field) in [
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=ffffffffffffffffffffffffffffffff", "cursor"),
        ("key_state=active", "key_state"),
    ] {
        let refused = kms.get_scoped(&format!("{path}?{query}")).await;
        refused.refused_fields(&[field]);
    }
    let unknown = kms
        .get_scoped(&format!("/kms/v1/keys/{UNKNOWN}/versions"))
        .await;
    unknown.refused(404, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn the_metadata_of_a_key_says_how_much_it_is_used_today() {
    let kms = TestKms::start().await;
    let made = kms
        .generate(
            "Ed25519",
            json!({ "access_policy": { "max_usage_per_day": 3 } }),
        )
        .await;
    let key_id = text(&made["key_id"]);
    let usage = kms.details(key_id).await["usage"].clone();
    assert_eq!(
        field_names(&usage),
        ["last_used_at", "limit", "resets_at", "used"]
    );
    assert_eq!(usage["used"], 0);
    assert_eq!(usage["limit"], 3);
    assert_eq!(usage["last_used_at"], Value::Null);
    assert!(text(&usage["resets_at"]).ends_with("T00:00:00.000000Z"));
    let left = time(&usage["resets_at"]).as_second() - seconds_since_1970();
    assert!(left <= 86_400, "{left}");

    let signed = kms.sign(key_id, b"data").await;
    kms.verify(key_id, b"data", &signed.ok()["signature"])
        .await
        .ok();
    let usage = kms.details(key_id).await["usage"].clone();
    assert_eq!(usage["used"], 2);
    assert!(time(&usage["last_used_at"]) >= time(&kms.details(key_id).await["created_at"]));
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    assert_eq!(kms.details(key_id).await["usage"], usage);
    kms.sign(key_id, b"data").await.ok();
    kms.sign(key_id, b"data").await.refused(429, "RATE_LIMITED");
    assert_eq!(kms.details(key_id).await["usage"]["used"], 3);
    let listed = kms.get_scoped("/kms/v1/keys").await;
    assert_eq!(listed.ok()["keys"][0]["usage"], Value::Null);
    let names = field_names(&listed.ok()["keys"][0]);
    assert!(!names.contains(&"usage") && names.contains(&"rotate_at"));
}
