//! A token whose calls fail under load: what fails once is not noticed, what goes on
//! failing costs nobody but those who need the token, and no answer is ever wrong.

use serde_json::json;

use crate::support::token_service::hsm_check;
use crate::support::{KmsProcess, TokenLoad, TokenService, base64, eventually, in_scope, text};

/// What uses a key.
const USES: [&str; 6] = [
    "C_SignInit",
    "C_Sign",
    "C_EncryptInit",
    "C_Encrypt",
    "C_DecryptInit",
    "C_Decrypt",
];

/// What looks for one.
const LOOKS: [&str; 2] = ["C_FindObjectsInit", "C_GetAttributeValue"];

/// Return values, and whether only the first step of an operation can return them.
const VALUES: [(&str, &str, bool); 8] = [
    ("CKR_SESSION_HANDLE_INVALID", "0xb3", false),
    ("CKR_SESSION_CLOSED", "0xb0", false),
    ("CKR_USER_NOT_LOGGED_IN", "0x101", false),
    ("CKR_DEVICE_ERROR", "0x30", false),
    ("CKR_DEVICE_REMOVED", "0x32", false),
    ("CKR_TOKEN_NOT_PRESENT", "0xe0", false),
    ("CKR_GENERAL_ERROR", "0x5", false),
    ("CKR_KEY_HANDLE_INVALID", "0x60", true),
];

/// The calls that can return this.
fn calls(only_first_steps: bool) -> impl Iterator<Item = &'static str> {
    USES.into_iter()
        .filter(move |call| !only_first_steps || call.ends_with("Init"))
}

async fn well(service: &TokenService) -> (TokenLoad, KmsProcess) {
    let (load, kms) = TokenLoad::new(service, || service.start()).await;
    for _ in 0..3 {
        load.wave(&kms).await;
    }
    assert_eq!(load.refusals(), 0);
    (load, kms)
}

/// No panic, and no thread that died.
fn in_order(kms: KmsProcess) {
    let log = kms.stop();
    assert!(!log.contains("panic"), "{log}");
}

/// Lets this one call fail while there is load.
async fn fail_once(service: &TokenService, load: &TokenLoad, kms: &KmsProcess, fault: &str) {
    service.token.fail(&[fault]);
    load.until(kms, fault, async || service.has_failed_once())
        .await;
}

#[tokio::test]
async fn a_call_that_fails_once_is_made_again_and_nobody_notices() {
    let service = TokenService::new();
    let (load, kms) = well(&service).await;
    for (name, value, only_first_steps) in VALUES {
        for call in calls(only_first_steps) {
            let fault = format!("{call}=once:{value}");
            fail_once(&service, &load, &kms, &fault).await;
            assert_eq!(load.refusals(), 0, "{call} {name}");
        }
        if only_first_steps {
            continue;
        }
        for call in LOOKS {
            // What is known is not looked for.
            let key_id = kms.generate_id("Ed25519").await;
            service.token.fail(&[&format!("{call}=once:{value}")]);
            let sign = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
            kms.post("/kms/v1/sign", &sign).await.ok();
            assert!(service.has_failed_once(), "{call} {name}");
        }
    }
    // Done, and told otherwise.
    for call in ["C_Sign", "C_Encrypt", "C_Decrypt"] {
        for value in ["0x30", "0x5", "0xb3"] {
            let fault = format!("{call}=once-after:{value}");
            fail_once(&service, &load, &kms, &fault).await;
            assert_eq!(load.refusals(), 0, "{fault}");
        }
    }
    // Somebody logs out: secrets can no longer be seen, and are not taken for gone.
    for call in ["C_SignInit", "C_EncryptInit", "C_DecryptInit"] {
        fail_once(&service, &load, &kms, &format!("{call}=once-logout")).await;
        assert_eq!(load.refusals(), 0, "logged out at {call}");
    }
    service.token.heal();
    assert!(load.answered("sign rsa") > 150);
    in_order(kms);
}

