//! The commands that tell of it.

use super::*;
use crate::running::Running;

#[tokio::test]
async fn the_command_prints_what_happens_as_it_happens() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let follow = ["install", "logs", &flood.install, "--follow"];
    let mut people = Running::start(deployment.asking(&follow));
    let mut programs = Running::start(deployment.asking(&[&follow[..], &["--json"]].concat()));
    for request in ["req-1", "req-2"] {
        if request != "req-1" {
            deployment.call_as(&flood, request).await;
        }
        let line = people.line().await;
        assert!(line.ends_with(" INFO  log    flood"), "{line}");
        let end = people.line().await;
        assert!(end.contains(" DONE  OK     status=200 "), "{end}");
        assert!(end.ends_with(&format!(" request={request}")), "{end}");
        let line: Value = serde_json::from_str(&programs.line().await).unwrap();
        assert_eq!(
            (&line["event"], &line["message"]),
            (&json!("line"), &json!("flood"))
        );
        let end: Value = serde_json::from_str(&programs.line().await).unwrap();
        assert_eq!(
            (&end["event"], &end["requestId"]),
            (&json!("invocation"), &json!(request))
        );
    }
    assert!(programs.interrupt());
    deployment.terminate();
    people
        .until_said("the server stops; asking again in 0.5 s")
        .await;
    assert!(deployment.wait());
    people.until_said("cannot reach the server").await;
    assert!(people.interrupt());
}

#[tokio::test]
async fn commands_tell_of_the_past_and_end() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(2));
    let trap = deployment.install("com.example.trap", &guest::trap());
    deployment.call_as(&flood, "req-1").await;
    deployment.call_as(&trap, "req-2").await;
    let printed = deployment.asked(&["install", "logs", &flood.install]);
    assert_eq!(printed.lines().count(), 3, "{printed}");
    assert!(!printed.contains('\u{1b}'), "colours are for terminals");
    let lines_only = [
        "install",
        "logs",
        &flood.install,
        "--lines-only",
        "--backlog",
        "1",
    ];
    assert_eq!(deployment.asked(&lines_only).lines().count(), 1);
    let warnings = [
        "install",
        "logs",
        &flood.install,
        "--level",
        "warn",
        "--lines-only",
    ];
    assert_eq!(deployment.asked(&warnings), "");

    let of = |installed: &Installed, more: &[&str]| {
        deployment.asked(&[&["install", "invocations", &installed.install], more].concat())
    };
    let table = of(&trap, &[]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("GUEST_TRAP"), "{table}");
    assert_eq!(of(&flood, &["--failed", "--json"]), "");
    let found: Value = serde_json::from_str(&of(&flood, &["--json"])).unwrap();
    let shown = of(&flood, &[found["invocationId"].as_str().unwrap()]);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.contains(" INFO  log    flood\n"), "{shown}");
}

#[test]
fn commands_without_a_server_say_why_there_must_be_one() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    for command in ["logs", "invocations"] {
        let said = deployment.fails(&["install", command, &installed.install]);
        assert!(said.contains("in the memory of the server"), "{said}");
        assert!(said.contains("--server"), "{said}");
    }
}

#[test]
fn commands_about_what_there_is_not_fail_at_once() {
    let deployment = Deployment::started();
    let unknown = Uuid::new_v4().to_string();
    for arguments in [
        vec!["install", "logs", &unknown, "--follow"],
        vec!["install", "invocations", &unknown],
    ] {
        let mut command = deployment.asking(&arguments);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("there is no install"), "{said}");
    }
}
