use super::decode;
use crate::adapters::ledger::testing::verifier;

#[test]
fn a_bundle_is_read_back_and_nothing_but_a_bundle() {
    let bundle = [&[0, 3][..], b"abc", &[0, 0], &[0, 1], b"d"].concat();
    let leaves = decode::bundle(&bundle).expect("a bundle");
    assert_eq!(leaves, [b"abc".to_vec(), vec![], b"d".to_vec()]);
    assert_eq!(decode::bundle(b""), Some(vec![]));
    for length in 1..bundle.len() {
        let whole = [5, 7];
        let is_whole = whole.contains(&length);
        assert_eq!(decode::bundle(&bundle[..length]).is_some(), is_whole);
    }
}

#[test]
fn the_keys_are_read_in_order_and_under_the_ledgers_name() {
    let body = |key: &str| {
        format!(
            r#"{{"keys":[{{"verifier_key":"{}","from_size":0,"handover":null}},
                {{"verifier_key":"{key}","from_size":7,"handover":"a note"}}]}}"#,
            verifier(1)
        )
    };
    let keys = decode::keys(body(&verifier(2).to_string()).as_bytes()).expect("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].handover, None);
    assert_eq!(keys[1].public_key, *verifier(2).public_key());
    assert_eq!(keys[1].from_size, 7);
    assert_eq!(keys[1].handover.as_deref(), Some("a note"));
    let other = crate::domain::ledger::VerifierKey::new("other", [9; 32]).to_string();
    for key in [other.as_str(), "", "kms+00000000+AQ=="] {
        let fault = decode::keys(body(key).as_bytes()).expect_err("no key");
        assert!(fault.to_string().contains("key 1"), "{fault}");
    }
    for body in ["", "{}", "[]", r#"{"keys":[{}]}"#] {
        assert!(decode::keys(body.as_bytes()).is_err(), "{body}");
    }
}
