//! The command line, as a person or a script uses it.

use std::fs;

use alga_e2e::guest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, path};

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
fn records_are_written_and_read_under_guards() {
    let deployment = Deployment::new();
    let install = deployment
        .install("com.example.echo", &guest::echo())
        .install;
    let put = |key: &str, value: &str, more: &[&str]| {
        let mut arguments = vec!["storage", "put", &install, "notes", key, value];
        arguments.extend(more);
        deployment.run(&arguments)
    };
    let revision =
        |output: std::process::Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!(
        revision(put(
            "a",
            r#"{ "n": 1e5, "t": "ü" }"#,
            &["--if-absent", "--metadata", r#"{"by": "me"}"#]
        )),
        "1"
    );
    assert!(!put("a", "2", &["--if-absent"]).status.success());
    assert!(!put("a", "2", &["--if-revision", "7"]).status.success());
    assert!(!put("b", "2", &["--if-exists"]).status.success());
    assert!(!put("a", "not json", &[]).status.success());
    assert_eq!(
        deployment.ok(&["storage", "get", &install, "notes", "a"]),
        r#"{"n":1e5,"t":"ü"}"#
    );
    assert_eq!(revision(put("a", "2", &["--if-revision", "1"])), "2");
    for i in 0..30 {
        assert!(
            put(&format!("k{i:02}"), "0", &["--ttl", "60"])
                .status
                .success()
        );
    }
    let listed = deployment.ok(&[
        "storage", "list", &install, "notes", "--prefix", "k", "--values", "--limit", "3",
    ]);
    let keys: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|record| {
            assert!(
                record["ttlExpiresAt"].is_string() && record["value"] == 0,
                "{record}"
            );
        })
        .map(|record| record["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["k00", "k01", "k02"]);
    assert_eq!(
        deployment
            .ok(&["storage", "list", &install, "notes"])
            .lines()
            .count(),
        31
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
    assert!(!deployment.data().exists(), "invoke leaves nothing behind");
}

#[test]
fn a_mistyped_data_folder_is_not_made() {
    let deployment = Deployment::new();
    let install = Uuid::new_v4().to_string();
    for command in [
        vec!["install", "list"],
        vec!["install", "disable", &install],
        vec!["storage", "list", &install, "notes"],
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
