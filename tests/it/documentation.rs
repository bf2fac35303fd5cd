//! The commands in the documentation, run as they stand: each page in a shell and a
//! folder of its own, block by block.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Blocks of commands begin with this; those that need a cluster, a root or a browser
/// are `text` and are not run.
const BEGIN: &str = "```sh\n";

/// The longest that a page may take, in seconds.
const DEADLINE: &str = "240";

/// The pages with commands, and the ports that their services get instead of 8002 and
/// 9002: below those that the kernel gives to others.
const PAGES: &[(&str, u16)] = &[
    ("README.md", 18_210),
    ("docs/configuration.md", 18_220),
    ("docs/evidence.md", 18_230),
    ("docs/operations.md", 18_240),
    ("docs/commands.md", 18_250),
];

/// This one is run by `api_page.rs`, which looks at each answer, too.
const RUN_ELSEWHERE: &str = "docs/api.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of a page, each block behind a line that names it.
fn commands(page: &str) -> String {
    let text = fs::read_to_string(root().join(page)).expect("readable");
    let mut commands = String::new();
    let mut rest = text.as_str();
    while let Some(begin) = rest.find(BEGIN) {
        rest = &rest[begin + BEGIN.len()..];
        let end = rest.find("```").expect("the block ends");
        let line = text[..text.len() - rest.len()].lines().count() + 1;
        commands.push_str(&format!("echo '== {page}:{line}'\n{}", &rest[..end]));
        rest = &rest[end..];
    }
    commands
}

fn run(page: &str) {
    let (_, port) = PAGES
        .iter()
        .find(|(name, _)| *name == page)
        .expect("a page with commands");
    let (api, ops) = (*port, port + 1);
    let commands = commands(page)
        .replace(":8002", &format!(":{api}"))
        .replace(":9002", &format!(":{ops}"));
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("tokens")).expect("a folder");
    let tokens = folder.path().join("tokens");
    let softhsm = folder.path().join("softhsm2.conf");
    fs::write(
        &softhsm,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .expect("written");
    let script = folder.path().join("commands.sh");
    let script_text = format!(
        "set -euo pipefail\nexec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}"
    );
    fs::write(&script, script_text).expect("written");
    let binary = Path::new(env!("CARGO_BIN_EXE_kms"));
    let path = format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        binary.parent().expect("a folder").display()
    );
    let ended = Command::new("timeout")
        .args([DEADLINE, "bash"])
        .arg(&script)
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder.path())
        .env("SOFTHSM2_CONF", &softhsm)
        .env("KMS__SERVER__LISTEN", format!("127.0.0.1:{api}"))
        .env("KMS__SERVER__OPS_LISTEN", format!("127.0.0.1:{ops}"))
        .output()
        .expect("a shell runs");
    let said = String::from_utf8_lossy(&ended.stdout);
    let last: Vec<&str> = said.lines().rev().take(40).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    assert!(
        ended.status.success(),
        "{page}: {}\n{}",
        ended.status,
        last.join("\n")
    );
    let blocks = commands.matches("echo '== ").count();
    let begun = said.matches(&format!("== {page}:")).count();
    assert_eq!(begun, blocks, "every block was begun");
}

#[test]
fn the_readme_can_be_followed() {
    run("README.md");
}

#[test]
fn the_commands_of_the_configuration_work() {
    run("docs/configuration.md");
}

#[test]
fn the_commands_for_auditors_work() {
    run("docs/evidence.md");
}

#[test]
fn the_commands_for_operators_work() {
    run("docs/operations.md");
}

#[test]
fn the_commands_of_the_client_work() {
    run("docs/commands.md");
}

/// Every page, the README first.
fn pages() -> Vec<PathBuf> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    pages.extend(files("docs").into_iter().filter(is_page));
    pages
}

#[test]
fn every_page_with_commands_is_run() {
    for page in pages() {
        let name = page
            .strip_prefix(root())
            .expect("below")
            .display()
            .to_string();
        let has_commands = fs::read_to_string(&page).expect("readable").contains(BEGIN);
        let is_run = name == RUN_ELSEWHERE || PAGES.iter().any(|(run, _)| *run == name);
        assert_eq!(has_commands, is_run, "{name}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("readable");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).expect("a page");
                let headings: Vec<String> = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(anchor_of)
                    .collect();
                let is_there = headings.iter().any(|anchor| anchor == heading);
                assert!(
                    is_there,
                    "{}: {link} is none of {headings:?}",
                    page.display()
                );
            }
        }
    }
}

/// Every file below a folder of the project.
fn files(below: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join(below)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

/// A page that names a file of the code names one that is there: the tests behind a
/// threat, the home of a decision.
#[test]
fn what_pages_say_of_files_is_so() {
    let files: Vec<PathBuf> = ["src", "tests", "benches", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|folder| files(folder))
        .collect();
    let mut named = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("readable");
        for word in text.split('`').filter(|word| word.ends_with(".rs")) {
            let is_there = files.iter().any(|file| file.ends_with(word));
            assert!(is_there, "{}: {word}", page.display());
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}

/// What the usual renderers make of a heading.
fn anchor_of(line: &str) -> String {
    line.trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}
