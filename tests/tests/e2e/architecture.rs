//! The invariants of docs/ARCHITECTURE.md, as far as a search through the sources can tell.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every Rust file of the crates, by its path from the root.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for krate in [
        "model", "schema", "sqlite", "postgres", "storage", "host-api", "bundles", "registry",
        "runner",
    ] {
        walk(&root().join(krate).join("src"), &mut found);
    }
    assert!(found.len() > 50, "the sources were not found");
    found
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(root()).unwrap().display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

/// Whether a line of code, comments left out, holds the word.
fn names(source: &str, word: &str) -> bool {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| {
            line.match_indices(word).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| {
                    before.is_alphanumeric() || before == '_' || before == '.'
                })
            })
        })
}

fn only_in(word: &str, allowed: &[&str]) {
    let mut uses = 0;
    for (path, source) in sources() {
        if names(&source, word) {
            uses += 1;
            assert!(
                allowed.iter().any(|allowed| path.starts_with(allowed)),
                "{path} names {word}"
            );
        }
    }
    assert!(
        uses > 0,
        "nothing names {word}: does this rule still mean anything?"
    );
}

#[test]
fn sql_is_where_the_databases_are() {
    let sqlite = ["sqlite/src/", "storage/src/sqlite/", "registry/src/sqlite/"];
    only_in("rusqlite::", &sqlite);
    let others = [
        "schema/src/",
        "postgres/src/",
        "storage/src/postgres/",
        "registry/src/postgres/",
    ];
    only_in("sqlx::", &[&sqlite[..], &others].concat());
}

#[test]
fn wasmtime_is_behind_the_engine_and_the_host_interfaces() {
    only_in("wasmtime::", &["host-api/src/", "runner/src/engine/"]);
    only_in("wasmtime_wasi::", &["host-api/src/", "runner/src/engine/"]);
}

#[test]
fn the_http_framework_is_in_the_http_door() {
    only_in("axum::", &["runner/src/http/", "runner/src/headers.rs"]);
}

#[test]
fn http_clients_are_only_where_another_process_is_asked() {
    let clients = [
        "runner/src/admin/client.rs",
        // Tests that are clients of servers in their own process.
        "runner/src/http/routes/tus/tests.rs",
        "storage/src/service/remote.rs",
        "storage/src/service/trust.rs",
    ];
    only_in("reqwest::", &clients);
}

#[test]
fn the_client_of_s3_is_behind_the_store_of_bundles() {
    for word in ["aws_sdk_s3::", "aws_smithy_http_client::"] {
        only_in(word, &["bundles/src/store/s3/"]);
    }
}

#[test]
fn the_environment_is_read_by_the_configuration_alone() {
    for word in ["env::var", "env::vars", "env::var_os", "env::vars_os"] {
        for (path, source) in sources() {
            assert!(
                !names(&source, word) || path.starts_with("runner/src/config/"),
                "{path} names {word}"
            );
        }
    }
    only_in("std::env::vars_os", &["runner/src/config/"]);
}

#[test]
fn the_time_is_read_by_the_clock_alone() {
    only_in("SystemTime::now", &["model/src/clock.rs"]);
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let allowed: [(&str, &[&str]); 9] = [
        ("model", &[]),
        ("schema", &[]),
        ("sqlite", &["alga-schema"]),
        ("postgres", &["alga-model", "alga-schema"]),
        (
            "storage",
            &["alga-model", "alga-postgres", "alga-schema", "alga-sqlite"],
        ),
        ("host-api", &["alga-model", "alga-storage"]),
        ("bundles", &["alga-model"]),
        (
            "registry",
            &["alga-model", "alga-postgres", "alga-schema", "alga-sqlite"],
        ),
        (
            "runner",
            &[
                "alga-bundles",
                "alga-host-api",
                "alga-model",
                "alga-postgres",
                "alga-registry",
                "alga-schema",
                "alga-sqlite",
                "alga-storage",
            ],
        ),
    ];
    for (krate, allowed) in allowed {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        for line in dependencies
            .lines()
            .filter(|line| line.starts_with("alga-"))
        {
            let name = line.split(['.', ' ']).next().unwrap();
            assert!(allowed.contains(&name), "{krate} depends on {name}");
        }
    }
}

#[test]
fn storage_and_bundles_do_not_know_who_uses_them() {
    for krate in ["storage", "bundles"] {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        for foreign in ["wasmtime", "axum", "alga-registry"] {
            assert!(!manifest.contains(foreign), "{krate} depends on {foreign}");
        }
    }
}
