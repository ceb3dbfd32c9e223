//! The command line, as a person or a script uses it.

mod audit;
mod operations;
mod records;
mod signatures;
mod switches;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, path, send};

#[test]
fn packing_twice_gives_the_same_bytes() {
    let deployment = Deployment::new();
    let folder = guest::notes_bundle_dir();
    let (one, two) = (
        deployment.scratch("one.tar.zst"),
        deployment.scratch("two.tar.zst"),
    );
    for bundle in [&one, &two] {
        let printed = deployment.ok(&["bundle", "pack", path(&folder), "--output", path(bundle)]);
        assert_eq!(printed, path(bundle));
    }
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let hash = deployment.ok(&["bundle", "verify", path(&one)]);
    assert_eq!(
        hash,
        alga_model::ContentHash::of(&fs::read(&one).unwrap()).to_string()
    );
    let inspected = deployment.ok(&["bundle", "inspect", path(&one)]);
    for part in [
        hash.as_str(),
        "com.example.notes",
        "dist/main.wasm",
        "manifest.json",
        "alga.storage",
    ] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
}

#[test]
fn every_mistake_of_a_manifest_is_listed() {
    let deployment = Deployment::new();
    let folder = deployment.scratch("bad");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("manifest.json"),
        r#"{"name": "Notes", "version": "one", "runtime": "wasm-component@1"}"#,
    )
    .unwrap();
    let error = deployment.fails(&[
        "bundle",
        "pack",
        path(&folder),
        "--output",
        path(&deployment.scratch("bad.tar.zst")),
    ]);
    for part in ["/name", "/version", "publisher"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!deployment.scratch("bad.tar.zst").exists());
}

#[test]
fn a_capability_that_could_never_be_granted_is_refused_when_it_is_packed() {
    let deployment = Deployment::new();
    let folder = deployment.scratch("greedy");
    fs::create_dir_all(folder.join("dist")).unwrap();
    fs::write(folder.join("dist/main.wasm"), guest::echo()).unwrap();
    let manifest = |access: &str| {
        json!({
            "name": "com.example.greedy",
            "publisher": "Tests",
            "version": "1.0.0",
            "runtime": "wasm-component@1",
            "capabilities": {
                "alga.storage": { "namespaces": [{ "name": "notes", "access": [access] }] },
                "alga.teleport": {},
            },
        })
    };
    let pack = |access: &str| {
        fs::write(folder.join("manifest.json"), manifest(access).to_string()).unwrap();
        let bundle = deployment.scratch("greedy.tar.zst");
        let output = deployment.run(&["bundle", "pack", path(&folder), "--output", path(&bundle)]);
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
            bundle,
        )
    };
    let (packed, said, bundle) = pack("reed");
    assert!(!packed && !bundle.exists());
    assert!(said.contains("reed"), "{said}");
    let (packed, said, bundle) = pack("read");
    assert!(packed, "{said}");
    let good = fs::read(&bundle).unwrap();
    assert!(!pack("reed").0);
    assert_eq!(
        fs::read(&bundle).unwrap(),
        good,
        "a good bundle is not lost to a bad manifest"
    );
    assert!(
        said.contains("warning") && said.contains("alga.teleport"),
        "{said}"
    );
    let added = deployment.run(&["bundle", "add", path(&bundle)]);
    assert!(added.status.success());
    assert!(String::from_utf8_lossy(&added.stderr).contains("alga.teleport"));
}

#[test]
fn publishing_again_succeeds_and_other_content_does_not() {
    let deployment = Deployment::new();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    let hash = deployment.ok(&["bundle", "add", path(&bundle)]);
    assert_eq!(
        deployment.ok(&["bundle", "add", path(&bundle), "--declared-hash", &hash]),
        hash
    );
    let other = deployment.pack("com.example.echo", "1.0.0", &guest::echo_request());
    let error = deployment.fails(&["bundle", "add", path(&other)]);
    assert!(error.contains("DUPLICATE_VERSION"), "{error}");
    let error = deployment.fails(&["bundle", "add", path(&other), "--declared-hash", &hash]);
    assert!(error.contains("HASH_MISMATCH"), "{error}");
}

