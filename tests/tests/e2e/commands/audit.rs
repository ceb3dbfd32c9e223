//! The audit of storage and registry as one stream.

use std::collections::BTreeSet;

use alga_e2e::guest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::meddle;
use super::{bulk_of, lines_of, run_with};
use crate::deployment::Deployment;

fn time(line: &Value) -> &str {
    line["time"].as_str().unwrap()
}

#[test]
fn storage_and_registry_tell_one_story_without_values() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let other = deployment.install("com.example.other", &guest::trap());
    let (install, tenant) = (installed.install.as_str(), installed.tenant.as_str());
    let secret = "a-very-secret-value";
    let value = json!(secret).to_string();
    let metadata = json!({ secret: secret }).to_string();
    let put = [
        "storage",
        "put",
        install,
        "notes",
        "a",
        &value,
        "--metadata",
        &metadata,
    ];
    deployment.ok(&put);
    deployment.ok(&["install", "disable", install]);
    deployment.ok(&["install", "enable", install]);
    deployment.ok(&["storage", "delete", install, "notes", "a"]);
    deployment.ok(&["storage", "put", &other.install, "notes", "b", "1"]);

    let printed = deployment.ok(&["audit"]);
    assert!(!printed.contains(secret), "{printed}");
    let all = lines_of(&printed);
    assert!(
        all.is_sorted_by_key(|line| time(line).to_owned()),
        "{printed}"
    );
    let told = |lines: &[Value]| -> Vec<String> {
        let told =
            |line: &Value| format!("{} {}", line["source"], line["operation"]).replace('"', "");
        lines.iter().map(told).collect()
    };
    let story = [
        "registry install.create",
        "storage put",
        "registry install.state",
        "registry install.state",
        "storage delete",
    ];
    for filter in [["--install", install], ["--tenant", tenant]] {
        let lines = lines_of(&deployment.ok(&[&["audit"][..], &filter].concat()));
        assert_eq!(told(&lines), story);
        let put = &lines[1];
        assert_eq!(
            (&put["tenantId"], &put["installId"]),
            (&json!(tenant), &json!(install))
        );
        assert_eq!(
            (&put["key"], &put["revisionAfter"]),
            (&json!("a"), &json!(1))
        );
        assert_eq!(put["actor"], "admin:cli");
    }
    assert!(told(&all).contains(&"registry version.register".to_owned()));
    assert_eq!(
        told(&all)
            .iter()
            .filter(|told| *told == "storage put")
            .count(),
        2
    );
}

#[test]
fn a_span_of_time_holds_what_began_in_it() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    for value in ["1", "2", "3"] {
        deployment.ok(&["storage", "put", &installed.install, "notes", "a", value]);
    }
    let audit = |more: &[&str]| lines_of(&deployment.ok(&[&["audit"][..], more].concat()));
    let all = audit(&[]);
    for line in &all {
        let at = time(line);
        let (before, since) = (audit(&["--until", at]), audit(&["--since", at]));
        assert!(before.iter().all(|line| time(line) < at));
        assert!(since.iter().all(|line| time(line) >= at));
        assert_eq!([before, since].concat(), all);
    }
    assert_eq!(audit(&["--since", "1h"]), all);
    assert!(audit(&["--until", "1h"]).is_empty());
    assert!(audit(&["--since", "2h", "--until", "1h"]).is_empty());
    let mistaken = deployment.run(&["audit", "--since", "1h", "--until", "2h"]);
    assert_eq!(mistaken.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&mistaken.stderr).contains("before --since"));
    let refused = deployment.fails(&["audit", "--since", "yesterday"]);
    assert!(refused.contains("24h"), "{refused}");
}

#[tokio::test]
async fn an_install_is_exported_as_long_as_anything_of_it_is_left() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let install = installed.install.as_str();
    deployment.ok(&["storage", "put", install, "notes", "a", "1"]);
    let audit = ["audit", "--install", install];
    let uninstall = "UPDATE registry_installs SET state = 'uninstalled'";
    meddle(&deployment, "registry.sqlite3", uninstall);
    assert_eq!(lines_of(&deployment.ok(&audit)).len(), 2);
    // As with a registry from a backup that does not know the install yet.
    for forget in [
        "DELETE FROM registry_installs",
        "DELETE FROM registry_audit",
    ] {
        meddle(&deployment, "registry.sqlite3", forget);
    }
    assert_eq!(lines_of(&deployment.ok(&audit)).len(), 1);

    let stranger = Uuid::new_v4().to_string();
    let refused = deployment.fails(&["audit", "--install", &stranger]);
    assert!(refused.contains("there is no install"), "{refused}");
}

#[test]
fn an_export_of_many_pages_skips_and_repeats_nothing() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_STORAGE_LIMITS_BULK_ITEMS", "100");
    let installed = deployment.install("com.example.echo", &guest::echo());
    let bulk_put = ["storage", "bulk-put", &installed.install, "notes"];
    for bulk in 0..11 {
        let items = bulk_of(&format!("{bulk:02}-"), 100);
        let written = run_with(&deployment, &bulk_put, &items);
        assert!(written.status.success(), "{written:?}");
    }
    let lines = lines_of(&deployment.ok(&["audit", "--install", &installed.install]));
    assert_eq!(lines[0]["operation"], "install.create");
    let keys: BTreeSet<_> = lines[1..]
        .iter()
        .map(|line| line["key"].to_string())
        .collect();
    assert_eq!((lines.len(), keys.len()), (1_101, 1_100));
    assert!(lines.is_sorted_by_key(|line| time(line).to_owned()));
}
