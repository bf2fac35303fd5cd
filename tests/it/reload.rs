//! Certificates, authorities, revocation lists and key sets are renewed under a
//! service that goes on serving, and a bad new one takes nothing away.

use kms::app::App;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::renewing::{Notice, Renewing, alice, key_set, m21, token};
use crate::support::{Answer, Approver, Pki, SCOPE_QUERY, TestAuthority, config, eventually};

/// Each kind of material with its file.
const KINDS: [(&str, &str); 5] = [
    ("approvers_jwks", "approvers.json"),
    ("client_ca", "ca.pem"),
    ("crl", "ca.crl"),
    ("jwks", "m21.json"),
    ("tls_certificate", "server.pem"),
];

const OK: Option<StatusCode> = Some(StatusCode::OK);

#[tokio::test]
async fn a_new_server_certificate_is_shown_to_new_connections_and_open_ones_live_on() {
    for notice in Notice::ALL {
        let mut service = Renewing::start(notice);
        let open = service.client();
        assert_eq!(service.ask(&open).await, OK);
        let old = service.serial_in_file();
        assert_eq!(service.shown_serial(), old, "{notice:?}");

        service.pki.renew_server();
        service.give_notice();
        service.wait_for_reload("tls_certificate");
        let new = service.serial_in_file();
        assert_ne!(new, old);
        assert_eq!(service.shown_serial(), new, "{notice:?}");

        let handshakes = "kms_tls_handshakes_total{outcome=\"established\"}";
        let before = service.series(handshakes).await;
        assert_eq!(service.ask(&open).await, OK);
        assert_eq!(service.series(handshakes).await, before, "{notice:?}");
    }
}

#[tokio::test]
async fn a_replaced_client_authority_refuses_its_clients_anew_and_lets_open_ones_live_on() {
    for notice in Notice::ALL {
        let mut service = Renewing::start(notice);
        let (old, next) = (
            service.pki.client("tenant123", "M21"),
            TestAuthority::new("next CA"),
        );
        let open = service.pki.connector(&old);
        let newcomer = service.pki.connector(&next.client("tenant123", "M21"));
        assert_eq!(service.ask(&open).await, OK);
        assert_eq!(service.ask(&newcomer).await, None);

        service.pki.write("ca.pem", &next.pem());
        service.give_notice();
        service.wait_for_reload("client_ca");
        assert_eq!(service.ask(&newcomer).await, OK, "{notice:?}");
        service.wait_for_refusal(&old).await;
        // It has no way in but the one that it came by.
        assert_eq!(service.ask(&open).await, OK, "{notice:?}");
    }
}

#[tokio::test]
async fn a_revoked_client_is_refused_from_its_next_connection_on() {
    for notice in Notice::ALL {
        let mut service = Renewing::start(notice);
        let (revoked, other) = (
            service.pki.client("tenant123", "M21"),
            service.pki.client("tenant123", "M21"),
        );
        let open = service.pki.connector(&revoked);
        assert_eq!(service.ask(&open).await, OK);

        service.pki.revoke(&[&revoked]);
        service.give_notice();
        service.wait_for_reload("crl");
        service.wait_for_refusal(&revoked).await;
        service
            .kms
            .wait_for_line(&["TLS handshake refused", "reason=revoked"]);
        let refused = "kms_tls_handshakes_refused_total{reason=\"revoked\"}";
        assert!(service.series(refused).await >= 1.0, "{notice:?}");
        assert_eq!(service.ask(&open).await, OK, "{notice:?}");
        let other = service.pki.connector(&other);
        assert_eq!(service.ask(&other).await, OK, "{notice:?}");
        // The list of the test is of 2026-01-01.
        assert!(service.series("kms_crl_age_seconds").await > 0.0);
    }
}

#[tokio::test]
async fn a_replaced_set_of_approvers_decides_who_approves() {
    for notice in Notice::ALL {
        let mut service = Renewing::start(notice);
        let bob = Approver::new("bob@example.com", 2);
        assert_eq!(service.make_key(&alice()).await.status, 201);
        let unknown = "not signed by a known approver's key";
        service.make_key(&bob).await.refused_approval(unknown);

        service.pki.write("approvers.json", &key_set(&bob));
        service.give_notice();
        service.wait_for_reload("approvers_jwks");
        assert_eq!(service.make_key(&bob).await.status, 201, "{notice:?}");
        service.make_key(&alice()).await.refused_approval(unknown);
    }
}

