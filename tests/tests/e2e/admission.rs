//! How many calls run at once, who waits, and who is told to come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::deployment::{Deployment, Installed, get};

/// Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(10);

fn set_up(settings: &[(&str, &str)]) -> Deployment {
    let mut deployment = Deployment::new();
    for (name, value) in settings {
        deployment.set(name, value);
    }
    deployment.start();
    deployment
}

/// A call that a guest which never returns gets so long for.
fn lasting(installed: &Installed, timeout_ms: u64) -> Value {
    let mut envelope = installed.envelope(&get("/"));
    envelope["limits"] = json!({ "timeout_ms": timeout_ms });
    envelope
}

/// Refused as one call too many of `limit`, and told when to come back.
async fn ensure_limited(response: Response, limit: &str) {
    let seconds: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(response.status(), 429);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "CONCURRENCY_LIMITED", "{body}");
    assert_eq!(body["error"]["details"], json!({ "limit": limit }));
}

#[tokio::test]
async fn an_install_or_tenant_with_too_many_calls_is_told_to_come_back() {
    for limit in ["install", "tenant"] {
        let name = limit.to_uppercase();
        let deployment = set_up(&[
            (&format!("ALGA_ADMISSION_{name}_CONCURRENCY"), "1"),
            (&format!("ALGA_ADMISSION_{name}_QUEUE"), "2"),
            ("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000"),
            ("ALGA_ENGINE_TIMEOUT_MS", "60000"),
        ]);
        let looping = deployment.install("com.example.loop", &guest::endless_loop());
        let good = deployment.install("com.example.good", &guest::echo());
        let plain = format!("/v1/installs/{}/http/", looping.install);
        let envelope = lasting(&looping, 30_000);
        let three = join_all((0..3).map(|_| deployment.execute(&envelope)));
        let fourth = async {
            deployment.until_there(1, 2).await;
            ensure_limited(deployment.execute(&envelope).await, limit).await;
            let request = deployment.request(Method::GET, &plain);
            ensure_limited(request.send().await.unwrap(), limit).await;
            // Nobody else notices.
            assert_eq!(deployment.call(&good, get("/")).await.status, 200);
        };
        tokio::select! {
            answers = three => panic!("answered: {answers:?}"),
            () = fourth => {}
        }
        // They have hung up, those that waited too.
        deployment.until_there(0, 0).await;
        let metrics = deployment.metrics().await;
        let refused = format!("alga_admission_refusals_total{{reason=\"{limit}\"}} 2\n");
        assert!(metrics.contains(&refused), "{metrics}");
        let log = deployment.log();
        let said = format!("calls are refused, as too many of the {limit} are running");
        assert_eq!(log.matches(&said).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told_what_was_in_the_way() {
    let deployment = set_up(&[
        ("ALGA_ADMISSION_INSTALL_CONCURRENCY", "1"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "50"),
    ]);
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let envelope = lasting(&looping, 2_000);
    let first = deployment.refusal(&envelope);
    let second = async {
        deployment.logged(guest::LOOPING, 1).await;
        ensure_limited(deployment.execute(&envelope).await, "install").await;
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first, (504, "TIMEOUT".to_owned()));
}

#[tokio::test]
async fn waiting_counts_into_the_time_of_a_call() {
    let deployment = set_up(&[
        ("ALGA_ENGINE_MAX_INSTANCES", "1"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000"),
        ("ALGA_ENGINE_TIMEOUT_MS", "60000"),
    ]);
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let running = lasting(&looping, 20_000);
    let waiting = async {
        deployment.logged(guest::LOOPING, 1).await;
        let start = Instant::now();
        let refused = deployment.refusal(&lasting(&looping, 100)).await;
        assert_eq!(refused, (503, "OVERLOADED".to_owned()));
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    };
    tokio::select! {
        answer = deployment.execute(&running) => panic!("answered: {answer:?}"),
        () = waiting => {}
    }
}

#[tokio::test]
async fn a_tenant_with_many_waiting_calls_costs_another_one_turn() {
    let deployment = set_up(&[
        ("ALGA_ENGINE_MAX_INSTANCES", "1"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000"),
        ("ALGA_ENGINE_TIMEOUT_MS", "60000"),
        // What ends a loop after a while, however long it has waited.
        ("ALGA_ENGINE_FUEL", "50000000"),
    ]);
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let good = deployment.install("com.example.good", &guest::echo());
    let envelope = looping.envelope(&get("/"));
    let ended = AtomicUsize::new(0);
    let flood = join_all((0..20).map(async |_| {
        let refused = deployment.refusal(&envelope).await;
        ended.fetch_add(1, Ordering::Relaxed);
        refused
    }));
    let neighbour = async {
        deployment.until_there(1, 19).await;
        let before = ended.load(Ordering::Relaxed);
        assert_eq!(deployment.call(&good, get("/")).await.status, 200);
        let turns = ended.load(Ordering::Relaxed) - before;
        // What ran, one turn of the other tenant, and one that ended before this call was there.
        assert!(turns <= 3, "{turns} calls came first");
    };
    let (refused, ()) = tokio::join!(flood, neighbour);
    let timeout = (504, "TIMEOUT".to_owned());
    assert!(refused.iter().all(|refused| *refused == timeout));
}

#[tokio::test]
async fn in_a_storm_no_call_lacks_a_slot_and_no_permit_is_lost() {
    let deployment = set_up(&[
        ("ALGA_ENGINE_MAX_INSTANCES", "3"),
        ("ALGA_ADMISSION_TENANT_CONCURRENCY", "2"),
        ("ALGA_ADMISSION_TENANT_QUEUE", "20"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "200"),
    ]);
    let installed = [
        deployment.install("com.example.loop", &guest::endless_loop()),
        deployment.install("com.example.trap", &guest::trap()),
        deployment.install("com.example.start", &guest::trap_in_start()),
        deployment.install("com.example.good", &guest::echo()),
    ];
    let [looping, _, _, good] = &installed;
    let storm = join_all((0..400).map(async |call| {
        let envelope = lasting(&installed[call % 4], 30);
        // A third of the callers hang up.
        let patience = match call % 3 {
            0 => Duration::from_micros(call as u64 * 100),
            _ => PATIENCE,
        };
        let answer = tokio::time::timeout(patience, deployment.execute(&envelope)).await;
        answer.map(|answer| answer.status().as_u16()).ok()
    }));
    // Who comes again gets through, in the storm or after it.
    let persistent = async {
        let envelope = lasting(good, 10_000);
        while deployment.execute(&envelope).await.status() != 200 {}
    };
    let (statuses, ()) = tokio::join!(storm, persistent);
    let statuses: Vec<_> = statuses.into_iter().flatten().collect();
    let expected = [200, 429, 502, 503, 504];
    assert!(
        statuses.iter().all(|status| expected.contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
    deployment.until_there(0, 0).await;
    // All three places are there, the one of the reserve for who runs nothing else.
    let other = deployment.install("com.example.other", &guest::endless_loop());
    let third = deployment.install("com.example.third", &guest::endless_loop());
    let envelopes = [looping, &other, &third].map(|installed| lasting(installed, 10_000));
    tokio::select! {
        answers = join_all(envelopes.iter().map(|envelope| deployment.execute(envelope))) => {
            panic!("answered: {answers:?}")
        }
        () = deployment.until_there(3, 0) => {}
    }
}

#[tokio::test]
async fn a_third_tenant_gets_in_while_two_flood() {
    let deployment = set_up(&[
        ("ALGA_ENGINE_MAX_INSTANCES", "4"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000"),
        ("ALGA_ENGINE_TIMEOUT_MS", "60000"),
    ]);
    let floods = [
        deployment.install("com.example.first", &guest::endless_loop()),
        deployment.install("com.example.second", &guest::endless_loop()),
    ];
    let good = deployment.install("com.example.good", &guest::echo());
    let envelopes = floods.each_ref().map(|flood| lasting(flood, 60_000));
    let first_calls = join_all(
        envelopes
            .iter()
            .map(|envelope| deployment.execute(envelope)),
    );
    let more = async {
        // The reserve is for who runs nothing yet, as these do until then.
        deployment.until_there(2, 0).await;
        join_all((0..10).map(|call| deployment.execute(&envelopes[call % 2]))).await
    };
    let third = async {
        deployment.until_there(3, 9).await;
        for _ in 0..3 {
            assert_eq!(deployment.call(&good, get("/")).await.status, 200);
        }
        deployment.until_there(3, 9).await;
    };
    tokio::select! {
        answers = first_calls => panic!("answered: {answers:?}"),
        answers = more => panic!("answered: {answers:?}"),
        () = third => {}
    }
}

#[tokio::test]
async fn an_install_may_have_a_number_of_its_own() {
    let deployment = set_up(&[
        ("ALGA_ADMISSION_INSTALL_CONCURRENCY", "2"),
        ("ALGA_ADMISSION_QUEUE_WAIT_MS", "20"),
        ("ALGA_ENGINE_TIMEOUT_MS", "60000"),
    ]);
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let by_command = |concurrency: &str| {
        let command = ["install", "set", "--concurrency", concurrency];
        deployment.ok(&[&command[..], &[&looping.install]].concat())
    };
    let envelope = lasting(&looping, 60_000);
    let path = format!("/v1/installs/{}", looping.install);
    let by_server = async |concurrency: Value| {
        let request = deployment.admin(Method::PATCH, &path);
        let body = json!({ "concurrency": concurrency });
        let changed = request.json(&body).send().await.unwrap();
        assert_eq!(changed.status(), 200);
    };
    // One that ends at once where it runs.
    let is_limited = async || {
        let answer = deployment.execute(&lasting(&looping, 1)).await;
        answer.status() == 429
    };
    let shown: Value = serde_json::from_str(&by_command("1")).unwrap();
    assert_eq!(shown["concurrency"], 1);
    let script = async {
        deployment.until_there(1, 0).await;
        ensure_limited(deployment.execute(&envelope).await, "install").await;
        // Also more than the configuration says; at once in the server that was told.
        by_server(json!(3)).await;
        tokio::select! {
            answers = join_all((0..2).map(|_| deployment.execute(&envelope))) => {
                panic!("answered: {answers:?}")
            }
            () = async {
                deployment.until_there(3, 0).await;
                ensure_limited(deployment.execute(&envelope).await, "install").await;
            } => {}
        }
        deployment.until_there(1, 0).await;
        assert!(!is_limited().await);
        // Another process told the database.
        by_command("1");
        let since = Instant::now();
        while !is_limited().await {
            assert!(since.elapsed() < PATIENCE, "it was not noticed");
        }
        by_server(json!(null)).await;
        assert!(!is_limited().await);
    };
    tokio::select! {
        answer = deployment.execute(&envelope) => panic!("answered: {answer:?}"),
        () = script => {}
    }
}