#[tokio::test]
async fn calls_that_go_on_failing_are_refused_until_the_token_is_well() {
    let service = TokenService::new();
    let (load, kms) = well(&service).await;
    let operations = ["sign rsa", "sign ed25519", "encrypt", "decrypt"];
    for (name, value, only_first_steps) in VALUES {
        let looks = LOOKS.iter().filter(|_| !only_first_steps);
        let all: Vec<String> = calls(only_first_steps)
            .chain(looks.copied())
            .map(|call| format!("{call}={value}"))
            .collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        service.token.fail(&all);
        let before = operations.map(|what| load.refused(what));
        load.until(&kms, "refusals of everything", async || {
            let now = operations.map(|what| load.refused(what));
            now.iter()
                .zip(before)
                .all(|(now, before)| *now > before + 5)
        })
        .await;
        service.token.heal();
        let took = load.until_served(&kms).await;
        eprintln!("{name}: served {took:?} after it was well");
    }
    // The next report tells what was wrong.
    eventually("the last error in the health report", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        let detail = text(&hsm_check(&health.body)["detail"]);
        detail.contains("last error at").then_some(())
    })
    .await;
    in_order(kms);
}

#[tokio::test]
async fn a_token_that_signs_no_more_still_encrypts() {
    let service = TokenService::new();
    let (load, kms) = well(&service).await;
    for value in ["0x30", "0xb3", "0x5", "0x60"] {
        service.token.fail(&[&format!("C_SignInit={value}")]);
        let before = load.refused("sign rsa");
        load.until(&kms, "refused signatures", async || {
            load.refused("sign rsa") > before + 10
        })
        .await;
        assert_eq!(load.refused("encrypt"), 0, "{value}");
        assert_eq!(load.refused("decrypt"), 0, "{value}");
        service.token.heal();
        load.until_served(&kms).await;
    }
    in_order(kms);
}

#[tokio::test]
async fn a_token_that_is_taken_out_is_found_again() {
    let service = TokenService::new();
    let (load, kms) = well(&service).await;
    let away = [
        "C_SignInit",
        "C_EncryptInit",
        "C_DecryptInit",
        "C_OpenSession",
        "C_GetTokenInfo",
        "C_Login",
    ];
    for lookup in [
        "C_GetTokenInfo=0xe0",
        "C_GetSlotList=0x30",
        "C_Initialize=0x5",
    ] {
        let mut lines: Vec<String> = away.iter().map(|call| format!("{call}=0x32")).collect();
        lines.retain(|line| !lookup.starts_with(line.split('=').next().unwrap_or_default()));
        lines.push(lookup.to_owned());
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        service.token.fail(&lines);
        let before = load.refused("decrypt");
        load.until(&kms, "refusals", async || {
            load.refused("decrypt") > before + 10
        })
        .await;
        let unready = eventually("unreadiness", || async {
            let health = kms.get_operations("/kms/v1/health").await;
            (health.status == 503).then_some(health)
        })
        .await;
        let detail = text(&hsm_check(&unready.body)["detail"]);
        assert!(detail.contains("no token is connected"), "{detail}");
        kms.get("/health").await.ok();
        service.token.heal();
        let took = load.until_served(&kms).await;
        eprintln!("{lookup}: served {took:?} after it was back");
    }
    // The module was initialized anew, and hands out the same session handles again.
    // What was opened before is neither used nor closed: it would be somebody else's.
    let log = kms.stop();
    assert!(!log.contains("panic"), "{log}");
    assert!(!log.contains("SessionHandleInvalid"), "{log}");
}

#[tokio::test]
async fn a_key_that_was_made_but_not_told_is_in_no_metadata_and_not_made_again() {
    let service = TokenService::new();
    let kms = service.start();
    for (call, key_type, usage) in [
        ("C_GenerateKeyPair", "Ed25519", ["sign", "verify"]),
        ("C_GenerateKey", "AES-256", ["encrypt", "decrypt"]),
    ] {
        let body = in_scope(json!({ "key_type": key_type, "key_usage": usage }));
        for value in ["0x30", "0x5"] {
            let before = service.listed().len();
            service.token.fail(&[&format!("{call}=once-after:{value}")]);
            let answer = kms.post_approved("/kms/v1/keys", &body).await;
            answer.refused(503, "DEPENDENCY_UNAVAILABLE");
            let keys = kms.get_scoped("/kms/v1/keys").await;
            assert_eq!(keys.ok()["keys"], json!([]), "{call} {value}");
            let one_key = 1 + usize::from(key_type == "Ed25519");
            let made = service.listed().len() - before;
            assert!(made <= one_key, "{made} objects: {call} {value}");
        }
    }
    // What was not made is made, and whoever asked does not notice.
    service.token.fail(&["C_GenerateKeyPair=once:0xb3"]);
    let key_id = kms.generate_id("Ed25519").await;
    assert_eq!(service.objects_of(&key_id).len(), 2);
    in_order(kms);
}

