//! `ANY /v1/installs/{install_id}/http/{path}`.

use alga_e2e::guest;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::deployment::{Deployment, get, refusal};

#[tokio::test]
async fn path_and_body_reach_the_guest_as_they_came() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.path", &guest::echo_request());
    for path in [
        "",
        "/",
        "/a",
        "/a/b%2Fc/%20d",
        "/a//b/",
        "/%E6%97%A5",
        "/%ff",
        "/a%ff/%C3%28",
        "/v1/installs/x/http/y",
    ] {
        let url = format!("/v1/installs/{}/http{path}", installed.install);
        let response = deployment.request(Method::GET, &url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let expected = if path.is_empty() { "/" } else { path };
        assert_eq!(response.text().await.unwrap(), expected);
    }

    let installed = deployment.install("com.example.echo", &guest::echo());
    let url = format!("/v1/installs/{}/http/", installed.install);
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for method in [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::from_bytes(b"REPORT").unwrap(),
    ] {
        let response = deployment
            .request(method.clone(), &url)
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(response.bytes().await.unwrap(), body, "{method}");
    }
}

#[tokio::test]
async fn an_answer_gets_no_rights_on_the_products_origin() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let url = format!("/v1/installs/{}/http/", installed.install);
    // The guest answers with the headers it was given, so it can be made to answer anything.
    let response = deployment
        .request(Method::GET, &url)
        .header("set-cookie", "admin=1")
        .header("access-control-allow-origin", "*")
        .header("strict-transport-security", "max-age=1")
        .header("x-content-type-options", "off")
        .header("content-security-policy", "default-src *")
        .header("content-type", "text/html")
        .header("x-own", "kept")
        .send()
        .await
        .unwrap();
    let headers = response.headers();
    for gone in [
        "set-cookie",
        "access-control-allow-origin",
        "strict-transport-security",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(
        headers
            .get_all("content-security-policy")
            .iter()
            .any(|policy| policy == "sandbox")
    );
    assert_eq!(
        (&headers["content-type"], &headers["x-own"]),
        (&"text/html".parse().unwrap(), &"kept".parse().unwrap())
    );
}

#[tokio::test]
async fn an_answer_acts_on_nothing_but_itself() {
    let gone = [
        ("Alt-Svc", "h3=\":443\""),
        ("clear-site-data", "\"*\""),
        ("nel", "{\"report_to\":\"evil\",\"max_age\":1}"),
        ("proxy-authenticate", "Basic realm=x"),
        ("refresh", "0;url=https://evil.example"),
        ("Report-To", "{}"),
        ("reporting-endpoints", "evil=\"https://evil.example\""),
        ("service-worker-allowed", "/"),
        ("Set-Cookie", "admin=1"),
        ("set-cookie2", "admin=1"),
        ("WWW-Authenticate", "Basic realm=x"),
        ("x-alga-actor", "admin"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let mut headers = gone.to_vec();
    headers.push(("x-own", "kept"));
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.acting", &guest::answer_with(&headers));
    let url = format!("/v1/installs/{}/http/", installed.install);
    let response = deployment.request(Method::GET, &url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-own"], "kept");
    for (name, value) in gone {
        let came = response.headers().get(name);
        assert!(came.is_none_or(|came| came != value), "{name}: {came:?}");
    }
    // Nor through the envelope, whose answer a gateway may copy as it is.
    let answer = deployment.call(&installed, get("/")).await;
    assert_eq!(answer.headers, json!({ "x-own": "kept" }));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let deployment = Deployment::started();
    for (path, code) in [
        (
            format!("/v1/installs/{}/http/", Uuid::new_v4()),
            "NOT_FOUND",
        ),
        ("/v1/installs/acme/http/".to_owned(), "NOT_FOUND"),
        ("/v1/nothing".to_owned(), "NO_SUCH_PATH"),
        ("/".to_owned(), "NO_SUCH_PATH"),
    ] {
        let response = deployment.request(Method::GET, &path).send().await.unwrap();
        let expected = (404, code.to_owned());
        assert_eq!(refusal(response).await, expected, "{path}");
    }
    let response = deployment
        .request(Method::GET, "/v1/execute")
        .send()
        .await
        .unwrap();
    assert_eq!(
        refusal(response).await,
        (405, "METHOD_NOT_ALLOWED".to_owned())
    );
}
