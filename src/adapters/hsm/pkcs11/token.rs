//! Which token: by its label and, where it is given, its serial. Slot numbers
//! change with every start of many modules and choose nothing.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::slot::{Limit, Slot, TokenInfo};

use super::fault::{CallFault, TokenError};

/// What a token is recognized by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenName {
    /// Its label, without the blanks that fill it up.
    pub label: String,
    /// Its serial number; any where it is not given.
    pub serial: Option<String>,
}

/// A token in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundToken {
    pub(super) slot: Slot,
    pub(super) label: String,
    pub(super) serial: String,
    /// How many sessions one process may have open with it, where it tells.
    pub(super) most_sessions: Option<u64>,
}

impl FoundToken {
    fn of(slot: Slot, info: &TokenInfo) -> Self {
        let limit = |limit| match limit {
            Limit::Max(most) => Some(most),
            Limit::Unavailable | Limit::Infinite => None,
        };
        let most_sessions = [info.max_session_count(), info.max_rw_session_count()]
            .into_iter()
            .filter_map(limit)
            .min();
        Self {
            slot,
            label: info.label().trim().to_owned(),
            serial: info.serial_number().trim().to_owned(),
            most_sessions,
        }
    }
}

/// Finds the one token of this name.
///
/// # Errors
/// [`CallFault::TokenAway`] when there is none, or more than one.
pub(super) fn find(pkcs11: &Pkcs11, name: &TokenName) -> Result<FoundToken, CallFault> {
    let tokens = initialized(pkcs11)?;
    choose(tokens, name).map_err(|why| CallFault::TokenAway(TokenError::Away(why)))
}

/// Every token that was initialized.
///
/// # Errors
/// As the module's.
pub(super) fn initialized(pkcs11: &Pkcs11) -> Result<Vec<FoundToken>, CallFault> {
    let mut tokens = Vec::new();
    for slot in pkcs11.get_slots_with_token()? {
        match pkcs11.get_token_info(slot) {
            Ok(info) if info.token_initialized() => tokens.push(FoundToken::of(slot, &info)),
            Ok(_) => {}
            // It left, or is none that the module reads, while others may be fine.
            Err(Error::Pkcs11(
                RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::DeviceRemoved,
                _,
            )) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tokens)
}

fn choose(tokens: Vec<FoundToken>, name: &TokenName) -> Result<FoundToken, String> {
    let is_meant = |token: &FoundToken| {
        token.label == name.label && name.serial.as_ref().is_none_or(|s| *s == token.serial)
    };
    let (mut meant, others): (Vec<_>, Vec<_>) = tokens.into_iter().partition(is_meant);
    match meant.len() {
        1 => Ok(meant.remove(0)),
        0 => Err(format!(
            "there is no {}; {}",
            wanted(name),
            listed("the tokens are", &others)
        )),
        _ => Err(format!(
            "more than one token is {}: {}; tell them apart with hsm.pkcs11.token_serial",
            wanted(name),
            listed("they are", &meant)
        )),
    }
}

fn wanted(name: &TokenName) -> String {
    match &name.serial {
        Some(serial) => format!("token labelled {:?} with serial {serial:?}", name.label),
        None => format!("token labelled {:?}", name.label),
    }
}

fn listed(intro: &str, tokens: &[FoundToken]) -> String {
    if tokens.is_empty() {
        return "the module has no initialized token".to_owned();
    }
    let each: Vec<String> = tokens
        .iter()
        .map(|token| format!("{:?} (serial {:?})", token.label, token.serial))
        .collect();
    format!("{intro} {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u64, label: &str, serial: &str) -> FoundToken {
        FoundToken {
            slot: Slot::try_from(slot).expect("a number"),
            label: label.to_owned(),
            serial: serial.to_owned(),
            most_sessions: None,
        }
    }

    fn name(label: &str, serial: Option<&str>) -> TokenName {
        TokenName {
            label: label.to_owned(),
            serial: serial.map(str::to_owned),
        }
    }

    #[test]
    fn the_one_with_the_label_is_chosen() {
        let tokens = vec![token(5, "kms", "1"), token(0, "other", "2")];
        let chosen = choose(tokens, &name("kms", None)).expect("one");
        assert_eq!(chosen.serial, "1");
    }

    #[test]
    fn two_of_one_label_are_listed_and_the_serial_decides() {
        let tokens = vec![token(5, "kms", "1"), token(6, "kms", "2")];
        let why = choose(tokens.clone(), &name("kms", None)).expect_err("two");
        for part in ["more than one", "\"1\"", "\"2\"", "hsm.pkcs11.token_serial"] {
            assert!(why.contains(part), "{part} in {why}");
        }
        let chosen = choose(tokens, &name("kms", Some("2"))).expect("one");
        assert_eq!(chosen.serial, "2");
    }

    #[test]
    fn the_serial_alone_is_not_enough_and_what_there_is_gets_listed() {
        let tokens = vec![token(5, "other", "1")];
        let why = choose(tokens, &name("kms", Some("1"))).expect_err("none");
        for part in ["no token labelled \"kms\"", "\"other\""] {
            assert!(why.contains(part), "{part} in {why}");
        }
        let why = choose(Vec::new(), &name("kms", None)).expect_err("none");
        assert!(why.contains("no initialized token"), "{why}");
    }
}