#[tokio::test]
async fn a_pair_whose_proof_is_cut_off_is_not_made_again_under_its_id() {
    let service = TokenService::new();
    let kms = service.start();
    let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": ["sign"] }));
    // Neither the proof nor undoing it: the pair stays.
    service.token.fail(&["C_Sign=0xb3", "C_DestroyObject=0xb3"]);
    let answer = kms.post_approved("/kms/v1/keys", &body).await;
    answer.refused(503, "DEPENDENCY_UNAVAILABLE");
    service.token.heal();
    let mut objects = service.listed();
    assert!(objects.len() <= 2, "it was made twice: {objects:?}");
    // With the token well again nothing of a pair that fails its proof stays.
    let before = objects.len();
    service.token.fail(&["C_Sign=0x30"]);
    let answer = kms.post_approved("/kms/v1/keys", &body).await;
    answer.refused(503, "DEPENDENCY_UNAVAILABLE");
    objects = service.listed();
    assert!(objects.len() <= before, "{objects:?}");
    in_order(kms);
}

/// Of each attribute that keeps a secret inside, its number in the standard.
const KEPT_INSIDE: [(&str, &str); 6] = [
    ("CKA_PRIVATE", "0x2"),
    ("CKA_SENSITIVE", "0x103"),
    ("CKA_ALWAYS_SENSITIVE", "0x165"),
    ("CKA_EXTRACTABLE", "0x162"),
    ("CKA_NEVER_EXTRACTABLE", "0x164"),
    ("CKA_LOCAL", "0x163"),
];

#[tokio::test]
async fn a_key_that_the_token_does_not_keep_to_itself_is_not_taken() {
    let service = TokenService::new();
    let kms = service.start();
    for (key_type, usage) in [("Ed25519", "sign"), ("AES-256", "encrypt")] {
        let body = in_scope(json!({ "key_type": key_type, "key_usage": [usage] }));
        for (name, number) in KEPT_INSIDE {
            service.token.fail(&[&format!("flip={number}")]);
            let refused = kms.post_approved("/kms/v1/keys", &body).await;
            assert!(refused.status.is_server_error(), "{name}: {}", refused.text);
            let left = service.listed();
            assert_eq!(left, Vec::<String>::new(), "{key_type} {name}");
        }
        service.token.heal();
        let made = kms
            .generate(key_type, json!({ "key_usage": [usage] }))
            .await;
        let path = format!("/kms/v1/keys/{}/revoke", text(&made["key_id"]));
        let reason = in_scope(json!({ "revocation_reason": "compromised" }));
        kms.post_approved(&path, &reason).await.ok();
    }
    in_order(kms);
}

async fn is_erased(service: &TokenService, kms: &KmsProcess, key_id: &str) {
    let path = format!("/kms/v1/keys/{key_id}/revoke");
    let reason = in_scope(json!({ "revocation_reason": "compromised" }));
    kms.post_approved(&path, &reason).await.ok();
    assert!(service.has_failed_once());
    eventually("the end of the key", || async {
        service.objects_of(key_id).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_is_erased_though_the_login_ended_meanwhile() {
    let service = TokenService::new();
    // With one session a failure closes the last one, and the login with it.
    let kms = service.start_with(&[("KMS__HSM__PKCS11__SESSIONS", "1")]);
    let kms = TokenService::connected(kms);
    for value in ["0x5", "0x54"] {
        let key_id = kms.generate_id("AES-256").await;
        let other = kms.generate_id("Ed25519").await;
        service.token.fail(&[&format!("C_SignInit=once:{value}")]);
        let sign = in_scope(json!({ "key_id": other, "data": base64("data") }));
        kms.post("/kms/v1/sign", &sign).await.ok();
        service
            .token
            .fail(&[&format!("C_FindObjectsInit=once:{value}")]);
        is_erased(&service, &kms, &key_id).await;
    }
    let key_id = kms.generate_id("AES-256").await;
    service.token.fail(&["C_FindObjectsInit=once-logout"]);
    is_erased(&service, &kms, &key_id).await;
    in_order(kms);
}
