//! `kms completions`, loaded by the shells.

use std::process::Command;

use crate::support::desk::{Desk, Done};

/// What follows `kms key`.
const COMMANDS: [&str; 6] = ["generate", "list", "show", "rotate", "revoke", "restore"];

/// What a shell makes of the script and these commands.
fn in_shell(shell: &str, desk: &Desk, commands: &str) -> Done {
    let ended = Command::new(shell)
        .args(["-c", commands])
        .current_dir(desk.path(""))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", desk.path(""))
        .output();
    ended.expect("the shell runs").into()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let desk = Desk::bare();
    desk.put("kms.bash", desk.run(&["completions", "bash"]).ok());
    let script = "set -eu; source kms.bash; complete -p kms\n\
         try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
         _kms kms \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
         echo \"${COMPREPLY[@]}\"; }\n\
         try kms key ''\ntry kms key list --st\ntry kms completions ''\ntry kms enc\n\
         try kms key revoke alias/a --reason ''\n";
    let completed = in_shell("bash", &desk, script);
    assert_eq!(completed.code, Some(0), "{completed:?}");
    assert_eq!(completed.stderr, "");
    let lines: Vec<&str> = completed.stdout.lines().collect();
    assert!(
        lines[0].contains("-F _kms") && lines[0].ends_with(" kms"),
        "{lines:?}"
    );
    for command in COMMANDS {
        assert!(lines[1].split(' ').any(|word| word == command), "{lines:?}");
    }
    assert_eq!(lines[2], "--state");
    assert!(lines[3].contains("bash zsh fish"), "{lines:?}");
    assert_eq!(lines[4], "encrypt");
    assert_eq!(lines[5], "compromised retired policy_violation");
}

#[test]
fn fish_completes_commands_and_flags() {
    let desk = Desk::bare();
    desk.put("kms.fish", desk.run(&["completions", "fish"]).ok());
    let script = "source kms.fish\n\
         complete -C 'kms key '; echo DONE\ncomplete -C 'kms key list --st'; echo DONE\n\
         complete -C 'kms enc'\n";
    let completed = in_shell("fish", &desk, script);
    assert_eq!(completed.code, Some(0), "{completed:?}");
    assert_eq!(completed.stderr, "");
    let answers: Vec<&str> = completed.stdout.split("DONE\n").collect();
    for command in COMMANDS {
        let is_there = answers[0].lines().any(|line| line.starts_with(command));
        assert!(is_there, "{command}: {completed:?}");
    }
    assert!(answers[1].starts_with("--state\t"), "{completed:?}");
    assert!(answers[2].starts_with("encrypt\t"), "{completed:?}");
}

/// In a terminal of its own, as completion is only there.
#[test]
fn zsh_completes_commands_flags_and_values() {
    let desk = Desk::bare();
    desk.put("_kms", desk.run(&["completions", "zsh"]).ok());
    let script = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D
            bindkey "^I" list-choices; PS1="READ""Y> "'
        for begun in 'kms key ' 'kms key list --st' 'kms completions ' 'kms enc'; do
            # What is typed before the prompt is not edited.
            zpty -r shell said '*READY> *' || exit 1
            zpty -w -n shell "$begun"$'\t\C-u echo DO""NE\n'
            zpty -r shell said '*DONE*' || exit 1
            print -r -- $said
        done
    "#;
    let completed = in_shell("zsh", &desk, script);
    assert_eq!(completed.code, Some(0), "{completed:?}");
    let answers: Vec<&str> = completed.stdout.split("DONE").collect();
    for command in COMMANDS {
        assert!(answers[0].contains(command), "{command}: {completed:?}");
    }
    assert!(answers[1].contains("--state  -- Only"), "{completed:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(answers[2].contains(shell), "{completed:?}");
    }
    assert!(answers[3].contains("encrypt  -- "), "{completed:?}");
}

#[test]
fn another_shell_has_no_script() {
    let desk = Desk::bare();
    desk.run(&["completions", "elvish"])
        .failed(2, "bash, zsh, fish");
}
