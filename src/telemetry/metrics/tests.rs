use super::*;
use crate::domain::error::Dependency;

#[test]
fn every_metric_of_the_contract_is_there_under_its_name() {
    let metrics = Metrics::new("1.2.3").expect("names are unique");
    metrics.observe_request(RequestOperation::Sign, 200, Duration::from_millis(3));
    metrics.count_error(&KmsError::DailyLimitReached {
        limit: 1,
        retry_after: Duration::from_secs(1),
    });
    metrics.count_error(&KmsError::unavailable(Dependency::Store, "away"));
    metrics.count_key_usage(KeyUsage::Sign, KeyType::Ed25519, 1);
    metrics.observe_hsm("sign", Duration::from_micros(7));
    metrics.set_hsm_available(true);
    metrics.observe_ledger_commit(Duration::from_micros(300));
    metrics.set_ledger_size(5);
    metrics.set_keys(KeyType::Aes256, KeyState::Active, 2);
    metrics.set_jwks_age(JwksSet::M21, Duration::from_secs(90));
    metrics.expect_handshake_refusals(["revoked"].into_iter());
    metrics.count_handshake(None);
    metrics.count_handshake(Some("expired"));
    metrics.set_tls_certificate_expiry_seconds(-5);
    metrics.set_crl_age_seconds(60);
    metrics.set_rekey_remaining(3);
    metrics.set_rsa_stock(64);
    metrics.count_rsa_pair(true);
    metrics.set_rsa_stock_target(64);
    metrics.count_daily_limit_neared();
    metrics.count_daily_limit_refusals(3);
    metrics.count_approval(true);
    let text = String::from_utf8(metrics.render().expect("encodes")).expect("UTF-8");
    for line in [
        r#"kms_requests_total{operation="sign",status="200"} 1"#,
        r#"kms_request_errors_total{code="RATE_LIMITED"} 1"#,
        r#"kms_request_errors_total{code="INTERNAL_ERROR"} 0"#,
        r#"kms_operation_latency_ms_bucket{operation="sign",le="5"} 1"#,
        r#"kms_keys_total{key_state="active",key_type="AES-256"} 2"#,
        r#"kms_key_usage_total{key_type="Ed25519",operation="sign"} 1"#,
        "kms_hsm_available 1",
        "kms_keys_quarantined 0",
        r#"kms_hsm_operation_latency_ms_count{operation="sign"} 1"#,
        "kms_ledger_size 5",
        "kms_ledger_commit_latency_ms_count 1",
        "kms_rate_limited_total 1",
        r#"kms_jwks_age_seconds{set="m21"} 90"#,
        r#"kms_tls_handshakes_total{outcome="established"} 1"#,
        r#"kms_tls_handshakes_total{outcome="refused"} 1"#,
        r#"kms_tls_handshakes_refused_total{reason="expired"} 1"#,
        r#"kms_tls_handshakes_refused_total{reason="revoked"} 0"#,
        "kms_tls_certificate_expiry_seconds -5",
        "kms_crl_age_seconds 60",
        "kms_rekey_remaining 3",
        "kms_rsa_stock 64",
        r#"kms_rsa_pairs_total{source="stock"} 1"#,
        r#"kms_rsa_pairs_total{source="generated"} 0"#,
        r#"kms_build_info{version="1.2.3"} 1"#,
        r#"kms_dependency_failures_total{dependency="store"} 1"#,
        r#"kms_dependency_failures_total{dependency="hsm"} 0"#,
        "kms_rsa_stock_target 64",
        "kms_daily_limits_neared_total 1",
        "kms_daily_limit_refusals_total 3",
        r#"kms_approvals_total{outcome="accepted"} 1"#,
        r#"kms_approvals_total{outcome="refused"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
}

#[test]
fn failures_on_our_side_are_zeros_before_the_first_of_them() {
    let metrics = Metrics::new("1.2.3").expect("names are unique");
    let scraped = || String::from_utf8(metrics.render().expect("encodes")).expect("UTF-8");
    let fresh = scraped();
    for operation in RequestOperation::ALL {
        for status in [500, 503] {
            let operation = operation.as_str();
            let line =
                format!("kms_requests_total{{operation=\"{operation}\",status=\"{status}\"}} 0\n");
            assert!(fresh.contains(&line), "{line} is missing from\n{fresh}");
        }
    }
    assert!(!fresh.contains(r#"status="200""#), "{fresh}");
    // What is counted is the same series.
    metrics.observe_request(RequestOperation::Sign, 503, Duration::ZERO);
    let line = r#"kms_requests_total{operation="sign",status="503"} "#;
    let counted = scraped();
    let found: Vec<&str> = counted
        .lines()
        .filter_map(|known| known.strip_prefix(line))
        .collect();
    assert_eq!(found, ["1"]);
}
