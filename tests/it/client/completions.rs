//! `kms completions`, loaded by the shells that are there.

use std::process::Command;

use crate::support::desk::{Desk, Done};

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
         try kms key ''\ntry kms key list --st\ntry kms completions ''\ntry kms enc\n";
    let completed = in_shell("bash", &desk, script);
    assert_eq!(completed.code, Some(0), "{completed:?}");
    assert_eq!(completed.stderr, "");
    let lines: Vec<&str> = completed.stdout.lines().collect();
    assert!(
        lines[0].contains("-F _kms") && lines[0].ends_with(" kms"),
        "{lines:?}"
    );
    for command in ["generate", "list", "show", "rotate", "revoke", "restore"] {
        assert!(lines[1].split(' ').any(|word| word == command), "{lines:?}");
    }
    assert_eq!(lines[2], "--state");
    assert!(lines[3].contains("bash zsh fish"), "{lines:?}");
    assert_eq!(lines[4], "encrypt");
}

#[test]
fn the_other_shells_read_their_scripts() {
    let desk = Desk::bare();
    for (shell, check) in [
        ("zsh", "zsh -n kms.zsh"),
        ("fish", "fish --no-execute kms.fish"),
    ] {
        let script = desk.run(&["completions", shell]);
        assert!(script.ok().contains("restore"), "{shell}");
        desk.put(&format!("kms.{shell}"), &script.bytes);
        let is_there = in_shell("sh", &desk, &format!("command -v {shell}"));
        if is_there.code == Some(0) {
            let read = in_shell("sh", &desk, check);
            assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""), "{shell}");
        }
    }
    desk.run(&["completions", "elvish"])
        .failed(2, "bash, zsh, fish");
}
