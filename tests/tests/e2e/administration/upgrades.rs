//! Upgrades and rollbacks.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{details, done, in_two_versions, is, of, refused};
use crate::deployment::{Deployment, get};

#[tokio::test]
async fn an_upgrade_with_wider_grants_must_be_approved_and_can_be_taken_back() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let post = |what: &str, body: Value| {
        let path = of(&installed, what);
        deployment.admin(Method::POST, &path).json(&body)
    };
    assert_eq!(
        refused(post("/rollback", json!({}))).await,
        is(409, "NOTHING_TO_ROLL_BACK")
    );
    let more =
        |access: &str| json!({"capability": "alga.storage", "allows": format!("{access} more")});
    let wider = json!({"added": [more("read"), more("write")], "removed": []});

    let unapproved = post("/upgrade", json!({"version": "2.0.0"}))
        .send()
        .await
        .unwrap();
    assert_eq!(unapproved.status(), StatusCode::CONFLICT);
    assert_eq!(details(unapproved).await, json!({"difference": wider}));
    // A dry run fails where the call itself would, with the same details.
    let dry = post("/upgrade", json!({"dryRun": true}))
        .send()
        .await
        .unwrap();
    assert_eq!(dry.status(), StatusCode::CONFLICT);
    assert_eq!(details(dry).await, json!({"difference": wider}));
    let (dry, _) = done(post("/upgrade", json!({"dryRun": true, "approve": true}))).await;
    assert_eq!(
        (&dry["to"], &dry["done"], &dry["difference"]),
        (&json!("2.0.0"), &json!(false), &wider)
    );
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    for (body, expected) in [
        (json!({"version": "9.9.9"}), is(404, "NOT_FOUND")),
        (json!({"version": 2}), is(400, "BAD_REQUEST")),
        (json!({"approved": true}), is(400, "BAD_REQUEST")),
        (
            json!({"grants": {"alga.teleport": {}}, "approve": true}),
            is(400, "BAD_REQUEST"),
        ),
    ] {
        assert_eq!(refused(post("/upgrade", body)).await, expected);
    }
    let stale = post("/upgrade", json!({"approve": true})).header("if-match", "\"9\"");
    assert_eq!(refused(stale).await, is(412, "PRECONDITION_FAILED"));

    let (upgraded, tag) = done(post("/upgrade", json!({"approve": true}))).await;
    assert_eq!(
        (&upgraded["from"], &upgraded["done"]),
        (&json!("1.0.0"), &json!(true))
    );
    assert_eq!(
        (&upgraded["install"]["formerVersion"], tag.as_str()),
        (&json!("1.0.0"), "\"2\"")
    );
    let envelope = installed.envelope(&get("/"));
    assert_eq!(
        deployment.refusal(&envelope).await,
        is(403, "CONTEXT_MISMATCH"),
        "other content"
    );

    let version = |version: &str| format!("/v1/extensions/com.example.echo/versions/{version}");
    for needed in ["1.0.0", "2.0.0"] {
        let response = deployment
            .admin(Method::DELETE, &version(needed))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CONFLICT, "{needed}");
        assert_eq!(
            details(response).await,
            json!({"installs": [installed.install]})
        );
    }
    let (back, _) = done(post("/rollback", json!({}))).await;
    assert_eq!(
        (&back["to"], &back["install"]["formerVersion"]),
        (&json!("1.0.0"), &json!(null))
    );
    assert_eq!(back["difference"]["removed"], wider["added"]);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    assert_eq!(
        refused(post("/rollback", json!({}))).await,
        is(409, "NOTHING_TO_ROLL_BACK")
    );

    let (removed, _) = done(deployment.admin(Method::DELETE, &version("2.0.0"))).await;
    assert_eq!(
        (&removed["version"], &removed["manifest"]["version"]),
        (&json!("2.0.0"), &json!("2.0.0"))
    );
    let again = deployment.admin(Method::DELETE, &version("2.0.0"));
    assert_eq!(refused(again).await, is(404, "NOT_FOUND"));
    let (extension, _) =
        done(deployment.admin(Method::GET, "/v1/extensions/com.example.echo")).await;
    let left = extension["versions"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{extension}");
    let (all, _) = done(deployment.admin(Method::GET, "/v1/extensions")).await;
    assert_eq!(all["items"][0]["name"], "com.example.echo");
}

#[tokio::test]
async fn what_was_withheld_or_taken_away_does_not_come_back_unseen() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let post = |what: &str, body: Value| {
        let path = of(&installed, what);
        deployment.admin(Method::POST, &path).json(&body)
    };
    let grant = |grants: Value| {
        let request = deployment.admin(Method::PUT, &of(&installed, "/grants"));
        request
            .header("if-match", "*")
            .json(&json!({ "grants": grants }))
    };
    let reading = json!({"alga.storage": {"namespaces": [{"name": "notes", "access": ["read"]}]}});
    done(grant(reading.clone())).await;
    let (upgraded, _) = done(post("/upgrade", json!({"approve": true}))).await;
    let namespaces = &upgraded["install"]["grants"]["alga.storage"]["namespaces"];
    assert_eq!(namespaces[0], json!({"name": "notes", "access": ["read"]}));
    assert_eq!(
        namespaces[1],
        json!({"name": "more", "access": ["read", "write"]})
    );

    done(grant(json!({}))).await;
    let back = refused(post("/rollback", json!({}))).await;
    assert_eq!(back, is(409, "APPROVAL_NEEDED"));
    let (back, _) = done(post("/rollback", json!({"approve": true}))).await;
    assert_eq!(back["install"]["grants"], reading);
}

#[tokio::test]
async fn a_dry_run_fails_where_the_call_itself_would() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let post = |what: &str, mut body: Value, dry: bool| {
        body["dryRun"] = json!(dry);
        let path = of(&installed, what);
        deployment.admin(Method::POST, &path).json(&body)
    };
    let both = async |what: &str, body: Value, expected: (u16, String)| {
        for dry in [true, false] {
            let refused = refused(post(what, body.clone(), dry)).await;
            assert_eq!(refused, expected, "{what} {body} {dry}");
        }
    };
    both("/rollback", json!({}), is(409, "NOTHING_TO_ROLL_BACK")).await;
    both(
        "/upgrade",
        json!({"version": "2.0.0"}),
        is(409, "APPROVAL_NEEDED"),
    )
    .await;
    let namespaces = json!([{"name": "notes", "access": ["read"], "note": "n".repeat(64 << 10)}]);
    let too_large =
        json!({"grants": {"alga.storage": {"namespaces": namespaces}}, "approve": true});
    both("/upgrade", too_large, is(400, "BAD_REQUEST")).await;
    done(post("/upgrade", json!({"approve": true}), false)).await;
    done(deployment.admin(Method::DELETE, &of(&installed, ""))).await;
    both(
        "/rollback",
        json!({"approve": true}),
        is(409, "INSTALL_UNINSTALLED"),
    )
    .await;
    let first = json!({"version": "1.0.0", "approve": true});
    both("/upgrade", first, is(409, "INSTALL_UNINSTALLED")).await;
}
