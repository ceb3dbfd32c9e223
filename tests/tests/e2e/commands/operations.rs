//! What an operator does about quotas, counters and what is expired.

use alga_e2e::guest;
use rusqlite::Connection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{answered_soon, json_of, lines_of, note, run_with, status};
use crate::deployment::{Deployment, path};

/// Changes a database of the deployment behind the runner's back.
pub(super) fn meddle(deployment: &Deployment, database: &str, statement: &str) {
    let database = Connection::open(deployment.data().join(database)).unwrap();
    database.execute_batch(statement).unwrap();
}

/// A request that writes a note that is not there yet.
fn another(number: usize) -> Value {
    note(&format!("another-{number}"))
}

#[tokio::test]
async fn expired_records_and_old_audit_records_are_swept() {
    let deployment = Deployment::new();
    let one = deployment.install("com.example.echo", &guest::echo());
    let two = deployment.install("com.example.other", &guest::trap());
    for installed in [&one, &two] {
        let put = ["storage", "put", &installed.install, "notes"];
        deployment.ok(&[&put[..], &["for ever", "1"]].concat());
        deployment.ok(&[&put[..], &["short", r#""1234""#, "--ttl", "60"]].concat());
    }
    let spread = json_of(&deployment.ok(&["storage", "shards", "--json"]));
    assert_eq!(
        (&spread["total"]["tenants"], &spread["total"]["records"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(spread["largestTenants"][0]["bytes"], json!(11));
    assert!(
        spread["tables"][0]["diskBytes"].as_u64().unwrap() > 0,
        "{spread}"
    );
    let spread = deployment.ok(&["storage", "shards"]);
    assert!(
        spread.contains(&one.tenant) && spread.contains("ON DISK"),
        "{spread}"
    );
    let nothing = json!({"records": 0, "bytes": 0, "auditRecords": 0, "answers": 0});
    assert_eq!(json_of(&deployment.ok(&["storage", "sweep"])), nothing);

    let storage = "storage.sqlite3";
    for statement in [
        "UPDATE ext_storage_records SET expires_at = 1 WHERE key = 'short'",
        "UPDATE ext_storage_usage SET next_expiry = 1 WHERE next_expiry IS NOT NULL",
    ] {
        meddle(&deployment, storage, statement);
    }
    let show = ["usage", "show", &one.install];
    let usage = json_of(&deployment.ok(&show));
    assert_eq!(usage["expiredNotRemoved"], json!({"keys": 1, "bytes": 8}));
    let swept = json_of(&deployment.ok(&["storage", "sweep"]));
    assert_eq!(
        swept,
        json!({"records": 2, "bytes": 16, "auditRecords": 0, "answers": 0})
    );
    let usage = json_of(&deployment.ok(&show));
    assert_eq!((&usage["keys"], &usage["bytes"]), (&json!(1), &json!(3)));
    assert_eq!(usage["expiredNotRemoved"], json!({"keys": 0, "bytes": 0}));

    // The install was made, two records were written and one of them removed.
    assert_eq!(
        deployment
            .ok(&["audit", "--tenant", &one.tenant])
            .lines()
            .count(),
        4
    );
    let old = "UPDATE ext_storage_audit SET audit_id = zeroblob(16) WHERE operation = 'put' AND changes ->> '$[0][0]' = 'short'";
    meddle(&deployment, storage, old);
    let old = "UPDATE registry_audit SET at = 0 WHERE action = 'install.create'";
    meddle(&deployment, "registry.sqlite3", old);
    let swept = json_of(&deployment.ok(&["storage", "sweep"]));
    assert_eq!(swept["auditRecords"], 4);
    assert_eq!(
        deployment
            .ok(&["audit", "--tenant", &one.tenant])
            .lines()
            .count(),
        2
    );
    assert_eq!(json_of(&deployment.ok(&["storage", "sweep"])), nothing);
}

#[test]
fn usage_is_shown_of_an_install_and_of_a_tenant() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let (install, tenant) = (&installed.install, &installed.tenant);
    for (key, value) in [("a", "1"), ("b", r#""1234""#)] {
        deployment.ok(&["storage", "put", install, "notes", key, value]);
    }
    // An operator may look at what the extension can't reach.
    deployment.ok(&["install", "disable", install]);
    let usage = json_of(&deployment.ok(&["usage", "show", install]));
    assert_eq!(
        usage["perNamespace"],
        json!([{"namespace": "notes", "keys": 2, "bytes": 11}])
    );
    assert_eq!(
        (&usage["bytes"], &usage["keys"], &usage["namespaces"]),
        (&json!(11), &json!(2), &json!(1))
    );
    assert_eq!(usage["limits"]["keysPerNamespace"], 5_120);

    let usage = json_of(&deployment.ok(&["usage", "show", "--tenant", tenant]));
    assert_eq!(usage["bytes"], 11);
    assert_eq!(usage["limits"]["bytesPerTenant"], 2_u64 << 30);
    assert_eq!(
        usage["perInstall"],
        json!([{"installId": install, "bytes": 11, "namespaces": 1, "keysOfFullestNamespace": 2}])
    );

    let stranger = Uuid::new_v4().to_string();
    let nothing = json_of(&deployment.ok(&["usage", "show", "--tenant", &stranger]));
    assert_eq!(
        (&nothing["bytes"], &nothing["perInstall"]),
        (&json!(0), &json!([]))
    );
    assert!(
        deployment
            .fails(&["usage", "show", &stranger])
            .contains("install list")
    );
    assert!(deployment.fails(&["usage", "show"]).contains("--tenant"));
}

#[tokio::test]
async fn a_counter_that_drifted_is_found_and_put_right() {
    let deployment = Deployment::new();
    let drifting = deployment.install("com.example.echo", &guest::echo());
    let right = deployment.install("com.example.other", &guest::trap());
    for installed in [&drifting, &right] {
        deployment.ok(&["storage", "put", &installed.install, "notes", "a", "1"]);
    }
    assert_eq!(deployment.ok(&["usage", "verify"]), "");
    let tenant = drifting.tenant.replace('-', "");
    let statement = format!(
        "UPDATE ext_storage_usage SET bytes = 1000 WHERE tenant_id = x'{tenant}' AND namespace = 'notes'"
    );
    meddle(&deployment, "storage.sqlite3", &statement);

    let drift = |repaired: bool| {
        json!({
            "tenantId": drifting.tenant,
            "installId": drifting.install,
            "namespace": "notes",
            "counter": "bytes",
            "stored": 1000,
            "counted": 3,
            "repaired": repaired,
        })
    };
    let found = deployment.run(&["usage", "verify"]);
    assert_eq!(found.status.code(), Some(1));
    assert_eq!(
        json_of(&String::from_utf8_lossy(&found.stdout)),
        drift(false)
    );
    assert!(String::from_utf8_lossy(&found.stderr).contains("--repair"));
    let of_other = ["usage", "verify", "--tenant", &right.tenant];
    assert_eq!(deployment.ok(&of_other), "");
    let repaired = deployment.ok(&["usage", "verify", "--repair", "--tenant", &drifting.tenant]);
    assert_eq!(json_of(&repaired), drift(true));
    assert_eq!(deployment.ok(&["usage", "verify"]), "");
}

#[tokio::test]
async fn a_damaged_tenant_does_not_keep_others_from_being_checked() {
    let deployment = Deployment::new();
    let mut installed = [
        deployment.install("com.example.echo", &guest::echo()),
        deployment.install("com.example.other", &guest::trap()),
    ];
    installed.sort_by_key(|installed| installed.tenant.clone());
    let [damaged, drifting] = installed;
    for installed in [&damaged, &drifting] {
        deployment.ok(&["storage", "put", &installed.install, "notes", "a", "1"]);
    }
    let of = |tenant: &str| format!("tenant_id = x'{}'", tenant.replace('-', ""));
    let statements = format!(
        "PRAGMA ignore_check_constraints = ON;
         UPDATE ext_storage_usage SET install_id = x'00' WHERE {} AND namespace = 'notes';
         UPDATE ext_storage_usage SET bytes = 1000 WHERE {} AND namespace = 'notes'",
        of(&damaged.tenant),
        of(&drifting.tenant)
    );
    meddle(&deployment, "storage.sqlite3", &statements);
    for more in [&[][..], &["--repair"]] {
        let verified = deployment.run(&[&["usage", "verify"], more].concat());
        assert_eq!(verified.status.code(), Some(1));
        let printed = json_of(&String::from_utf8_lossy(&verified.stdout));
        assert_eq!(printed["tenantId"], json!(drifting.tenant));
        let said = String::from_utf8_lossy(&verified.stderr);
        let named = format!("cannot check the tenant {}", damaged.tenant);
        assert!(
            said.contains(&named) && said.contains("tenants checked: 1"),
            "{said}"
        );
    }
}

#[test]
fn an_install_is_shown_without_what_may_be_secret() {
    let deployment = Deployment::new();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    deployment.ok(&["bundle", "add", path(&bundle)]);
    let tenant = Uuid::new_v4().to_string();
    let create = ["install", "create", "--tenant", &tenant];
    let what = ["--extension", "com.example.echo", "--set", "token=hunter2"];
    let install = deployment.ok(&[&create[..], &what].concat());
    deployment.ok(&["install", "disable", &install]);
    let printed = deployment.ok(&["install", "show", &install]);
    assert!(!printed.contains("hunter2"), "{printed}");
    let shown = json_of(&printed);
    assert_eq!(shown["config"], json!({"token": "***"}));
    assert_eq!(
        (&shown["tenantId"], &shown["state"], &shown["generation"]),
        (&json!(tenant), &json!("disabled"), &json!(2))
    );
    assert!(shown["grants"]["alga.storage"].is_object(), "{shown}");
    let stranger = deployment.fails(&["install", "show", &tenant]);
    assert!(stranger.contains("there is no install"), "{stranger}");
}

#[test]
fn what_adding_a_bundle_did_is_said() {
    let deployment = Deployment::new();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    for said in ["published com.example.echo", "already published"] {
        let added = deployment.run(&["bundle", "add", path(&bundle)]);
        assert!(added.status.success(), "{added:?}");
        let stderr = String::from_utf8_lossy(&added.stderr);
        assert!(stderr.starts_with(said), "{stderr}");
    }
    let file = deployment.scratch("no-bundle");
    for command in ["add", "inspect", "verify"] {
        for content in [&b""[..], b"no bundle at all"] {
            std::fs::write(&file, content).unwrap();
            let refused = deployment.fails(&["bundle", command, path(&file)]);
            assert!(
                refused.contains("no-bundle is not a bundle: it is"),
                "{refused}"
            );
        }
    }
}

#[tokio::test]
async fn limits_set_on_an_install_bite_within_a_second() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let limits = ["install", "limits", &installed.install];
    assert_eq!(status(&deployment, &installed, note("a")).await, 201);

    let overrides = json!({"quotas": {"keysPerNamespace": 1}});
    let file = deployment.scratch("limits.json");
    std::fs::write(&file, overrides.to_string()).unwrap();
    let set = json_of(&deployment.ok(&[&limits[..], &["--set", path(&file)]].concat()));
    answered_soon(&deployment, &installed, another, 429).await;
    assert_eq!(
        status(&deployment, &installed, note("a")).await,
        200,
        "there is room for a change"
    );
    assert_eq!(set["overrides"], overrides);
    assert_eq!(set["effective"]["quotas"]["keysPerNamespace"], 1);
    assert_eq!(set["effective"]["requests"]["valueBytes"], 65_536);
    assert_eq!(json_of(&deployment.ok(&limits)), set);
    let refused = deployment.fails(&["storage", "put", &installed.install, "notes", "b", "1"]);
    assert!(refused.contains("(quotas.keysPerNamespace)"), "{refused}");

    let cleared = json_of(&deployment.ok(&[&limits[..], &["--clear"]].concat()));
    assert_eq!(cleared["overrides"], json!(null));
    answered_soon(&deployment, &installed, another, 201).await;
}

#[tokio::test]
async fn limits_of_a_tenant_hold_where_an_install_has_none() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let other = deployment.install_notes();
    let of_tenant = ["tenant", "limits", &installed.tenant];
    let of_install = ["install", "limits", &installed.install];
    let set = |command: &[&str], overrides: &str| {
        let output = run_with(&deployment, &[command, &["--set", "-"]].concat(), overrides);
        assert!(output.status.success(), "{output:?}");
    };
    let of_all = r#"{"quotas": {"namespaces": 7, "bytesPerTenant": 1}}"#;
    deployment.ok(&[&of_tenant[..], &["--set", of_all]].concat());
    answered_soon(&deployment, &installed, another, 429).await;
    assert_eq!(status(&deployment, &other, note("a")).await, 201);
    let refused = deployment.fails(&["storage", "put", &installed.install, "notes", "b", "1"]);
    assert!(refused.contains("alga-runner tenant limits"), "{refused}");

    set(&of_install, r#"{"quotas": {"namespaces": 8}}"#);
    let quotas = |command: &[&str]| {
        let limits = json_of(&deployment.ok(command));
        let quotas = &limits["effective"]["quotas"];
        (
            quotas["namespaces"].as_u64().unwrap(),
            quotas["bytesPerTenant"].as_u64().unwrap(),
        )
    };
    assert_eq!((quotas(&of_tenant), quotas(&of_install)), ((7, 1), (8, 1)));
    deployment.ok(&[&of_tenant[..], &["--clear"]].concat());
    answered_soon(&deployment, &installed, another, 201).await;
    assert_eq!(quotas(&of_install), (8, 2 << 30));
}

#[test]
fn limits_that_are_none_are_not_stored() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let limits = ["install", "limits", &installed.install];
    let set = [&limits[..], &["--set", "-"]].concat();
    for (overrides, reason) in [
        (r#"{"quotas": {"keys": 1}}"#, "quotas.keys"),
        (
            r#"{"quotas": {"sheep": 1}, "limits": {"valueBytes": 1}}"#,
            "did you mean requests?\n    there is no limit quotas.sheep",
        ),
        (
            r#"{"requests": {"minTtlSeconds": 2, "maxTtlSeconds": 1}}"#,
            "minTtlSeconds is 2, more than",
        ),
        (r#"{"quotas": {"namespaces": 0}}"#, "from 1 to"),
        (r#"{"quotas": {"bytesPerTenant": 1}}"#, "whole tenant"),
        (r#"{"quotas": "#, "not JSON"),
        ("[]", "no JSON object"),
    ] {
        let refused = run_with(&deployment, &set, overrides);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(reason), "{said}");
    }
    let both = deployment.fails(&[&set[..], &["--clear"]].concat());
    assert!(both.contains("cannot be used with"), "{both}");
    let missing = deployment.fails(&[&limits[..], &["--set", "no-such-file"]].concat());
    assert!(missing.contains("no-such-file"), "{missing}");
    assert_eq!(json_of(&deployment.ok(&limits))["overrides"], json!(null));
    let nothing = deployment.ok(&[&limits[..], &["--set", "{}"]].concat());
    assert_eq!(json_of(&nothing)["overrides"], json!(null));
    let audit = lines_of(&deployment.ok(&["audit", "--install", &installed.install]));
    assert_eq!(audit.len(), 1, "only its creation: {audit:?}");
}