#[test]
fn installs_are_created_narrowed_and_listed() {
    let deployment = Deployment::new();
    // The highest version is neither the last one published nor the last one by letters.
    for (version, component) in [
        ("1.10.0", guest::echo_request()),
        ("1.9.0", guest::echo()),
        ("2.0.0-rc.1", guest::trap()),
    ] {
        let bundle = deployment.pack("com.example.echo", version, &component);
        deployment.ok(&["bundle", "add", path(&bundle)]);
    }
    let tenant = Uuid::new_v4().to_string();
    let create = |more: &[&str]| {
        let base = [
            "install",
            "create",
            "--tenant",
            &tenant,
            "--extension",
            "com.example.echo",
        ];
        base.iter()
            .copied()
            .chain(more.iter().copied())
            .map(ToOwned::to_owned)
            .collect::<Vec<String>>()
    };
    let run = |arguments: Vec<String>| {
        deployment.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let newest = run(create(&[]));
    assert!(newest.status.success());
    let older = run(create(&["--version", "1.9.0", "--set", "greeting=hi"]));
    assert!(older.status.success());

    let wide = deployment.scratch("wide.json");
    fs::write(
        &wide,
        json!({"alga.storage": {"namespaces": [{"name": "other", "access": ["read"]}]}})
            .to_string(),
    )
    .unwrap();
    let refused = run(create(&["--grants", path(&wide)]));
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("wider"));
    let missing = run(create(&["--version", "9.9.9"]));
    assert!(!missing.status.success());

    let list = deployment.ok(&["install", "list", "--tenant", &tenant]);
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(
        list.contains("1.9.0") && list.contains("1.10.0") && list.contains("enabled"),
        "{list}"
    );
    let none = deployment.ok(&["install", "list", "--tenant", &Uuid::new_v4().to_string()]);
    assert_eq!(none.lines().count(), 1, "{none}");

    let install = String::from_utf8(newest.stdout).unwrap();
    let install = install.trim();
    deployment.ok(&["install", "grant", install, "--none"]);
    assert!(
        deployment
            .fails(&["storage", "get", install, "notes", "k"])
            .contains("grant")
    );
    let error = deployment.fails(&["install", "grant", install, "--grants", path(&wide)]);
    assert!(error.contains("wider"), "{error}");
    deployment.ok(&["install", "grant", install, "--all"]);
    assert!(
        deployment
            .fails(&["storage", "get", install, "notes", "k"])
            .contains("no such record")
    );
}

