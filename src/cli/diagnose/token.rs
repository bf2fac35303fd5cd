//! The token that keys are kept in, as `kms hsm check` looks at it.

use std::sync::mpsc;
use std::time::Duration;

use super::report::Report;
use crate::adapters::hsm::pkcs11::TokenName;
use crate::adapters::hsm::pkcs11::check::{Verdict, look as look_at_token};
use crate::config::Config;
use crate::domain::secret::SecretBytes;

const CHECK: &str = "hsm";

/// How long the whole look may take: it makes a key pair, which takes a slow token
/// seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// Looks at the token, where one is configured.
pub(super) fn look(config: &Config, report: &mut Report) {
    let Some(token) = config.hsm.pkcs11.token() else {
        return;
    };
    let (module, pin) = (
        token.module.to_owned(),
        SecretBytes::new(token.pin.expose().to_vec()),
    );
    let name = TokenName {
        label: token.label.to_owned(),
        serial: token.serial.map(str::to_owned),
    };
    let (answer, answered) = mpsc::channel();
    // A module that hangs keeps its thread, and not this command.
    std::thread::spawn(move || {
        let _ = answer.send(look_at_token(&module, &name, &pin));
    });
    let Ok(findings) = answered.recv_timeout(DEADLINE) else {
        report.bad(
            CHECK,
            format_args!("the token does not answer within {} s", DEADLINE.as_secs()),
            "see to the token and what leads to it; kms hsm check waits for it",
        );
        return;
    };
    for finding in findings {
        match finding.verdict {
            Verdict::Good => report.good(CHECK, finding.text),
            Verdict::Note => report.note(CHECK, finding.text),
            Verdict::Bad => report.bad(
                CHECK,
                finding.text,
                "set hsm.pkcs11 right, or see to the token; kms hsm check looks at it alone",
            ),
        }
    }
}
