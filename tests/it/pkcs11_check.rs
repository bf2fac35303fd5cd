//! `kms hsm check`: each thing that can be wrong with a token, in words, with an
//! exit code, and nothing left behind.

use crate::support::token::{LABEL, PIN, TokenFolder};
use crate::support::{Ended, TokenService};

fn check(service: &TokenService, others: &[(&str, &str)]) -> Ended {
    service.run(&["hsm", "check"], others)
}

#[track_caller]
fn says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.output());
    for words in words {
        let output = ended.output();
        assert!(output.contains(words), "{words:?} is not in {output}");
    }
}

#[test]
fn a_good_token_is_good_and_keeps_nothing_of_the_check() {
    let service = TokenService::new();
    let ended = check(&service, &[]);
    let words = [
        "SoftHSM",
        "token \"kms-tests\", serial",
        "RSA-PSS-SHA256: CKM_SHA256_RSA_PKCS_PSS",
        "login: the PIN opens the token",
        "RSA-2048: made, used with RSA-PSS-SHA256 and RSA-PKCS1v15-SHA256",
        "Ed25519: made, used with Ed25519",
        "AES-256: made, used with AES-256-GCM",
        "AES-256: destroyed again",
        "the token can serve\n",
    ];
    says(&ended, 0, &words);
    assert!(!ended.output().contains("FAIL"), "{}", ended.output());
    assert_eq!(service.listed(), Vec::<String>::new());
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let service = TokenService::new();
    service.token.fail(&["count=C_Login"]);
    let wrong = "0815-4711";
    let ended = check(&service, &[("KMS__HSM__PKCS11__PIN", wrong)]);
    let words = [
        "the token does not take the PIN (C_Login returned CKR_PIN_INCORRECT)",
        "it was tried once",
        "1 thing has to be mended",
    ];
    says(&ended, 1, &words);
    assert!(!ended.output().contains(wrong), "{}", ended.output());
    assert_eq!(service.counted("C_Login"), 1);
}

#[test]
fn a_label_that_no_token_has_is_told_with_those_that_there_are() {
    let service = TokenService::new();
    let ended = check(&service, &[("KMS__HSM__PKCS11__TOKEN_LABEL", "other")]);
    let words = [
        "there is no token labelled \"other\"",
        "\"kms-tests\" (serial ",
        "the rest cannot be checked before this is mended",
    ];
    says(&ended, 1, &words);
}

#[test]
fn of_two_tokens_with_one_label_the_serial_chooses() {
    let service = TokenService::new();
    service.token.add_token(LABEL);
    let ended = check(&service, &[]);
    says(
        &ended,
        1,
        &["more than one token", "hsm.pkcs11.token_serial"],
    );
    let output = ended.output();
    let told = output.lines().find(|line| line.contains("more than one"));
    let serials: Vec<&str> = told
        .expect("the finding")
        .split("(serial \"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(serial, _)| serial)
        .collect();
    assert_eq!(serials.len(), 2, "{output}");
    for serial in serials {
        let chosen = check(&service, &[("KMS__HSM__PKCS11__TOKEN_SERIAL", serial)]);
        let words = format!("chosen: token \"kms-tests\", serial \"{serial}\"");
        says(&chosen, 0, &[&words]);
    }
    let none = check(&service, &[("KMS__HSM__PKCS11__TOKEN_SERIAL", "0000")]);
    says(&none, 1, &["with serial \"0000\""]);
}

#[test]
fn a_module_that_is_not_there_or_none_is_told_by_its_path() {
    let service = TokenService::new();
    let text = service.data.path().join("text.so");
    std::fs::write(&text, "no library").expect("written");
    for module in ["/nowhere/module.so", text.to_str().expect("UTF-8")] {
        let ended = check(&service, &[("KMS__HSM__PKCS11__MODULE", module)]);
        says(&ended, 1, &[module, "cannot be loaded"]);
    }
}

#[test]
fn a_module_without_a_token_says_so() {
    let service = TokenService::on(TokenFolder::without_token());
    let ended = check(&service, &[]);
    says(&ended, 1, &["there is no token", "no initialized token"]);
}

#[test]
fn a_mechanism_that_is_missing_is_a_note_with_what_is_not_on_offer() {
    let service = TokenService::new();
    service.token.fail(&["hide=0x1087"]);
    let ended = check(&service, &[]);
    let words = [
        "AES-256-GCM: not on offer, the token has no CKM_AES_GCM",
        "AES-256: such keys cannot be made in this token",
        "Ed25519: made, used with Ed25519",
        "the token can serve\n",
    ];
    says(&ended, 0, &words);
}

#[test]
fn a_round_trip_that_fails_is_told_with_the_call_that_did() {
    let service = TokenService::new();
    service.token.fail(&["C_Encrypt=0x30"]);
    let ended = check(&service, &[]);
    let words = [
        "FAIL  AES-256: C_Encrypt returned CKR_DEVICE_ERROR",
        "Ed25519: made, used with Ed25519",
        "1 thing has to be mended",
    ];
    says(&ended, 1, &words);
    service.token.heal();
    assert_eq!(service.listed(), Vec::<String>::new());
}

#[test]
fn a_configuration_that_names_no_token_is_a_faulty_one() {
    let service = TokenService::new();
    let ended = check(
        &service,
        &[
            ("KMS__HSM__BACKEND", "software"),
            ("KMS__HSM__PKCS11__MODULE", ""),
            ("KMS__HSM__PKCS11__PIN", ""),
            ("KMS__HSM__PKCS11__TOKEN_LABEL", ""),
        ],
    );
    says(&ended, 64, &["no token is configured", "hsm.pkcs11.module"]);
    let ended = check(&service, &[("KMS__HSM__PKCS11__PIN", "")]);
    says(&ended, 64, &["hsm.pkcs11.pin"]);
    assert!(!ended.output().contains(PIN));
}
