//! The Dockerfile: nothing is missing that the build needs, and what ends in the image is
//! what the service needs. Nothing here builds it, which takes a daemon.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::manifests::tool;
use crate::support::tools::{in_project, passes, project, read, run};
use crate::support::{KmsProcess, eventually};

/// The instructions, each with its arguments, line by line as they are continued.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("an instruction"))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// The arguments of every instruction of this name.
fn all(name: &str) -> Vec<String> {
    let found = instructions().into_iter().filter(|(one, _)| one == name);
    found.map(|(_, arguments)| arguments).collect()
}

/// The arguments of the only instruction of this name.
fn only(name: &str) -> String {
    let mut found = all(name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// An instruction in the form that takes no shell.
fn exec_form(arguments: &str) -> Vec<String> {
    serde_json::from_str(arguments).unwrap_or_else(|_| panic!("not the exec form: {arguments}"))
}

/// What is copied from the project into the image that builds.
fn copied() -> Vec<String> {
    let all = instructions();
    let stages: Vec<usize> = (0..all.len())
        .filter(|place| all[*place].0 == "FROM")
        .collect();
    assert_eq!(stages.len(), 2, "{all:?}");
    let first = all[..stages[1]].iter().filter(|(name, _)| name == "COPY");
    first
        .flat_map(|(_, arguments)| {
            let mut words: Vec<&str> = arguments.split_whitespace().collect();
            words.pop();
            words.into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn hadolint_finds_nothing_wrong() {
    let said = passes(".", &tool("hadolint"), &["Dockerfile"]);
    assert_eq!(said, "");
    assert!(!read("Dockerfile").contains("hadolint ignore"));
}

#[test]
fn everything_that_is_copied_is_there_and_let_in() {
    let ignored = read(".dockerignore");
    let let_in: BTreeSet<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(ignored.lines().any(|line| line == "*"), "{ignored}");
    let copied = copied();
    for source in &copied {
        assert!(in_project(source).exists(), "{source}");
        assert!(let_in.contains(source.as_str()), "{source} is ignored");
    }
    let copied: BTreeSet<&str> = copied.iter().map(String::as_str).collect();
    assert_eq!(copied, let_in);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    found
}

/// A path without `..` in it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{}", path.display()),
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_file_that_the_sources_take_in_is_copied() {
    let copied = copied();
    let mut taken_in = 0;
    for source in sources(&in_project("src")) {
        let text = std::fs::read_to_string(&source).expect("read");
        for name in ["include_str!(\"", "include_bytes!(\"", "#[path = \""] {
            for rest in text.split(name).skip(1) {
                let (path, _) = rest.split_once('"').expect("closed");
                let path = plain(&source.parent().expect("a folder").join(path));
                assert!(path.exists(), "{}", path.display());
                let within = path.strip_prefix(project()).expect("within the project");
                let is_copied = copied.iter().any(|copied| within.starts_with(copied));
                assert!(is_copied, "{} of {}", within.display(), source.display());
                taken_in += 1;
            }
        }
    }
    assert!(taken_in >= 8, "{taken_in}");
}

#[test]
fn the_first_layer_is_a_package_of_which_the_lock_file_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(in_project(name), folder.path().join(name)).expect("copied");
    }
    let steps = all("RUN");
    // As far as cargo comes in.
    let (empty_program, cargo) = steps[0].split_once("&& cargo fetch").expect("a fetch");
    let mut shell = Command::new("/bin/sh");
    let made = shell
        .args(["-ec", empty_program])
        .current_dir(folder.path())
        .status();
    assert!(made.expect("a shell runs").success());
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "metadata",
        "--locked",
        "--offline",
        "--format-version",
        "1",
        "--manifest-path",
    ]);
    let ended = run(".", command.arg(folder.path().join("Cargo.toml")), "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let metadata: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let own = packages
        .iter()
        .find(|package| package["name"] == "kms")
        .expect("ours");
    for target in own["targets"].as_array().expect("targets") {
        let path = target["src_path"].as_str().expect("a path");
        assert!(Path::new(path).exists(), "{path}");
    }
    // After the fetch nothing comes from anywhere, and nothing but what is locked.
    for step in [cargo, &steps[1]] {
        assert_eq!(step.matches("cargo build").count(), 1, "{step}");
        assert!(step.contains("cargo build --frozen --release"), "{step}");
    }
    assert!(cargo.trim_start().starts_with("--locked"), "{cargo}");
    let toolchain = format!(
        "FROM rust:{}-",
        own["rust_version"].as_str().expect("a version")
    );
    assert!(read("Dockerfile").contains(&toolchain), "{toolchain}");
}

#[test]
fn the_image_has_no_shell_and_the_service_no_rights() {
    let last = all("FROM").pop().expect("a stage");
    assert_eq!(last, "gcr.io/distroless/cc-debian12:nonroot");
    let (user, group) = only("USER")
        .split_once(':')
        .map(|(u, g)| (u.to_owned(), g.to_owned()))
        .expect("both");
    for number in [&user, &group] {
        assert_ne!(number.parse::<u32>().expect("a number"), 0);
    }
    assert_eq!(only("STOPSIGNAL"), "SIGTERM");
    let volume = exec_form(&only("VOLUME")).remove(0);
    // A variable of the image would count more than the files that are mounted. What is
    // written goes below the folder it starts in.
    assert_eq!(all("ENV"), Vec::<String>::new());
    assert_eq!(all("WORKDIR").last(), Some(&volume));
    assert!(read("config/default.toml").contains("\ndata_dir = \"data\"\n"));
    let owned = format!("--chown={user}:{group} /out{volume} {volume}");
    assert!(
        all("COPY").iter().any(|copy| copy.ends_with(&owned)),
        "{owned}"
    );
}

/// The image brings the C library and what GCC's code needs.
#[test]
fn the_binary_needs_no_library_that_the_image_lacks() {
    let listed = passes(".", "ldd", &[env!("CARGO_BIN_EXE_kms")]);
    let names: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.rsplit('/').next())
        .collect();
    let there = [
        "linux-vdso.so.1",
        "libgcc_s.so.1",
        "libm.so.6",
        "libc.so.6",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    ];
    for name in &names {
        assert!(there.contains(name), "{name}: {listed}");
    }
    assert!(names.contains("libc.so.6"), "{listed}");
}

#[tokio::test]
async fn what_the_image_runs_and_checks_itself_with_are_commands_of_the_binary() {
    let entrypoint = exec_form(&only("ENTRYPOINT"));
    let checking = only("HEALTHCHECK");
    let (_, checking) = checking.split_once("CMD ").expect("a command");
    let checking = exec_form(checking);
    let binary = "/usr/local/bin/kms";
    assert_eq!(
        (entrypoint[0].as_str(), checking[0].as_str()),
        (binary, binary)
    );
    // The image has the project's settings where both look for them.
    let settings = in_project("config");
    let here = |arguments: &[String]| -> Vec<String> {
        assert_eq!(arguments[1..3], ["--config", "/etc/kms"]);
        let config = settings.to_str().expect("UTF-8").to_owned();
        let rest = arguments[3..].iter().cloned();
        ["--config".to_owned(), config]
            .into_iter()
            .chain(rest)
            .collect()
    };
    let mut serve = here(&entrypoint);
    serve.extend(exec_form(&only("CMD")));
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    let check = here(&checking);
    let check: Vec<&str> = check.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start_as(folder.path(), &serve, &[]);
    let operations = kms
        .operations()
        .expect("an operations listener")
        .to_string();
    let listening = [("KMS__SERVER__OPS_LISTEN", operations.as_str())];
    eventually("a good health", || async {
        let checked = KmsProcess::run(folder.path(), &check, &listening);
        (checked.code == Some(0)).then_some(())
    })
    .await;
    kms.stop();
    let checked = KmsProcess::run(folder.path(), &check, &listening);
    assert_eq!(checked.code, Some(1), "{checked:?}");
}
