//! `kms hsm check`: whether the configured token can serve, in words.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::adapters::hsm::pkcs11::TokenName;
use crate::adapters::hsm::pkcs11::check::{Finding, Verdict, look};
use crate::cli::FAULTY_CONFIGURATION;
use crate::config::{Config, Source};

/// Prints what it finds. Exits with 0 when the token can serve, 1 when something has
/// to be mended, 64 for a faulty configuration or one that names no token.
pub(super) fn run(config_dir: Option<PathBuf>) -> ExitCode {
    let config = match Config::load(&Source::from_process(config_dir)) {
        Ok(loaded) => loaded.config,
        Err(faults) => return faulty(&faults.to_string()),
    };
    let Some(token) = config.hsm.pkcs11.token() else {
        return faulty(
            "no token is configured: set hsm.pkcs11.module (HSM_ENDPOINT), hsm.pkcs11.token_label \
             and hsm.pkcs11.pin (HSM_CREDENTIALS)",
        );
    };
    let name = TokenName {
        label: token.label.to_owned(),
        serial: token.serial.map(str::to_owned),
    };
    let findings = look(token.module, &name, token.pin);
    match print(&mut io::stdout().lock(), &findings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn faulty(what: &str) -> ExitCode {
    // If even standard error is gone, the exit code is left.
    let _ = writeln!(io::stderr(), "{what}");
    ExitCode::from(FAULTY_CONFIGURATION)
}

/// Prints the findings; whether all of it is well.
fn print(out: &mut impl Write, findings: &[Finding]) -> io::Result<bool> {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok   ",
            Verdict::Note => "note ",
            Verdict::Bad => "FAIL ",
        };
        writeln!(out, "{mark} {}", finding.text)?;
    }
    let bad = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad)
        .count();
    match bad {
        0 => writeln!(out, "the token can serve")?,
        1 => writeln!(out, "the token cannot serve: 1 thing has to be mended")?,
        _ => writeln!(
            out,
            "the token cannot serve: {bad} things have to be mended"
        )?,
    }
    Ok(bad == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_finding_is_enough() {
        let finding = |verdict| Finding {
            verdict,
            text: "something".to_owned(),
        };
        let mut text = Vec::new();
        let good = [finding(Verdict::Good), finding(Verdict::Note)];
        assert!(print(&mut text, &good).expect("written"));
        let bad = [finding(Verdict::Good), finding(Verdict::Bad)];
        assert!(!print(&mut text, &bad).expect("written"));
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("the token can serve\n"));
        assert!(text.contains("FAIL  something"));
        assert!(text.ends_with("1 thing has to be mended\n"));
    }
}
