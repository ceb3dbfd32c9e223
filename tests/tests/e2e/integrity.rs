//! A flipped bit anywhere between publishing and running.

use std::fs;
use std::path::{Path, PathBuf};

use alga_e2e::guest;

use crate::deployment::{Deployment, get};

fn files(folder: &Path, name: impl Fn(&str) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, name));
        } else if name(path.file_name().unwrap().to_str().unwrap()) {
            found.push(path);
        }
    }
    found
}

fn only(mut files: Vec<PathBuf>) -> PathBuf {
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_bundle_damaged_in_the_store_is_not_run() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    flip_a_bit(&only(files(&deployment.data().join("bundles"), |name| {
        name == "bundle.tar.zst"
    })));
    // Without compiled code and cached files the store is all there is.
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.start();
    for _ in 0..2 {
        assert_eq!(
            deployment.refusal(&installed.envelope(&get("/"))).await,
            (502, "BUNDLE_DAMAGED".to_owned())
        );
    }
    assert!(
        files(&deployment.data().join("cache/bundles"), |name| name
            == "main.wasm")
        .is_empty(),
        "nothing is kept"
    );
    let log = deployment.log();
    let line = log
        .lines()
        .find(|line| line.contains("\"ERROR\""))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("bundle fsck --repair"), "{line}");
    assert!(line.contains("publish it again"), "{line}");
}

#[tokio::test]
async fn a_component_damaged_in_the_cache_is_fetched_again() {
    let mut deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    fs::remove_dir_all(deployment.data().join("cache/code")).unwrap();
    fs::create_dir(deployment.data().join("cache/code")).unwrap();
    deployment.kill();
    deployment.start();
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    let component = only(files(&deployment.data().join("cache/bundles"), |name| {
        name == "main.wasm"
    }));
    let good = fs::read(&component).unwrap();
    deployment.kill();

    flip_a_bit(&component);
    fs::remove_dir_all(deployment.data().join("cache/code")).unwrap();
    deployment.start();
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    let component = only(files(&deployment.data().join("cache/bundles"), |name| {
        name == "main.wasm"
    }));
    assert_eq!(fs::read(component).unwrap(), good);
}

#[tokio::test]
async fn damaged_compiled_code_is_not_loaded_but_compiled_again() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let code = || {
        only(files(&deployment.data().join("cache/code"), |name| {
            name.ends_with(".cwasm")
        }))
    };
    let good = fs::read(code()).unwrap();
    flip_a_bit(&code());
    deployment.start();
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    assert!(
        deployment
            .log()
            .contains("compiled code is not what was written")
    );
    let code = only(files(&deployment.data().join("cache/code"), |name| {
        name.ends_with(".cwasm")
    }));
    assert_eq!(fs::read(code).unwrap().len(), good.len());
}

#[tokio::test]
async fn compiled_code_of_another_deployment_is_not_loaded() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    fs::remove_file(deployment.data().join("master.key")).unwrap();
    deployment.start();
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    assert!(
        deployment
            .log()
            .contains("compiled code is not what was written")
    );
}

#[tokio::test]
async fn compiled_code_that_can_not_be_kept_is_run_all_the_same() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let code = deployment.data().join("cache/code");
    fs::remove_dir_all(&code).unwrap();
    deployment.start();
    // A file where the folder was: not even root can write into that.
    fs::remove_dir_all(&code).unwrap();
    fs::write(&code, "").unwrap();
    for _ in 0..2 {
        assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    }
    let log = deployment.log();
    assert_eq!(log.matches("cannot keep compiled code").count(), 1, "{log}");
}

#[test]
fn a_damaged_bundle_file_is_refused() {
    let deployment = Deployment::new();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    let hash = deployment.ok(&["bundle", "verify", bundle.to_str().unwrap()]);
    flip_a_bit(&bundle);
    deployment.fails(&[
        "bundle",
        "add",
        bundle.to_str().unwrap(),
        "--declared-hash",
        &hash,
    ]);
    let list = deployment.ok(&["install", "list"]);
    assert!(!list.contains("com.example.echo"), "{list}");
}
