//! The example in TypeScript, end to end: what it answers and what it stores.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::deployment::{Answer, get, send};
use crate::example::{TICKETS, expire_records, record, refused};

/// A request that creates a ticket.
fn ticket(id: &str) -> Value {
    let body = json!({"id": id, "client": "Acme", "title": "Printer on fire"});
    send("POST", "/tickets", &body)
}

/// A request that books minutes on the ticket T-1.
fn booking(technician: &str, minutes: u64) -> Value {
    let body = json!({"technician": technician, "minutes": minutes, "text": "put it out"});
    send("POST", "/tickets/T-1/entries", &body)
}

#[tokio::test]
async fn a_ticket_is_changed_only_by_who_has_seen_its_newest_state() {
    let (mut deployment, installed) = TICKETS.installed_with(&["--set", "company=Nine Wires"]);
    deployment.start();
    let call = async |http: Value| deployment.call(&installed, http).await;

    assert_eq!(call(get("/")).await.json()["company"], "Nine Wires");
    assert_eq!(
        refused(&call(get("/tickets/T-1")).await),
        (404, "NOT_FOUND".into())
    );
    let created = call(ticket("T-1")).await;
    assert_eq!(
        (created.status, created.headers["location"].as_str()),
        (201, Some("tickets/T-1")),
        "{}",
        created.json()
    );
    let taken = call(ticket("T-1")).await;
    assert_eq!(refused(&taken), (409, "REVISION_MISMATCH".into()));
    assert_eq!(
        taken.json()["error"]["current"]["title"],
        "Printer on fire",
        "the conflict shows what is there"
    );

    let put = |title: &str, etag: Option<&str>| {
        let body = json!({"client": "Acme", "title": title, "status": "closed"});
        let mut request = send("PUT", "/tickets/T-1", &body);
        if let Some(etag) = etag {
            request["headers"]["if-match"] = json!(etag);
        }
        request
    };
    assert_eq!(call(put("Blind", None)).await.status, 428);
    let read = call(get("/tickets/T-1")).await;
    let etag = read.headers["etag"].as_str().unwrap();
    assert_eq!(call(put("Printer out", Some(etag))).await.status, 200);
    let stale = call(put("Stale", Some(etag))).await;
    assert_eq!(refused(&stale), (409, "REVISION_MISMATCH".into()));
    assert_eq!(stale.json()["error"]["current"]["title"], "Printer out");
    assert_eq!(call(put("Broken", Some("2"))).await.status, 400);

    let stored = deployment.ok(&[
        "storage",
        "get",
        &installed.install,
        "tickets",
        "ticket:T-1",
    ]);
    assert_eq!(
        stored,
        r#"{"client":"Acme","title":"Printer out","status":"closed","minutes":0}"#
    );
}

#[tokio::test]
async fn technicians_who_book_at_once_lose_no_minute() {
    let (mut deployment, installed) = TICKETS.installed();
    deployment.start();
    assert_eq!(deployment.call(&installed, ticket("T-1")).await.status, 201);
    // Four at a time: it is tried five times to book, so none can lose against three others.
    for round in 0..3_u64 {
        let book = |minutes| deployment.call(&installed, booking("ann", minutes));
        let first = round * 4 + 1;
        let answers = tokio::join!(
            book(first),
            book(first + 1),
            book(first + 2),
            book(first + 3)
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert_eq!(answer.status, 201, "{}", answer.json());
        }
    }
    let stored = record(&deployment, &installed, "tickets", "ticket:T-1");
    assert_eq!(stored["value"]["minutes"], (1..=12).sum::<u64>());
    assert_eq!(stored["revision"], 13, "each booking is one write");

    let mut booked = Vec::new();
    let mut query = json!({"limit": "5"});
    loop {
        let request = json!({"method": "GET", "path": "/tickets/T-1/entries", "query": query});
        let page = deployment.call(&installed, request).await.json();
        booked.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["nextCursor"].as_str() {
            Some(cursor) => query["cursor"] = json!(cursor),
            None => break,
        }
    }
    let minutes: BTreeSet<_> = booked
        .iter()
        .map(|entry| entry["minutes"].as_u64())
        .collect();
    assert_eq!((booked.len(), minutes.len()), (12, 12), "{booked:?}");
    assert!(
        booked.is_sorted_by(|later, earlier| later["at"].as_str() >= earlier["at"].as_str()),
        "the latest first: {booked:?}"
    );
    let tickets = deployment.call(&installed, get("/tickets")).await.json();
    assert_eq!(
        tickets["items"].as_array().unwrap().len(),
        1,
        "entries are no tickets: {tickets}"
    );
}

