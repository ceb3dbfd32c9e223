//! Tokens: absent, wrong, limited; and what of them a guest gets to see.

use alga_e2e::guest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, get, refusal};

#[tokio::test]
async fn without_a_good_token_nothing_that_matters_answers() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let plain = format!("/v1/installs/{}/http/", installed.install);
    let routes = [
        (Method::POST, "/v1/execute"),
        (Method::GET, plain.as_str()),
        (Method::GET, "/metrics"),
    ];
    for (method, route) in routes {
        let request = || deployment.anonymous(method.clone(), route).body("{}");
        let half = &deployment.token()[..20];
        for attempt in [
            request(),
            request().bearer_auth("wrong"),
            request().bearer_auth(""),
            request().bearer_auth(half),
            request().header("x-runner-auth", "wrong"),
            request().header("x-alga-admin", "true"),
            request().basic_auth("service", Some(deployment.token())),
        ] {
            let refused = refusal(attempt.send().await.unwrap()).await;
            assert_eq!(refused, (401, "UNAUTHORIZED".to_owned()), "{route}");
        }
    }
    for open in ["/healthz", "/readyz"] {
        let response = deployment
            .anonymous(Method::GET, open)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn the_token_is_good_in_either_header() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let plain = format!("/v1/installs/{}/http/", installed.install);
    let token = deployment.token();
    let bearer = deployment
        .anonymous(Method::GET, &plain)
        .bearer_auth(&token);
    let runner_auth = deployment
        .anonymous(Method::GET, &plain)
        .header("x-runner-auth", &token);
    for request in [bearer, runner_auth] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_admin_token_is_good_where_a_service_token_is() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let plain = format!("/v1/installs/{}/http/", installed.install);
    let admin = deployment.admin_token();
    assert_ne!(admin, deployment.token());
    for request in [
        deployment.anonymous(Method::GET, "/metrics"),
        deployment.anonymous(Method::GET, &plain),
        deployment
            .anonymous(Method::POST, "/v1/execute")
            .json(&installed.envelope(&get("/"))),
    ] {
        let response = request.bearer_auth(&admin).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{}", response.url());
    }
}

#[tokio::test]
async fn a_limited_token_is_good_for_its_tenants_and_installs_alone() {
    let mut deployment = Deployment::new();
    let mine = deployment.install("com.example.echo", &guest::echo());
    let theirs = deployment.publish(
        "com.example.other",
        &deployment.pack("com.example.other", "1.0.0", &guest::echo_request()),
    );
    let of_tenant = "a-token-for-one-tenant-of-two";
    let of_install = "a-token-for-one-install-of-two";
    let config = format!(
        "[[auth.service_tokens]]\nid = \"tenant\"\ntoken = \"{of_tenant}\"\ntenants = [\"{}\"]\n\
         [[auth.service_tokens]]\nid = \"install\"\ntoken = \"{of_install}\"\ninstalls = [\"{}\"]\n",
        mine.tenant, mine.install
    );
    let file = deployment.scratch("limited.toml");
    std::fs::write(&file, config).unwrap();
    deployment.set("ALGA_CONFIG", file.to_str().unwrap());
    deployment.start();

    let unknown = Uuid::new_v4();
    for token in [of_tenant, of_install] {
        let execute = async |envelope: Value| {
            deployment
                .anonymous(Method::POST, "/v1/execute")
                .bearer_auth(token)
                .json(&envelope)
                .send()
                .await
                .unwrap()
        };
        let plain = async |install: &str| {
            let path = format!("/v1/installs/{install}/http/");
            deployment
                .anonymous(Method::GET, &path)
                .bearer_auth(token)
                .send()
                .await
                .unwrap()
        };
        assert_eq!(
            execute(mine.envelope(&get("/"))).await.status(),
            StatusCode::OK,
            "{token}"
        );
        assert_eq!(
            plain(&mine.install).await.status(),
            StatusCode::OK,
            "{token}"
        );
        // Another's install looks like one that does not exist.
        let foreign = refusal(execute(theirs.envelope(&get("/"))).await).await;
        assert_eq!(foreign, (404, "NOT_FOUND".to_owned()), "{token}");
        assert_eq!(
            refusal(plain(&theirs.install).await).await,
            refusal(plain(&unknown.to_string()).await).await
        );
        let mut unnamed = theirs.envelope(&get("/"));
        unnamed["context"]
            .as_object_mut()
            .unwrap()
            .remove("install_id");
        assert_eq!(refusal(execute(unnamed).await).await.0, 400, "{token}");
        let metrics = deployment
            .anonymous(Method::GET, "/metrics")
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        assert_eq!(
            refusal(metrics).await,
            (403, "FORBIDDEN".to_owned()),
            "{token}"
        );
    }
}

#[tokio::test]
async fn no_credential_reaches_the_guest_or_the_log() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let token = deployment.token();
    let secrets = ["session=hunter2", "Basic aHVudGVyMg==", "hop-secret"];

    let path = format!("/v1/installs/{}/http/", installed.install);
    let response = deployment
        .request(Method::GET, &path)
        .header("x-runner-auth", &token)
        .header("cookie", secrets[0])
        .header("proxy-authorization", secrets[1])
        .header("connection", "x-hop")
        .header("x-hop", secrets[2])
        .header("x-alga-actor", "admin@example.com")
        .header("x-kept", "yes")
        .send()
        .await
        .unwrap();
    // The guest answers with the headers it was given.
    let names: Vec<_> = response
        .headers()
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    assert!(names.contains(&"x-kept".to_owned()), "{names:?}");
    for gone in [
        "authorization",
        "x-runner-auth",
        "cookie",
        "proxy-authorization",
        "x-hop",
        "x-alga-actor",
    ] {
        assert!(
            !names.contains(&gone.to_owned()),
            "{gone} reached the guest"
        );
    }

    let answer = deployment
        .call(
            &installed,
            json!({"method": "GET", "path": "/", "headers": {
                "Authorization": format!("Bearer {token}"), "COOKIE": secrets[0], "X-Runner-Auth": token,
                "Proxy-Authorization": secrets[1], "x-alga-admin": "true", "X-Kept": "yes",
            }}),
        )
        .await;
    assert_eq!(answer.headers, json!({ "x-kept": "yes" }));

    let log = deployment.log();
    for secret in secrets.into_iter().chain([token.as_str()]) {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn the_insecure_mode_is_asked_for_and_loopback_only() {
    let mut deployment = Deployment::new();
    let said = deployment.fails(&["serve", "--insecure-dev", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("insecure"), "{said}");

    let installed = deployment.install("com.example.echo", &guest::echo());
    deployment.set("ALGA_SERVER_INSECURE_DEV", "true");
    deployment.start();
    let path = format!("/v1/installs/{}/http/", installed.install);
    let response = deployment
        .anonymous(Method::GET, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(deployment.log().contains("INSECURE"));
}
