//! `scripts/quickstart`, where the environment has settings for something else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Every variable that a runner heeds, as the documentation lists them.
fn variables() -> Vec<&'static str> {
    let page = include_str!("../../../docs/configuration.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.split('`').nth(3))
        .filter(|name| {
            let is_upper = |it: char| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_';
            name.chars().all(is_upper)
        })
        .collect()
}

#[test]
fn nothing_that_is_configured_reaches_the_runner() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let program = |path: &Path, body: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    };
    // Builds nothing, and what it would have built tells what it was given.
    program(&place("bin/cargo"), "exit 0");
    fs::create_dir(place("seen")).unwrap();
    let runner = format!(
        "env > {}/$$\ncase \"$*\" in *' serve '*) exit 1 ;; *create*) echo the-install ;; esac",
        place("seen").display()
    );
    program(&place("target/debug/alga-runner"), &runner);

    let mut variables = variables();
    for known in [
        "DATABASE_URL",
        "DATABASE_DIRECT_URL",
        "STORAGE_S3_BUCKET",
        "STORAGE_S3_SECRET_KEY_FILE",
        "STORAGE_API_BASE_URL",
        "RUNNER_STORAGE_API_TOKEN",
        "ALGA_SERVER",
    ] {
        assert!(variables.contains(&known), "{known}: {variables:?}");
    }
    // One that an older or newer release may have.
    variables.push("ALGA_SOMETHING_ELSE");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/quickstart");
    let output = Command::new("bash")
        .args([
            "-c",
            r#"PATH="$1:$PATH" exec "$2" --once --data-dir "$3""#,
            "bash",
        ])
        .args([&place("bin"), &script, &place("data")])
        .envs(variables.iter().map(|name| (*name, "for something else")))
        .env("CARGO_TARGET_DIR", place("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the runner did not start"), "{said}");

    let mut calls = 0;
    for seen in fs::read_dir(place("seen")).unwrap() {
        let seen = fs::read_to_string(seen.unwrap().path()).unwrap();
        assert!(!seen.contains("for something else"), "{seen}");
        calls += 1;
    }
    assert_eq!(calls, 4, "pack, add, install and serve: {said}");
}
