//! `kms check-config`: prints the configuration in effect, or what is wrong with it.
//!
//! It knows where each goes and the exit code, and no setting.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::FAULTY_CONFIGURATION;
use crate::config::{Config, Source};

/// Loads the configuration of this process and prints it with secrets masked.
/// Warnings and faults go to standard error; a fault exits with 64, and an
/// output that can't be written with 1.
pub fn run(config_dir: Option<PathBuf>) -> ExitCode {
    let source = Source::from_process(config_dir);
    check(
        &source,
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    )
    .unwrap_or(ExitCode::FAILURE)
}

fn check(
    source: &Source,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> std::io::Result<ExitCode> {
    match Config::load(source) {
        Ok(loaded) => {
            for warning in loaded.config.warnings() {
                writeln!(stderr, "warning: {warning}")?;
            }
            write!(stdout, "{}", loaded.effective)?;
            stdout.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            writeln!(stderr, "{faults}")?;
            Ok(ExitCode::from(FAULTY_CONFIGURATION))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_with(variables: &[(&str, &str)]) -> (ExitCode, String, String) {
        let source = Source {
            environment: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            directory: None,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = check(&source, &mut stdout, &mut stderr).expect("writing to memory");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(stdout), text(stderr))
    }

    #[test]
    fn a_sound_configuration_is_printed_and_nothing_else() {
        let (code, stdout, stderr) = run_with(&[]);
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(stdout.contains("server.listen = \"127.0.0.1:8002\"  # default\n"));
        assert_eq!(stderr, "");
    }

    #[test]
    fn warnings_stay_out_of_what_is_printed() {
        let (code, stdout, stderr) = run_with(&[("HSM_ENDPOINT", "token.so")]);
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(stdout.contains("hsm.pkcs11.module = \"token.so\"  # HSM_ENDPOINT\n"));
        assert!(stderr.starts_with("warning: hsm.pkcs11.module"));
    }

    #[test]
    fn a_fault_exits_with_64_and_prints_no_configuration() {
        let (code, stdout, stderr) = run_with(&[("KMS__SERVER__LISTEN", "nowhere")]);
        assert_eq!(code, ExitCode::from(64));
        assert_eq!(stdout, "");
        assert!(stderr.contains("server.listen (KMS__SERVER__LISTEN)"));
    }
}