#[tokio::test]
async fn a_replaced_set_of_the_identity_services_keys_decides_whose_tokens_count() {
    for notice in Notice::ALL {
        let mut service = Renewing::start(notice);
        let next = Approver::new("m21-next", 6);
        service.list_with_token_of(&m21()).await.ok();
        let answer = service.list_with_token_of(&next).await;
        answer.refused(401, "UNAUTHENTICATED");

        service.pki.write("m21.json", &key_set(&next));
        service.give_notice();
        service.wait_for_reload("jwks");
        service.list_with_token_of(&next).await.ok();
        let answer = service.list_with_token_of(&m21()).await;
        answer.refused(401, "UNAUTHENTICATED");
        for set in ["m21", "approvers"] {
            let name = format!("kms_jwks_age_seconds{{set=\"{set}\"}}");
            let age = service.series(&name).await;
            assert!((0.0..300.0).contains(&age), "{notice:?}");
        }
    }
}

/// Everything still works with what was in force before.
async fn serves(service: &Renewing) {
    let client = service.client();
    assert_eq!(service.ask(&client).await, OK);
    assert_eq!(service.make_key(&alice()).await.status, 201);
    service.list_with_token_of(&m21()).await.ok();
}

/// Puts something that is nothing in a file; what was in it.
fn spoil(service: &Renewing, file: &str) -> String {
    let good = std::fs::read_to_string(service.pki.path(file)).expect("read");
    service.pki.write(file, "nothing");
    good
}

#[tokio::test]
async fn a_bad_new_file_is_told_by_log_metric_and_health_and_a_good_one_mends_it() {
    let mut service = Renewing::start(Notice::Signal);
    service.wait_for_warnings(&[]).await;
    for (material, file) in KINDS {
        assert_eq!(service.reloads(material, "refused").await, 0.0);
        let good = spoil(&service, file);
        service.give_notice();
        service.wait_for_warnings(&[material]).await;
        assert!(service.reloads(material, "refused").await > 0.0);
        let line = service
            .kms
            .wait_for_line(&["ERROR not reloaded", &format!("material={material} ")]);
        assert!(line.contains(file), "{line}");
        serves(&service).await;

        let taken = service.reloads(material, "taken").await;
        service.pki.write(file, &good);
        service.give_notice();
        service.wait_for_warnings(&[]).await;
        assert!(service.reloads(material, "taken").await > taken);
        serves(&service).await;
    }
}

#[tokio::test]
async fn bad_new_files_are_noticed_and_mended_without_a_signal_too() {
    for notice in [Notice::Change, Notice::Swap] {
        let service = Renewing::start(notice);
        let good = KINDS.map(|(_, file)| (file, spoil(&service, file)));
        service.give_notice();
        service
            .wait_for_warnings(&KINDS.map(|(material, _)| material))
            .await;
        serves(&service).await;
        for (file, content) in good {
            service.pki.write(file, &content);
        }
        service.give_notice();
        service.wait_for_warnings(&[]).await;
        serves(&service).await;
        for (material, _) in KINDS {
            // Nothing is read over and over.
            eventually("the counters", || async {
                let refused = service.reloads(material, "refused").await;
                (refused == 1.0).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_the_service_starts_is_noticed() {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), Pki::new());
    keys.write("m21.json", &key_set(&m21()));
    let path = keys.path("m21.json").display().to_string();
    let config = config(folder.path(), &[("KMS__AUTH__JWKS", &path)]);
    let app = App::start(&config).await.expect("it starts");
    // Read, and nobody looks at it yet.
    let next = Approver::new("m21-next", 6);
    keys.write("m21.json", &key_set(&next));
    let url = format!(
        "http://{}/kms/v1/keys?{SCOPE_QUERY}",
        app.api_address().expect("an address")
    );
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(app.run(async move {
        let _ = stopped.await;
    }));
    let client = reqwest::Client::new();
    eventually("the new keys", || async {
        let token = token(&next, json!({}));
        let answer = Answer::of(client.get(&url).bearer_auth(token)).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    stop.send(()).expect("it runs");
    running.await.expect("no panic");
}

#[tokio::test]
async fn what_is_asked_for_while_the_service_starts_is_read_again_once_it_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::start(&config(folder.path(), &[])).await;
    let app = app.expect("the service starts");
    let operations = app.operations_address().expect("an address");
    let url = format!("http://{}/kms/v1/metrics", operations.expect("a listener"));
    // A SIGHUP right behind the line that says where it listens.
    app.reload_handle().reload();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async move {
        let _ = stopped.await;
    }));
    let series = "kms_material_reloads_total{material=\"trust_anchors\",outcome=\"taken\"} 1";
    eventually("the reading", || async {
        let metrics = reqwest::get(&url).await.ok()?.text().await.ok()?;
        metrics.contains(series).then_some(())
    })
    .await;
    drop(stop);
    running.await.expect("no panic");
}
