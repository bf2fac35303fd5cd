//! A token in another process, behind p11-kit's server, which dies, comes back and
//! stops in the middle of work. Its protocol has few mechanisms: RSA is what is left.

use std::time::Duration;

use serde_json::json;

use crate::support::token::{TokenFolder, p11_kit_client};
use crate::support::{KmsProcess, TokenLoad, TokenProxy, TokenService, in_scope};

/// A service with its token behind a server.
async fn behind_a_server() -> (TokenService, TokenProxy, TokenLoad, KmsProcess) {
    let service = TokenService::on(TokenFolder::new());
    let proxy = TokenProxy::start(&service.token);
    let address = proxy.address();
    let start = || {
        let kms = service.start_with(&[
            ("KMS__HSM__PKCS11__MODULE", &p11_kit_client()),
            ("KMS__HSM__PKCS11__DEADLINE", "PT1S"),
            ("P11_KIT_SERVER_ADDRESS", &address),
        ]);
        TokenService::connected(kms)
    };
    let (load, kms) = TokenLoad::new(&service, start).await;
    load.wave(&kms).await;
    assert_eq!(load.refusals(), 0);
    (service, proxy, load, kms)
}

async fn until_refused(load: &TokenLoad, kms: &KmsProcess, more: usize) {
    let enough = load.refused("sign rsa") + more;
    load.until(kms, "refusals", async || load.refused("sign rsa") >= enough)
        .await;
}

#[tokio::test]
async fn what_the_protocol_does_not_have_is_refused_by_name() {
    let (_service, _proxy, load, kms) = behind_a_server().await;
    for (key_type, usage) in [
        ("Ed25519", ["sign", "verify"]),
        ("AES-256", ["encrypt", "decrypt"]),
    ] {
        let body = in_scope(json!({ "key_type": key_type, "key_usage": usage }));
        let refused = kms.post_approved("/kms/v1/keys", &body).await;
        refused.refused_fields(&["key_type"]);
    }
    let key = kms.generate("RSA-2048", json!({})).await;
    let both = json!(["RSA-PSS-SHA256", "RSA-PKCS1v15-SHA256"]);
    assert_eq!(key["algorithms"], both);
    load.wave(&kms).await;
    assert_eq!(load.refusals(), 0);
    kms.stop();
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_costs_refusals_until_it_is_back() {
    let (_service, mut proxy, load, kms) = behind_a_server().await;
    for _ in 0..3 {
        tokio::join!(load.wave(&kms), load.wave(&kms), async { proxy.kill() });
        until_refused(&load, &kms, 10).await;
        kms.get("/health").await.ok();
        proxy.start_again();
        let took = load.until_served(&kms).await;
        eprintln!("served {took:?} after the server was back");
    }
    // Back before anybody noticed.
    tokio::join!(load.wave(&kms), load.wave(&kms), async {
        proxy.kill();
        proxy.start_again();
    });
    load.until_served(&kms).await;
    let log = kms.stop();
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test]
async fn a_server_that_is_stopped_keeps_nobody_longer_than_the_deadline() {
    let (_service, mut proxy, load, kms) = behind_a_server().await;
    load.take_slowest();
    proxy.freeze();
    until_refused(&load, &kms, 3).await;
    let slowest = load.take_slowest();
    assert!(slowest >= Duration::from_secs(1), "{slowest:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    proxy.go_on();
    let took = load.until_served(&kms).await;
    eprintln!("served {took:?} after the server went on");
    // Calls that hang keep the module from being initialized anew, until they fail.
    proxy.freeze();
    until_refused(&load, &kms, 3).await;
    proxy.kill();
    proxy.start_again();
    let took = load.until_served(&kms).await;
    eprintln!("served {took:?} after another server took over");
    kms.stop();
}
