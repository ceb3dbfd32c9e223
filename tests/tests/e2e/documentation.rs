//! The examples of the documentation that are for a shell: they are run as they stand there.

use std::os::unix::fs::symlink;
use std::process::Command;

use alga_e2e::guest;

use crate::deployment::{Deployment, path};
use crate::uploads::MIB;

const BUNDLES: &str = include_str!("../../../docs/bundles.md");
const ADMINISTRATION: &str = include_str!("../../../docs/administration.md");

/// The address that the documentation has for a server.
const SERVER: &str = "http://127.0.0.1:7410";

/// The examples of a section, one after the other.
fn examples(page: &str, heading: &str) -> String {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let (mut examples, mut fence) = (String::new(), None);
    for line in section.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some("sh")) => examples = examples + line + "\n",
            (None, None) if line.starts_with('#') => break,
            (None, _) => {}
        }
    }
    assert!(!examples.is_empty(), "{heading} has no example");
    examples
}

/// What the shell prints that does it, in the folder of the deployment's data and with its server.
fn done(deployment: &Deployment, example: &str) -> String {
    let folder = deployment.data().parent().unwrap().to_owned();
    let data = folder.join("alga-data");
    if !data.exists() {
        symlink(deployment.data(), data).unwrap();
    }
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        .arg(example.replace(SERVER, deployment.url()))
        .current_dir(folder)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{printed}\n{example}");
    printed
}

#[test]
fn a_bundle_is_sent_published_installed_and_called_with_curl() {
    let deployment = Deployment::started();
    deployment.pack_notes();
    let printed = done(&deployment, &examples(BUNDLES, "### With curl"));
    let greeting = r#"{"greeting":"Hi","tenant":"11111111-1111-4111-8111-111111111111","#;
    assert!(printed.contains(greeting), "{printed}");
}

#[test]
fn a_bundle_is_sent_in_several_requests_with_curl() {
    let deployment = Deployment::started();
    let bundle = deployment.pack_large("com.example.echo", &guest::echo(), 12 * MIB);
    std::fs::rename(bundle, deployment.scratch("notes.tar.zst")).unwrap();
    let example = examples(BUNDLES, "### Uploads that are gone on with");
    // As if the first attempt had been interrupted after one part.
    let rest = "# Ask where it goes on";
    let (begin, go_on) = example.split_once(rest).unwrap();
    let interrupted = r#"head -c 5242880 "$BUNDLE" | curl -sS --fail-with-body -X PATCH -H "$ADMIN" -H "$TUS" \
        -H 'Upload-Offset: 0' -H 'Content-Type: application/offset+octet-stream' -T - "$SERVER$LOCATION""#;
    let printed = done(
        &deployment,
        &format!("{begin}{interrupted}\n{rest}{go_on}\necho; echo \"went on at $OFFSET\""),
    );
    assert!(printed.contains("com.example.echo"), "{printed}");
    assert!(printed.ends_with("went on at 5242880\n"), "{printed}");
}

#[test]
fn what_a_put_replaces_is_replaced_with_curl() {
    let deployment = Deployment::started();
    let bundle = deployment.pack_notes();
    let greeting = ["--set", "greeting=Hi"];
    let installed = deployment.publish_with("com.example.notes", &bundle, &greeting);
    let example = format!(
        "INSTALL={}\nTENANT={}\n{}",
        installed.install,
        installed.tenant,
        examples(ADMINISTRATION, "### What a PUT replaces")
    );
    let printed = done(&deployment, &example);
    for part in [
        r#""access":["read"]"#,
        r#""bytesPerInstall":1048576"#,
        r#""token":"***""#,
        r#""bytesPerTenant":16777216"#,
        r#""allowedExtensions":["com.example.notes"]"#,
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let warmed = done(&deployment, &examples(ADMINISTRATION, "### Warming up"));
    assert!(warmed.contains(r#""ready":true"#), "{warmed}");
}

#[test]
fn a_bundle_without_a_manifest_is_made_by_hand() {
    let deployment = Deployment::new();
    let notes = deployment.scratch("notes/dist");
    std::fs::create_dir_all(&notes).unwrap();
    std::fs::write(notes.join("main.wasm"), guest::echo()).unwrap();
    let manifest = r#"{"name": "com.example.notes", "publisher": "Tests", "version": "1.0.0", "runtime": "wasm-component@1"}"#;
    std::fs::write(deployment.scratch("manifest.json"), manifest).unwrap();
    let example = examples(BUNDLES, "### Without a manifest");
    let tar = example.lines().next().unwrap();
    let made = Command::new("bash")
        .args(["-euo", "pipefail", "-c", tar])
        .current_dir(deployment.scratch(""))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let bundle = deployment.scratch("notes.tar.zst");
    let add = ["bundle", "add", path(&bundle)];
    let refused = deployment.fails(&add);
    assert!(
        refused.contains("MANIFEST_REQUIRED (name one with --manifest FILE)"),
        "{refused}"
    );
    let manifest = deployment.scratch("manifest.json");
    let beside = ["--manifest", path(&manifest)];
    let verified = deployment.ok(&[&["bundle", "verify", path(&bundle)][..], &beside].concat());
    assert_eq!(deployment.ok(&[&add[..], &beside].concat()), verified);
    let listed = deployment.ok(&["extension", "list"]);
    assert!(listed.contains("com.example.notes"), "{listed}");
}
