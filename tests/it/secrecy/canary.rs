//! Finding what must not be found, in every spelling.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Something that must not be found, and every spelling of it.
pub(super) struct Canary {
    what: String,
    spellings: Vec<Vec<u8>>,
}

impl Canary {
    pub(super) fn new(what: impl Into<String>, secret: &[u8]) -> Self {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{secret:?}");
        let list = list.trim_matches(['[', ']']);
        let mut spellings = vec![
            secret.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            list.as_bytes().to_vec(),
            list.replace(' ', "").into_bytes(),
        ];
        // Whatever stands before it in the same text shifts the groups of base64.
        for shift in 0..3 {
            let shifted = [&vec![0; shift][..], secret].concat();
            for text in [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                let text = text.trim_end_matches('=');
                let start = if shift == 0 { 0 } else { 4 };
                // The last digit also depends on what comes after.
                spellings.push(text.as_bytes()[start..text.len() - 3].to_vec());
            }
        }
        let what = what.into();
        assert!(
            spellings.iter().all(|spelling| spelling.len() > 8),
            "{what}"
        );
        Self { what, spellings }
    }

    fn is_in(&self, place: &[u8]) -> bool {
        self.spellings
            .iter()
            .any(|spelling| contains(place, spelling))
    }
}

pub(super) fn contains(place: &[u8], what: &[u8]) -> bool {
    // First by one byte, which is fast even without optimization.
    place
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == what[0] && place[at..].starts_with(what))
}

#[track_caller]
pub(super) fn assert_not_in(canaries: &[Canary], name: &str, place: &[u8]) {
    for canary in canaries {
        assert!(!canary.is_in(place), "{} is in {name}", canary.what);
    }
}

/// Every file of a folder but these.
pub(super) fn files(folder: &Path, but: &[&str]) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names
        .filter(|name| !but.contains(&name.as_str()))
        .map(|name| {
            let content = std::fs::read(folder.join(&name)).expect("readable");
            (name, content)
        })
        .collect()
}

/// How private keys begin in PKCS#8 (RFC 5958, RFC 8410) and PKCS#1 (RFC 8017),
/// in DER, and how every PEM of one is headed.
fn private_key_marks() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "Ed25519 in PKCS#8",
            b"\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec(),
        ),
        (
            "RSA in PKCS#8",
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x82".to_vec(),
        ),
        (
            "RSA in PKCS#1",
            b"\x02\x01\x00\x02\x82\x01\x01\x00".to_vec(),
        ),
        ("Ed25519 in base64", b"AwBQYDK2VwBCIEI".to_vec()),
        ("RSA in base64", b"ADANBgkqhkiG9w0BAQEFAASC".to_vec()),
        ("a PEM", b"PRIVATE KEY".to_vec()),
    ]
}

#[track_caller]
pub(super) fn assert_no_private_key_in(name: &str, place: &[u8]) {
    for (what, mark) in private_key_marks() {
        assert!(!contains(place, &mark), "{what} is in {name}");
    }
}

#[test]
fn every_spelling_of_a_canary_is_recognized() {
    let secret = b"a canary of twenty-eight byte";
    let canary = Canary::new("it", secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02X}")).collect();
    for text in [
        format!("x {}", String::from_utf8_lossy(secret)),
        format!("{:?}", secret.to_vec()),
        format!("{:?}", [b"Bearer ", &secret[..], b" and more"].concat()),
        hex.to_lowercase(),
        hex,
        STANDARD.encode(secret),
        STANDARD.encode([b"Bearer ", &secret[..], b" more"].concat()),
        STANDARD.encode([b"12345678", &secret[..], b"!"].concat()),
        URL_SAFE_NO_PAD.encode([b"123456789", &secret[..], b"more"].concat()),
    ] {
        assert!(canary.is_in(text.as_bytes()), "{text}");
    }
    assert!(!canary.is_in(b"a canary of another kind"));
}

#[test]
fn private_keys_are_recognized() {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().expect("a key");
    let ed25519 = ed25519.to_pkcs8v1().expect("DER");
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().expect("DER");
    let marked = |der: &[u8]| -> Vec<&str> {
        let place = [der, STANDARD.encode(der).as_bytes()].concat();
        private_key_marks()
            .into_iter()
            .filter(|(_, mark)| contains(&place, mark))
            .map(|(what, _)| what)
            .collect()
    };
    assert_eq!(
        marked(ed25519.as_ref()),
        ["Ed25519 in PKCS#8", "Ed25519 in base64"]
    );
    assert_eq!(
        marked(rsa.as_ref()),
        ["RSA in PKCS#8", "RSA in PKCS#1", "RSA in base64"]
    );
}