#[test]
fn invoke_runs_a_component_or_a_bundle_once() {
    let deployment = Deployment::new();
    let component = deployment.scratch("echo.wasm");
    fs::write(&component, guest::echo()).unwrap();
    let echoed = deployment.ok(&[
        "invoke",
        path(&component),
        "-X",
        "POST",
        "--header",
        "x-a: 1",
        "--body",
        "hello",
        "--include",
    ]);
    assert!(
        echoed.starts_with("HTTP 200\n") && echoed.contains("x-a: 1") && echoed.ends_with("hello"),
        "{echoed}"
    );

    let notes = deployment.scratch("notes.wasm");
    fs::write(&notes, guest::notes_component()).unwrap();
    let listed = deployment.ok(&[
        "invoke",
        path(&notes),
        "--namespace",
        "notes",
        "--path",
        "/notes?limit=3",
    ]);
    assert_eq!(
        serde_json::from_str::<Value>(&listed).unwrap()["items"],
        json!([])
    );
    let denied = deployment.ok(&["invoke", path(&notes), "--path", "/notes"]);
    assert!(
        denied.contains("error"),
        "without a grant there is no storage: {denied}"
    );

    let trap = deployment.scratch("trap.wasm");
    fs::write(&trap, guest::trap()).unwrap();
    let said = deployment.fails(&["invoke", path(&trap)]);
    assert!(
        said.contains("trapped") && said.contains("wasm backtrace"),
        "{said}"
    );
    // Nobody asked for anything to be published.
    let junk = deployment.scratch("junk.zst");
    fs::write(&junk, "junk").unwrap();
    let said = deployment.fails(&["invoke", path(&junk)]);
    assert!(said.contains("is not a bundle"), "{said}");
    assert!(!said.contains("publish"), "{said}");
    fs::write(&junk, [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    let said = deployment.fails(&["invoke", path(&junk)]);
    assert!(said.contains("can't be used as a bundle"), "{said}");
    assert!(!said.contains("publish"), "{said}");
    assert!(!deployment.data().exists(), "invoke leaves nothing behind");
}

#[test]
fn a_mistyped_data_folder_is_not_made() {
    let deployment = Deployment::new();
    let install = Uuid::new_v4().to_string();
    for command in [
        vec!["install", "list"],
        vec!["install", "disable", &install],
        vec!["install", "limits", &install],
        vec!["tenant", "limits", &install],
        vec!["storage", "list", &install, "notes"],
        vec!["storage", "shards"],
        vec!["storage", "sweep"],
        vec!["usage", "verify", "--repair"],
        vec!["switches", "storage", "off"],
        vec!["audit"],
        vec!["migrate", "status"],
        vec!["migrate", "down", "storage", "--to", "0", "--yes"],
        vec!["bundle", "add", "no-such-file"],
    ] {
        let said = deployment.fails(&command);
        assert!(
            said.contains("there is no data") || said.contains("no-such-file"),
            "{said}"
        );
        assert!(!deployment.data().exists(), "{command:?} made the folder");
    }
}

#[test]
fn migrations_go_up_and_down_and_say_where_they_are() {
    let deployment = Deployment::new();
    let status = deployment.ok(&["migrate", "up"]);
    assert!(
        status.contains("applied") && !status.contains("missing"),
        "{status}"
    );
    let error = deployment.fails(&["migrate", "down", "storage", "--to", "0"]);
    assert!(error.contains("--yes"), "{error}");
    let status = deployment.ok(&["migrate", "down", "storage", "--to", "0", "--yes"]);
    assert!(
        status.contains("applied") && status.contains("missing"),
        "{status}"
    );
    let error = deployment.fails(&["migrate", "down", "storage", "--to", "99", "--yes"]);
    assert!(error.contains("99"), "{error}");
}

#[test]
fn settings_are_printed_without_secrets_and_every_mistake_is_reported() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_AUTH_SERVICE_TOKEN", "a-very-secret-token");
    let printed = deployment.ok(&["config", "print"]);
    assert!(
        printed.contains("timeout_ms") && !printed.contains("a-very-secret-token"),
        "{printed}"
    );
    deployment.ok(&["config", "check"]);
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "soon");
    deployment.set("ALGA_ENGINE_MEMROY_MB", "64");
    let error = deployment.fails(&["config", "check"]);
    for part in [
        "ALGA_ENGINE_TIMEOUT_MS",
        "ALGA_ENGINE_MEMROY_MB",
        "ALGA_ENGINE_MEMORY_MB",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Runs a command that reads `input`.
fn run_with(deployment: &Deployment, arguments: &[&str], input: &str) -> Output {
    let mut child = deployment
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The JSON that a command printed.
fn json_of(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// The JSON lines that a command printed.
fn lines_of(printed: &str) -> Vec<Value> {
    printed.lines().map(json_of).collect()
}

/// JSON lines for as many records, whose keys are the prefix and a number.
fn bulk_of(prefix: &str, count: usize) -> String {
    (0..count).fold(String::new(), |mut lines, i| {
        writeln!(lines, "{{\"key\": \"{prefix}{i:02}\", \"value\": {i}}}").unwrap();
        lines
    })
}

/// A request that writes a note, whether it is there already or not.
fn note(id: &str) -> Value {
    let body = json!({"title": id, "text": ""});
    send("PUT", &format!("/notes/{id}"), &body)
}

/// Calls an extension again and again until it answers with `status`, and gives its body. Only
/// requests sent within a second from now may still be answered otherwise. `request` makes them of
/// their numbers.
async fn answered_soon(
    deployment: &Deployment,
    installed: &Installed,
    request: impl Fn(usize) -> Value,
    status: u64,
) -> Value {
    let changed = Instant::now();
    for number in 0.. {
        let sent = changed.elapsed();
        let answer = deployment.call(installed, request(number)).await;
        if answer.status == status {
            return answer.json();
        }
        assert!(
            sent < Duration::from_secs(1),
            "still {} after {sent:?}, not {status}",
            answer.status
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("numbers don't end within a second")
}

/// Calls an extension once, and gives the status that it answers with.
async fn status(deployment: &Deployment, installed: &Installed, request: Value) -> u64 {
    deployment.call(installed, request).await.status
}
