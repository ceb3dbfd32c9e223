//! Invocations that are remembered.

use super::*;

#[tokio::test]
async fn invocations_are_remembered_with_how_they_ended() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(300));
    let trap = deployment.install("com.example.trap", &guest::trap());
    for request in ["req-1", "req-2", "req-3"] {
        assert_eq!(deployment.call_as(&flood, request).await, 200);
    }
    assert_eq!(deployment.call_as(&trap, "req-4").await, 502);
    let requests = |found: &[Value]| -> Vec<String> {
        let ids = found
            .iter()
            .map(|it| it["requestId"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let found = deployment.invocations(&flood, "").await;
    assert_eq!(requests(&found), ["req-3", "req-2", "req-1"]);
    assert_eq!(
        (&found[0]["logLines"], &found[0]["droppedLines"]),
        (&json!(256), &json!(44))
    );
    let found = deployment.invocations(&flood, "limit=1&outcome=OK").await;
    assert_eq!(requests(&found), ["req-3"]);
    assert!(
        deployment
            .invocations(&flood, "failed=true")
            .await
            .is_empty()
    );
    assert!(deployment.invocations(&trap, "outcome=OK").await.is_empty());
    let found = deployment
        .invocations(&trap, "failed=true&outcome=GUEST_TRAP")
        .await;
    assert_eq!(requests(&found), ["req-4"]);
    assert_eq!(found[0]["status"], Value::Null);
    assert_eq!(found[0]["memoryBytes"], 65_536);
    for wrong in [
        "limit=0",
        "limit=101",
        "failed=1",
        "sheep=1",
        "outcome=TRAP",
    ] {
        let path = format!("/v1/installs/{}/invocations?{wrong}", flood.install);
        let refused = deployment.admin(Method::GET, &path).send().await.unwrap();
        assert_eq!(
            refusal(refused).await,
            (400, "BAD_REQUEST".to_owned()),
            "{wrong}"
        );
    }

    let last = deployment.last_invocation(&flood).await;
    let id = last["invocationId"].as_str().unwrap();
    let show = async |install: &str, id: &str| {
        let path = format!("/v1/installs/{install}/invocations/{id}");
        deployment.admin(Method::GET, &path).send().await.unwrap()
    };
    let mut shown: Value = show(&flood.install, id).await.json().await.unwrap();
    let lines = shown.as_object_mut().unwrap().remove("lines").unwrap();
    assert_eq!(shown, last);
    let lines = lines.as_array().unwrap();
    assert_eq!(lines.len(), 256);
    assert!(lines.iter().all(|line| line["invocationId"] == id));
    for (install, id) in [
        (&trap.install, id),
        (&flood.install, Uuid::new_v4().to_string().as_str()),
        (&flood.install, "last"),
    ] {
        let missing = refusal(show(install, id).await).await;
        assert_eq!(missing, (404, "NOT_FOUND".to_owned()), "{id}");
    }
}

#[tokio::test]
async fn what_is_refused_before_it_runs_is_no_invocation() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let edit = format!("/v1/installs/{}", flood.install);
    let request = deployment.admin(Method::PATCH, &edit);
    let disabled = request.json(&json!({ "state": "disabled" })).send().await;
    assert_eq!(disabled.unwrap().status(), 200);
    assert_eq!(deployment.call_as(&flood, "req-2").await, 409);
    assert_eq!(deployment.invocations(&flood, "").await.len(), 1);
}
