//! `scripts/build-guest` where the tools of a language are missing: it fails and says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use alga_e2e::guest;

/// What building an example says where some of the tools are others: scripts of these bodies.
fn build_with(example: &str, tools: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bin");
    fs::create_dir(&path).unwrap();
    for (name, body) in tools {
        let tool = path.join(name);
        fs::write(&tool, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // A copy, so that what others build is left alone.
    let copy = folder.path().join(example);
    fs::create_dir(&copy).unwrap();
    for file in ["package.json", "package-lock.json", "requirements.txt"] {
        drop(fs::copy(
            guest::example_dir(example).join(file),
            copy.join(file),
        ));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-guest");
    let output = Command::new("bash")
        .args(["-c", r#"PATH="$1:$PATH" exec "$2" "$3""#, "bash"])
        .args([&path, &script, &copy])
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .output()
        .unwrap();
    assert!(!output.status.success(), "{example} was built");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_node_that_is_too_old_is_named_and_what_to_install() {
    let old = "[ \"$1\" = --version ] && echo v18.0.0; exit 1";
    let said = build_with("tickets-ts", &[("node", old)]);
    assert!(said.contains("this is Node.js v18.0.0, too old"), "{said}");
    assert!(said.contains("install Node.js 20 or newer"), "{said}");
}

#[test]
fn packages_that_cannot_be_downloaded_fail_the_build_of_a_typescript_guest() {
    let node = ("node", "exit 0");
    let said = build_with("tickets-ts", &[node, ("npm", "echo offline >&2; exit 1")]);
    assert!(said.contains("offline"), "{said}");
    assert!(said.contains("cannot install the packages"), "{said}");
    assert!(said.contains("npm must reach its registry"), "{said}");
}

#[test]
fn a_python_that_is_too_old_is_named_and_what_to_install() {
    let old = "[ \"$1\" = --version ] && echo Python 3.8.1; exit 1";
    let said = build_with("assets-py", &[("python3", old)]);
    assert!(said.contains("this is Python 3.8.1, too old"), "{said}");
    assert!(said.contains("install Python 3.11 or newer"), "{said}");
}

#[test]
fn packages_that_cannot_be_downloaded_fail_the_build_of_a_python_guest() {
    // Makes an environment whose Python can't do more.
    let python = r#"[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p "$3/bin"
printf '#!/bin/sh\necho offline >&2\nexit 1\n' >"$3/bin/python"
chmod +x "$3/bin/python""#;
    let said = build_with("assets-py", &[("python3", python)]);
    assert!(said.contains("offline"), "{said}");
    assert!(said.contains("cannot install the packages"), "{said}");
    assert!(said.contains("pip must reach its index"), "{said}");
}
