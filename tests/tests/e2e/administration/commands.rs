//! Commands that ask a server.

use serde_json::{Value, json};

use super::in_two_versions;
use crate::deployment::{Deployment, path};

#[tokio::test]
async fn a_command_says_the_same_of_a_server_as_of_the_data_folder() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let (install, tenant) = (installed.install.as_str(), installed.tenant.as_str());
    deployment.ok(&["storage", "put", install, "notes", "a", "1"]);
    let token = deployment.data().join("admin.token");
    let server = ["--server", deployment.url(), "--token-file", path(&token)];
    for command in [
        &["install", "list"][..],
        &[
            "install",
            "list",
            "--tenant",
            tenant,
            "--extension",
            "com.example.echo",
        ],
        &["install", "show", install],
        &["install", "limits", install],
        &["install", "upgrade", install, "--dry-run"],
        &["install", "upgrade", install],
        &["install", "rollback", install],
        &["install", "show", tenant],
        &["install", "grant", install, "--grants", "no-such-file"],
        &[
            "install",
            "limits",
            install,
            "--set",
            r#"{"quotas": {"sheep": 1, "goats": 2}}"#,
        ],
        &[
            "install",
            "create",
            "--tenant",
            tenant,
            "--extension",
            "com.example.none",
        ],
        &["extension", "list"],
        &["extension", "show", "com.example.echo"],
        &[
            "extension",
            "show",
            "com.example.echo",
            "--version",
            "2.0.0",
        ],
        &["extension", "show", "com.example.none"],
        &["tenant", "limits", tenant],
        &["switches"],
        &["switches", "--tenant", tenant],
        &["switches", "allow", "--add", "com.example.echo"],
        &["usage", "show", install],
        &["usage", "show", "--tenant", tenant],
        &["audit"],
        &["audit", "--tenant", tenant, "--since", "1h"],
        &["audit", "--install", tenant],
    ] {
        let (here, there) = (
            deployment.run(command),
            deployment.run(&[command, &server].concat()),
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = |output: &std::process::Output| {
            (
                output.status.code(),
                text(&output.stdout),
                text(&output.stderr),
            )
        };
        assert_eq!(said(&here), said(&there), "{command:?}");
    }
}

#[tokio::test]
async fn commands_change_what_a_server_keeps() {
    let mut deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let (install, tenant) = (installed.install.clone(), installed.tenant.clone());
    let (url, token) = (deployment.url().to_owned(), deployment.admin_token());
    // Nothing of it is in the folder that the commands would work on otherwise.
    deployment.set(
        "ALGA_DATA_DIR",
        path(&deployment.scratch("elsewhere")).to_owned().as_str(),
    );
    deployment.set("ALGA_SERVER", &format!("{url}/"));
    deployment.set("ALGA_TOKEN", &token);
    let json =
        |command: &[&str]| -> Value { serde_json::from_str(&deployment.ok(command)).unwrap() };

    deployment.ok(&["install", "disable", &install]);
    assert_eq!(json(&["install", "show", &install])["state"], "disabled");
    deployment.ok(&["install", "enable", &install]);
    deployment.ok(&["install", "grant", &install, "--none"]);
    assert_eq!(json(&["install", "show", &install])["grants"], json!({}));
    deployment.ok(&["install", "grant", &install, "--all"]);
    let refused = deployment.fails(&["install", "upgrade", &install]);
    assert!(
        refused.contains("alga.storage: write more") && refused.contains("--approve"),
        "{refused}"
    );
    let upgraded = json(&["install", "upgrade", &install, "--approve"]);
    assert_eq!(upgraded["install"]["version"], "2.0.0");
    assert_eq!(json(&["install", "rollback", &install])["to"], "1.0.0");
    let limits = json(&[
        "install",
        "limits",
        &install,
        "--set",
        r#"{"quotas": {"namespaces": 3}}"#,
    ]);
    assert_eq!(limits["effective"]["quotas"]["namespaces"], 3);
    let limits = json(&[
        "tenant",
        "limits",
        &tenant,
        "--set",
        r#"{"quotas": {"namespaces": 2}}"#,
    ]);
    assert_eq!(limits["overrides"]["quotas"]["namespaces"], 2);
    assert_eq!(json(&["switches", "storage", "off"])["storage"], false);
    assert_eq!(json(&["switches", "storage", "on"])["storage"], true);
    let off = json(&["switches", "storage", "off", "--tenant", &tenant]);
    assert_eq!(off["storageOffForTenants"], json!([tenant]));
    let allowed = json(&["switches", "allow", "com.example.echo"]);
    assert_eq!(allowed["allowedExtensions"], json!(["com.example.echo"]));
    let create = [
        "install",
        "create",
        "--tenant",
        &tenant,
        "--extension",
        "com.example.echo",
    ];
    let second = deployment.ok(&[&create[..], &["--set", "token=hunter2"]].concat());
    deployment.ok(&["install", "uninstall", &second]);
    assert_eq!(json(&["install", "show", &second])["state"], "uninstalled");
    assert!(!deployment.scratch("elsewhere").exists());

    for (variable, value, said) in [
        (
            "ALGA_TOKEN",
            "a-token-that-is-none",
            "a token that is accepted",
        ),
        (
            "ALGA_SERVER",
            "http://127.0.0.1:1",
            "cannot reach the server",
        ),
        ("ALGA_SERVER", "ftp://runner.example", "must be a URL"),
        ("ALGA_SERVER", "runner", "must be a URL"),
    ] {
        let output = deployment
            .command(&["install", "list"])
            .env(variable, value)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(said),
            "{stderr}"
        );
        assert!(!stderr.contains(&token), "{stderr}");
    }
    let local = deployment.fails(&["storage", "list", &install, "notes", "--server", &url]);
    assert!(local.contains("works on the data folder"), "{local}");
}
