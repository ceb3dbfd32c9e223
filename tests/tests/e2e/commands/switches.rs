//! Switches, allow-list and grants, thrown while a server runs.

use serde_json::json;
use uuid::Uuid;

use super::{answered_soon, json_of, lines_of, note, status};
use crate::deployment::{Deployment, get, path};

#[tokio::test]
async fn switched_off_and_on_again_every_record_is_found() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let other = deployment.install_notes();
    for id in ["a", "b", "c"] {
        assert_eq!(status(&deployment, &installed, note(id)).await, 201);
    }
    let list = ["storage", "list", &installed.install, "notes", "--values"];
    let before = (
        answered_soon(&deployment, &installed, |_| get("/notes"), 200).await,
        deployment.ok(&list),
    );
    assert_eq!(before.1.lines().count(), 3);

    for scope in [&[][..], &["--tenant", &installed.tenant]] {
        let for_all = scope.is_empty();
        let off = json_of(&deployment.ok(&[&["switches", "storage", "off"][..], scope].concat()));
        answered_soon(&deployment, &installed, |_| get("/notes"), 403).await;
        let of_other = if for_all { 403 } else { 200 };
        answered_soon(&deployment, &other, |_| get("/notes"), of_other).await;
        let tenants = if for_all {
            json!([])
        } else {
            json!([installed.tenant])
        };
        assert_eq!(off["storage"], !for_all);
        assert_eq!(off["storageOffForTenants"], tenants);
        assert_eq!(json_of(&deployment.ok(&["switches"])), off);
        let of_tenant = ["switches", "--tenant", &installed.tenant];
        assert_eq!(
            json_of(&deployment.ok(&of_tenant)),
            json!({"tenantId": installed.tenant, "storage": for_all})
        );

        let on = [&["switches", "storage", "on"][..], scope].concat();
        let refused = deployment.fails(&list);
        let hint = format!("`alga-runner {}`", on.join(" "));
        assert!(refused.contains(&hint), "{refused}");
        deployment.ok(&on);
        let after = answered_soon(&deployment, &installed, |_| get("/notes"), 200).await;
        assert_eq!((after, deployment.ok(&list)), before);
        answered_soon(&deployment, &other, |_| get("/notes"), 200).await;
    }
}

#[tokio::test]
async fn only_allowed_extensions_use_the_storage() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let allow = |names: &[&str]| {
        let output = deployment.run(&[&["switches", "allow"][..], names].concat());
        assert!(output.status.success(), "{output:?}");
        let printed = json_of(&String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8(output.stderr).unwrap();
        (printed["allowedExtensions"].clone(), said)
    };
    assert_eq!(status(&deployment, &installed, note("a")).await, 201);
    let (allowed, said) = allow(&["com.example.other"]);
    answered_soon(&deployment, &installed, |_| note("a"), 403).await;
    assert_eq!(allowed, json!(["com.example.other"]));
    assert!(
        said.contains("com.example.other") && said.contains("warning"),
        "{said}"
    );
    let refused = deployment.fails(&["storage", "list", &installed.install, "notes"]);
    assert!(refused.contains("alga-runner switches allow"), "{refused}");

    let (allowed, said) = allow(&["--add", "com.example.notes"]);
    answered_soon(&deployment, &installed, |_| note("a"), 200).await;
    assert_eq!(allowed, json!(["com.example.notes", "com.example.other"]));
    assert!(!said.contains("com.example.notes"), "{said}");
    let (allowed, said) = allow(&["--remove", "com.example.notes", "com.example.third"]);
    answered_soon(&deployment, &installed, |_| note("a"), 403).await;
    assert_eq!(allowed, json!(["com.example.other"]));
    assert!(said.contains("com.example.third is not on"), "{said}");

    assert_eq!(allow(&["--none"]).0, json!([]));
    answered_soon(&deployment, &installed, |_| note("a"), 403).await;
    assert_eq!(allow(&["--all"]).0, json!(null));
    answered_soon(&deployment, &installed, |_| note("a"), 200).await;
    for mistake in [
        &[][..],
        &["--all", "com.example.notes"],
        &["--all", "--none"],
        &["--all", "--add", "com.example.notes"],
        &[
            "--add",
            "com.example.notes",
            "--remove",
            "com.example.other",
        ],
        // All are allowed already.
        &["--add", "com.example.notes"],
        &["--remove", "com.example.notes"],
        &["Notes"],
    ] {
        deployment.fails(&[&["switches", "allow"][..], mistake].concat());
    }
    assert_eq!(
        json_of(&deployment.ok(&["switches"]))["allowedExtensions"],
        json!(null)
    );
}

#[tokio::test]
async fn a_grant_taken_away_and_given_back_counts_within_a_second() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let grant = |grants: &[&str]| {
        deployment.ok(&[&["install", "grant", &installed.install], grants].concat());
    };
    assert_eq!(status(&deployment, &installed, note("a")).await, 201);
    grant(&["--none"]);
    answered_soon(&deployment, &installed, |_| get("/notes"), 403).await;
    let reading = json!({"alga.storage": {"namespaces": [{"name": "notes", "access": ["read"]}]}});
    let file = deployment.scratch("grants.json");
    std::fs::write(&file, reading.to_string()).unwrap();
    grant(&["--grants", path(&file)]);
    answered_soon(&deployment, &installed, |_| get("/notes"), 200).await;
    assert_eq!(status(&deployment, &installed, note("a")).await, 403);
    grant(&["--all"]);
    answered_soon(&deployment, &installed, |_| note("a"), 200).await;
}

#[test]
fn every_switch_thrown_is_audited_once() {
    let deployment = Deployment::new();
    deployment.ok(&["migrate", "up"]);
    let tenant = Uuid::new_v4().to_string();
    for edit in [
        &["storage", "off"][..],
        &["storage", "off"],
        &["storage", "off", "--tenant", &tenant],
        &["allow", "com.example.notes"],
    ] {
        let thrown = deployment.run(&[&["switches"], edit].concat());
        assert!(thrown.status.success(), "{thrown:?}");
        let said = String::from_utf8_lossy(&thrown.stderr);
        let of_stranger = edit.contains(&tenant.as_str());
        assert_eq!(said.contains("no install of the tenant"), of_stranger);
    }
    let misplaced = ["switches", "--tenant", &tenant, "storage", "off"];
    let refused = deployment.run(&misplaced);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let audit = lines_of(&deployment.ok(&["audit"]));
    let told: Vec<_> = audit
        .iter()
        .map(|line| {
            (
                line["operation"].as_str().unwrap(),
                &line["details"]["after"],
                &line["actor"],
            )
        })
        .collect();
    let cli = &json!("admin:cli");
    assert_eq!(
        told,
        [
            ("switches.storage", &json!(false), cli),
            ("tenant.storage", &json!(false), cli),
            ("switches.extensions", &json!(["com.example.notes"]), cli),
        ]
    );
}
