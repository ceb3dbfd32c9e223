//! The example in Python, end to end: what it answers and what it stores.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::deployment::{Answer, Deployment, Installed, get, send};
use crate::example::{ASSETS, expire_records, record, refused};

/// The devices of most tests: two of Acme, one of them without a warranty, and one of Initech.
const TABLE: &str = "tag,client,kind,model,warranty\n\
                     LAP-1,Acme,laptop,T14,2020-01-31\n\
                     LAP-2,Initech,laptop,\"X1, \"\"Carbon\"\"\",2999-12-31\n\
                     PRN-1,Acme,printer,MFC,\n";

/// A request that imports a table.
fn import(table: &str) -> Value {
    json!({
        "method": "POST",
        "path": "/imports",
        "headers": {"content-type": "text/csv"},
        "body_b64": STANDARD.encode(table),
    })
}

/// A server, and the example with the devices of [`TABLE`].
async fn stocked() -> (Deployment, Installed) {
    let (mut deployment, installed) = ASSETS.installed();
    deployment.start();
    let imported = deployment.call(&installed, import(TABLE)).await;
    assert_eq!(imported.json(), json!({"imported": 3, "refused": {}}));
    (deployment, installed)
}

fn tags(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["tag"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_table_is_imported_found_by_prefix_and_counted() {
    let (deployment, installed) = stocked().await;
    let call = async |http: Value| deployment.call(&installed, http).await;

    let stored = record(&deployment, &installed, "assets", "LAP-2");
    assert_eq!(
        (&stored["value"], &stored["metadata"]),
        (
            &json!({"client": "Initech", "kind": "laptop", "model": "X1, \"Carbon\"", "warranty": "2999-12-31"}),
            &json!({"client": "Initech", "kind": "laptop", "warranty": "2999-12-31"})
        )
    );
    let search = |query: Value| json!({"method": "GET", "path": "/assets", "query": query});
    let laptops = call(search(json!({"prefix": "LAP-"}))).await.json();
    assert_eq!(tags(&laptops), ["LAP-1", "LAP-2"]);
    let first = call(search(json!({"limit": "2"}))).await.json();
    assert_eq!(tags(&first), ["LAP-1", "LAP-2"]);
    let cursor = &first["nextCursor"];
    let second = call(search(json!({"limit": "2", "cursor": cursor}))).await;
    assert_eq!(tags(&second.json()), ["PRN-1"]);
    assert_eq!(second.json()["nextCursor"], Value::Null);

    assert_eq!(
        call(get("/report")).await.json(),
        json!({
            "assets": 3,
            "byClient": {"Acme": 2, "Initech": 1},
            "byKind": {"laptop": 2, "printer": 1},
            "warrantyEnded": 1,
        })
    );
}

#[tokio::test]
async fn rows_that_cannot_be_imported_are_told_and_keep_back_no_others() {
    let (deployment, installed) = stocked().await;
    let (long, large) = ("x".repeat(65), "x".repeat(65_536));
    let table = format!(
        "tag,client,kind,model,warranty\n\
         LAP-1,Other,laptop,T15,\n\
         a/b,Acme,laptop,T14,\n\
         {long},Acme,laptop,T14,\n\
         LAP-3,Acme,laptop,T14,\n\
         LAP-3,Acme,laptop,T14,\n\
         LAP-4,Acme,laptop,T14,,one too many\n\
         ,Acme,laptop,T14,\n\
         LAP-5,Acme,laptop,{large},\n\
         LAP-6,Acme,laptop,T14,\n"
    );
    let imported = deployment.call(&installed, import(&table)).await;
    assert_eq!(imported.status, 200, "{}", imported.json());
    assert_eq!(
        imported.json(),
        json!({
            "imported": 2,
            "refused": {
                "LAP-1": "EXISTS",
                "a/b": "BAD_REQUEST",
                long: "BAD_REQUEST",
                "line 8": "BAD_REQUEST",
                "LAP-5": "LIMIT_EXCEEDED",
                "LAP-3": "DUPLICATE",
                "LAP-4": "BAD_REQUEST",
            },
        })
    );
    let kept = record(&deployment, &installed, "assets", "LAP-1");
    assert_eq!(kept["value"]["client"], "Acme");

    let rows = |count: usize| {
        let rows = (0..count).map(|i| format!("BULK-{i:03},Acme,phone,P8,"));
        let names = "tag,client,kind,model,warranty".to_owned();
        let table: Vec<_> = std::iter::once(names).chain(rows).collect();
        import(&table.join("\n"))
    };
    let too_many = deployment.call(&installed, rows(201)).await;
    assert_eq!(refused(&too_many), (400, "BAD_REQUEST".into()));
    let most = deployment.call(&installed, rows(200)).await;
    assert_eq!(most.json(), json!({"imported": 200, "refused": {}}));
    let report = deployment.call(&installed, get("/report")).await.json();
    assert_eq!(report["assets"], 205);
}

#[tokio::test]
async fn changes_at_once_lose_no_field() {
    let (deployment, installed) = stocked().await;
    // Four at a time: it is tried five times to change, so none can lose against three others.
    for round in 0..3 {
        let change = |field: &str| {
            let body = json!({field: format!("{field} {round}")});
            deployment.call(&installed, send("PATCH", "/assets/LAP-1", &body))
        };
        let answers = tokio::join!(
            change("client"),
            change("kind"),
            change("model"),
            change("warranty")
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert_eq!(answer.status, 200, "{}", answer.json());
        }
    }
    let stored = record(&deployment, &installed, "assets", "LAP-1");
    assert_eq!(
        stored["value"],
        json!({"client": "client 2", "kind": "kind 2", "model": "model 2", "warranty": "warranty 2"})
    );
    assert_eq!(stored["revision"], 13, "each change is one write");
    assert_eq!(stored["metadata"]["client"], "client 2");
}

#[tokio::test]
async fn a_device_is_lent_once_and_comes_back_by_itself() {
    let (mut deployment, installed) = stocked().await;
    let lend = |to: &str, days: u64| {
        send(
            "PUT",
            "/assets/LAP-1/loan",
            &json!({"to": to, "days": days}),
        )
    };
    let lent = deployment.call(&installed, lend("ann", 2)).await;
    assert_eq!(lent.status, 201, "{}", lent.json());
    let taken = deployment.call(&installed, lend("bob", 2)).await;
    assert_eq!(refused(&taken), (409, "REVISION_MISMATCH".into()));
    assert_eq!(taken.json()["error"]["current"]["to"], "ann");
    let stored = record(&deployment, &installed, "loans", "LAP-1");
    let device = record(&deployment, &installed, "assets", "LAP-1");
    // RFC 3339 with milliseconds; what differs is how UTC is written.
    let time = |record: &Value, name: &str| record[name].as_str().unwrap()[..23].to_owned();
    let (before, since) = (time(&device, "createdAt"), time(&lent.json(), "since"));
    let after = time(&stored, "createdAt");
    assert!(
        before <= since && since <= after,
        "its clock is the host's: {before} {since} {after}"
    );
    assert_eq!(time(&lent.json(), "until"), time(&stored, "ttlExpiresAt"));
    let read = deployment.call(&installed, get("/assets/LAP-1")).await;
    assert_eq!(read.json()["loan"]["to"], "ann");

    deployment.terminate();
    assert!(deployment.wait(), "{}", deployment.log());
    expire_records(&deployment);
    deployment.start();
    let read = deployment.call(&installed, get("/assets/LAP-1")).await;
    assert_eq!(read.json()["loan"], Value::Null);
    let call = async |http: Value| deployment.call(&installed, http).await;
    assert_eq!(call(lend("bob", 30)).await.status, 201);
    let back = json!({"method": "DELETE", "path": "/assets/LAP-1/loan"});
    assert_eq!(call(back.clone()).await.status, 204);
    assert_eq!(refused(&call(back).await), (404, "NOT_FOUND".into()));
    assert_eq!(refused(&call(lend("bob", 31)).await).0, 400);
    assert_eq!(refused(&call(lend("bob", 0)).await).0, 400);
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_with_a_status_and_a_code() {
    let (deployment, installed) = stocked().await;
    let call = async |http: Value| deployment.call(&installed, http).await;
    let code = async |http: Value| refused(&call(http).await);

    assert_eq!(code(get("/assets/none")).await, (404, "NOT_FOUND".into()));
    assert_eq!(code(get("/nothing")).await, (404, "NOT_FOUND".into()));
    let wrong = call(json!({"method": "POST", "path": "/assets"})).await;
    assert_eq!(refused(&wrong), (405, "METHOD_NOT_ALLOWED".into()));
    assert_eq!(wrong.headers["allow"], "GET");
    for (field, value) in [("colour", json!("red")), ("kind", json!(7))] {
        let change = send("PATCH", "/assets/LAP-1", &json!({ field: value }));
        assert_eq!(code(change).await, (400, "BAD_REQUEST".into()), "{field}");
    }
    let large = json!({"model": "x".repeat(70_000)});
    let large = send("PATCH", "/assets/LAP-1", &large);
    assert_eq!(code(large).await, (400, "LIMIT_EXCEEDED".into()));
    let tampered = json!({"method": "GET", "path": "/assets", "query": {"cursor": "AAAA"}});
    assert_eq!(code(tampered).await, (400, "VALIDATION_FAILED".into()));
    let mut deep = import("");
    deep["path"] = json!("/assets/LAP-1");
    deep["method"] = json!("PATCH");
    deep["body_b64"] = json!(STANDARD.encode("[".repeat(100_000)));
    assert_eq!(code(deep).await, (400, "BAD_REQUEST".into()));

    let delete = json!({"method": "DELETE", "path": "/assets/PRN-1"});
    assert_eq!(call(delete.clone()).await.status, 204);
    assert_eq!(code(delete).await, (404, "NOT_FOUND".into()));

    let mut narrowed = installed.envelope(&get("/assets"));
    narrowed["providers"] = json!([]);
    let answer: Value = deployment.execute(&narrowed).await.json().await.unwrap();
    let denied = refused(&Answer::of(&answer));
    assert_eq!(denied, (403, "CAPABILITY_DENIED".into()));
}
