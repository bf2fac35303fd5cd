//! `kms completions`: what a shell completes of a command line.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::generate;

use super::fault::{Fault, exit};

/// The shells there are scripts for.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(super) fn run(shell: Shell) -> ExitCode {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Collected first: the generator panics where standard output is gone.
    let mut script = Vec::new();
    generate(shell, &mut super::Arguments::command(), "kms", &mut script);
    let mut stdout = io::stdout().lock();
    exit(
        io::Write::write_all(&mut stdout, &script)
            .and_then(|()| io::Write::flush(&mut stdout))
            .map_err(Fault::from),
    )
}