#[tokio::test]
async fn an_import_creates_all_tickets_or_none() {
    let (mut deployment, installed) = TICKETS.installed();
    deployment.start();
    let import = async |ids: &[&str]| {
        let tickets: Vec<_> = ids
            .iter()
            .map(|id| json!({"id": id, "client": "Acme", "title": "Imported"}))
            .collect();
        let request = send("POST", "/imports", &json!({ "tickets": tickets }));
        deployment.call(&installed, request).await
    };
    let ids = async || {
        let page = deployment.call(&installed, get("/tickets")).await.json();
        let items = page["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(import(&["A-1", "A-2"]).await.status, 201);
    let taken = import(&["B-1", "A-2", "B-2"]).await;
    assert_eq!(refused(&taken), (409, "REVISION_MISMATCH".into()));
    assert_eq!(
        taken.json()["error"]["item"],
        json!({"index": 1, "key": "ticket:A-2"})
    );
    assert_eq!(ids().await, ["A-1", "A-2"]);

    let names: Vec<_> = (0..21).map(|i| format!("C-{i:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let too_many = import(&names).await;
    assert_eq!(refused(&too_many), (400, "LIMIT_EXCEEDED".into()));
    assert_eq!(import(&names[..20]).await.status, 201);
    assert_eq!(ids().await.len(), 22);
    assert_eq!(import(&["bad id"]).await.status, 400);
    assert_eq!(import(&[]).await.status, 400);
}

#[tokio::test]
async fn a_timer_is_booked_when_it_is_stopped_and_forgotten_when_it_is_not() {
    let (mut deployment, installed) = TICKETS.installed_with(&["--set", "timer-hours=2"]);
    deployment.start();
    let start = || {
        let request = send("PUT", "/timers/ann", &json!({"ticket": "T-1"}));
        deployment.call(&installed, request)
    };
    let stop = || {
        deployment.call(
            &installed,
            json!({"method": "DELETE", "path": "/timers/ann"}),
        )
    };

    assert_eq!(start().await.status, 404, "there is no such ticket");
    deployment.call(&installed, ticket("T-1")).await;
    assert_eq!(stop().await.status, 404);
    let started = start().await;
    assert_eq!(started.status, 201, "{}", started.json());
    let stored = record(&deployment, &installed, "timers", "ann");
    assert_eq!(stored["ttlExpiresAt"], started.json()["forgottenAt"]);
    let (created, end) = (&stored["createdAt"], &stored["ttlExpiresAt"]);
    assert_ne!(created, end);
    assert_eq!(start().await.status, 409, "one timer at a time");

    let stopped = stop().await;
    assert_eq!(stopped.status, 200, "{}", stopped.json());
    assert_eq!(stopped.json()["minutes"], 1, "a minute at least");
    assert_eq!(stop().await.status, 404);

    assert_eq!(start().await.status, 201);
    deployment.terminate();
    assert!(deployment.wait(), "{}", deployment.log());
    expire_records(&deployment);
    deployment.start();
    let stop = || {
        deployment.call(
            &installed,
            json!({"method": "DELETE", "path": "/timers/ann"}),
        )
    };
    assert_eq!(stop().await.status, 404, "it is forgotten");
    let stored = record(&deployment, &installed, "tickets", "ticket:T-1");
    assert_eq!(stored["value"]["minutes"], 1, "and never booked");
}

#[tokio::test]
async fn its_clock_is_the_hosts() {
    let (mut deployment, installed) = TICKETS.installed();
    deployment.start();
    deployment.call(&installed, ticket("T-1")).await;
    let booked = deployment.call(&installed, booking("ann", 5)).await.json();
    let before = record(&deployment, &installed, "tickets", "ticket:T-1");
    // Times are RFC 3339 in UTC with milliseconds, so their order as texts is their order in time.
    let (at, created, updated) = (
        booked["entry"]["at"].as_str().unwrap(),
        before["createdAt"].as_str().unwrap(),
        before["updatedAt"].as_str().unwrap(),
    );
    assert!(created <= at && at <= updated, "{created} {at} {updated}");
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_with_a_status_and_a_code() {
    let (mut deployment, installed) = TICKETS.installed();
    let limits = ["install", "limits", &installed.install, "--set"];
    let one_key = r#"{"quotas": {"keysPerNamespace": 1}}"#;
    deployment.ok(&[&limits[..], &[one_key]].concat());
    deployment.start();
    let call = async |http: Value| deployment.call(&installed, http).await;
    let code = async |http: Value| refused(&call(http).await);

    assert_eq!(call(ticket("T-1")).await.status, 201);
    assert_eq!(
        code(ticket("T-2")).await,
        (429, "QUOTA_EXCEEDED".into()),
        "a second key"
    );
    assert_eq!(
        code(booking("ann", 5)).await,
        (429, "QUOTA_EXCEEDED".into())
    );
    let stored = record(&deployment, &installed, "tickets", "ticket:T-1");
    assert_eq!(stored["value"]["minutes"], 0, "both records or neither");

    assert_eq!(code(booking("ann", 0)).await, (400, "BAD_REQUEST".into()));
    assert_eq!(code(get("/nothing")).await, (404, "NOT_FOUND".into()));
    let wrong = call(json!({"method": "PATCH", "path": "/tickets"})).await;
    assert_eq!(refused(&wrong), (405, "METHOD_NOT_ALLOWED".into()));
    assert_eq!(wrong.headers["allow"], "GET, POST");
    let mut malformed = ticket("T-3");
    malformed["body_b64"] = json!("e30x");
    assert_eq!(code(malformed).await, (400, "BAD_REQUEST".into()));
    let tampered = json!({"method": "GET", "path": "/tickets", "query": {"cursor": "AAAA"}});
    assert_eq!(code(tampered).await, (400, "VALIDATION_FAILED".into()));

    let mut narrowed = installed.envelope(&get("/tickets"));
    narrowed["providers"] = json!([]);
    let answer: Value = deployment.execute(&narrowed).await.json().await.unwrap();
    let denied = refused(&Answer::of(&answer));
    assert_eq!(denied, (403, "CAPABILITY_DENIED".into()));
}
