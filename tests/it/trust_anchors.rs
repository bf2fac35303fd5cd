//! Certificates become trust anchors when they can be trusted, and only then.

mod removal;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    APPROVAL, Answer, TestKms, base64, field_names, in_scope, in_tenant, text, with,
};

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn self_signed(params: CertificateParams) -> Certificate {
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate")
}

fn root() -> Certificate {
    self_signed(authority("root"))
}

/// An authority that another one signed.
fn intermediate() -> Certificate {
    let root_key = KeyPair::generate().expect("a key");
    let root = Issuer::new(authority("root"), root_key);
    let key = KeyPair::generate().expect("a key");
    let signed = authority("intermediate").signed_by(&key, &root);
    signed.expect("a certificate")
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn request(certificate: impl AsRef<[u8]>, anchor_type: &str) -> Value {
    in_scope(json!({ "certificate": base64(certificate), "anchor_type": anchor_type }))
}

async fn add(kms: &TestKms, body: &Value) -> Answer {
    kms.post("/kms/v1/trust-anchors", body).await
}

#[track_caller]
fn added(answer: &Answer) -> &Value {
    assert_eq!(answer.status, 201, "{}", answer.text);
    &answer.body
}

#[tokio::test]
async fn an_anchor_is_answered_with_what_it_is() {
    let kms = TestKms::start().await;
    for anchor_type in ["root", "internal_ca", "external_ca"] {
        for in_pem in [false, true] {
            let certificate = root();
            let body = match in_pem {
                false => request(certificate.der(), anchor_type),
                true => request(certificate.pem(), anchor_type),
            };
            let answer = add(&kms, &body).await;
            let anchor = added(&answer);
            assert_eq!(
                field_names(anchor),
                [
                    "anchor_type",
                    "fingerprint",
                    "not_after",
                    "receipt_id",
                    "subject",
                    "trust_anchor_id"
                ]
            );
            assert_eq!(anchor["anchor_type"], anchor_type);
            let fingerprint = hex(Sha256::digest(certificate.der()));
            assert_eq!(anchor["fingerprint"], fingerprint);
            let not_after: Result<Timestamp, _> = text(&anchor["not_after"]).parse();
            assert_eq!(not_after.ok(), "2100-01-01T00:00:00Z".parse().ok());
            assert!(text(&anchor["subject"]).contains("CN=root"));
            assert_eq!(text(&anchor["trust_anchor_id"]).len(), 36);
        }
    }
}

#[tokio::test]
async fn an_anchor_leaves_a_receipt_that_names_it() {
    let kms = TestKms::start().await;
    let answer = add(&kms, &request(root().der(), "root")).await;
    let anchor = added(&answer);
    let receipt = kms.receipt(&anchor["receipt_id"]).await.receipt;
    assert_eq!(receipt["operation"], "trust_anchor_updated");
    assert_eq!(
        receipt["kms_context"],
        json!({
            "key_id": anchor["trust_anchor_id"],
            "operation_type": "trust_anchor_add",
            "algorithm": null,
            "key_size_bits": null,
            "success": true,
            "error_code": null,
        })
    );
}

#[tokio::test]
async fn the_same_certificate_is_taken_once_in_whatever_form() {
    let kms = TestKms::start().await;
    let certificate = root();
    added(&add(&kms, &request(certificate.der(), "root")).await);
    for body in [
        request(certificate.der(), "root"),
        request(certificate.pem(), "root"),
        request(certificate.der(), "internal_ca"),
    ] {
        add(&kms, &body).await.refused_fields(&["certificate"]);
    }
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    let again = add(&kms, &request(certificate.der(), "root")).await;
    again.refused_fields(&["certificate"]);
}

#[tokio::test]
async fn each_compartment_has_anchors_of_its_own() {
    let kms = TestKms::start().await;
    let certificate = root();
    let body = request(certificate.der(), "root");
    added(&add(&kms, &body).await);
    let fields = json!({ "certificate": body["certificate"], "anchor_type": "root" });
    for elsewhere in [
        in_tenant("tenant124", fields.clone()),
        with(body.clone(), json!({ "environment": "dev" })),
        with(body.clone(), json!({ "plane": "shared" })),
    ] {
        added(&add(&kms, &elsewhere).await);
        let again = add(&kms, &elsewhere).await;
        again.refused_fields(&["certificate"]);
    }
}

#[tokio::test]
async fn an_intermediate_is_an_authority_and_no_root() {
    let kms = TestKms::start().await;
    for anchor_type in ["internal_ca", "external_ca"] {
        let body = request(intermediate().der(), anchor_type);
        added(&add(&kms, &body).await);
    }
    let as_root = add(&kms, &request(intermediate().der(), "root")).await;
    as_root.refused_fields(&["certificate"]);
}

#[tokio::test]
async fn what_cannot_be_trusted_is_refused_and_named() {
    let kms = TestKms::start().await;
    let mut leaf = authority("leaf");
    leaf.is_ca = IsCa::ExplicitNoCa;
    let mut no_constraints = authority("plain");
    no_constraints.is_ca = IsCa::NoCa;
    let mut cannot_sign = authority("cannot sign");
    cannot_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut expired = authority("expired");
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut not_yet_valid = authority("not yet");
    not_yet_valid.not_before = date_time_ymd(2099, 1, 1);
    for params in [leaf, no_constraints, cannot_sign, expired, not_yet_valid] {
        let certificate = self_signed(params);
        for anchor_type in ["root", "internal_ca", "external_ca"] {
            let answer = add(&kms, &request(certificate.der(), anchor_type)).await;
            answer.refused_fields(&["certificate"]);
        }
    }
}

#[tokio::test]
async fn what_is_not_one_certificate_is_refused_and_named() {
    let kms = TestKms::start().await;
    let certificate = root();
    let der = certificate.der().to_vec();
    let mut changed = der.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    let key = KeyPair::generate().expect("a key").serialize_pem();
    for bad in [
        Vec::new(),
        b"no certificate".to_vec(),
        der[..der.len() - 1].to_vec(),
        [der.as_slice(), &[0]].concat(),
        changed,
        format!("{}{}", certificate.pem(), certificate.pem()).into_bytes(),
        key.into_bytes(),
        b"-----BEGIN CERTIFICATE-----\n".to_vec(),
    ] {
        let answer = add(&kms, &request(bad, "root")).await;
        answer.refused_fields(&["certificate"]);
    }
    let mut body = request(&der, "root");
    body["certificate"] = json!(certificate.pem());
    add(&kms, &body).await.refused_fields(&["certificate"]);
}

#[tokio::test]
async fn another_kind_of_anchor_is_refused_by_name() {
    let kms = TestKms::start().await;
    let body = request(root().der(), "root");
    for wrong in [
        json!("ROOT"),
        json!("leaf"),
        json!(""),
        json!(1),
        json!(null),
    ] {
        let body = with(body.clone(), json!({ "anchor_type": wrong }));
        add(&kms, &body).await.refused_fields(&["anchor_type"]);
    }
    added(&add(&kms, &body).await);
}

#[tokio::test]
async fn a_second_person_is_asked_where_the_setting_says_so() {
    let settings = [("KMS__APPROVALS__OPERATIONS", "trust_anchor")];
    let kms = TestKms::start_with(&settings).await;
    let body = request(root().der(), "root");
    add(&kms, &body).await.refused(403, "UNAUTHORIZED");
    let short = with(body.clone(), json!({ "approval_token": "123456789" }));
    add(&kms, &short).await.refused(403, "UNAUTHORIZED");
    let approved = with(body, json!({ "approval_token": APPROVAL }));
    added(&add(&kms, &approved).await);
}
