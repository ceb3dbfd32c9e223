//! A tenant whose guests compute without end leaves the others their part of the machine. How large
//! that part is, the unit tests of the turns show and the benchmark `engine/neighbour` measures.

use alga_e2e::guest;
use futures_util::future::join_all;
use serde_json::json;

use crate::deployment::{Deployment, Installed, get};

/// Calls at once, of all tenants but the looping one.
const CALLS: usize = 200;
const TENANTS: usize = 4;
const LOOPS: usize = 50;

/// A server on which no call is late, however busy the machine is.
fn patient() -> Deployment {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "60000");
    deployment.start();
    deployment
}

/// Does something while so many calls run, none of which may be answered before it is done.
async fn beside(
    deployment: &Deployment,
    busy: &Installed,
    calls: usize,
    work: impl Future<Output = ()>,
) {
    let envelope = busy.envelope(&get("/"));
    let work = async {
        deployment.until_there(calls, 0).await;
        work.await;
        deployment.until_there(calls, 0).await;
    };
    tokio::select! {
        answered = join_all((0..calls).map(|_| deployment.execute(&envelope))) => {
            panic!("answered: {answered:?}")
        }
        () = work => {}
    }
}

/// Guests that compute without end: one that never pauses, one that again and again waits for nothing.
fn busy_guests() -> [Vec<u8>; 2] {
    [
        guest::endless_loop(),
        guest::compute_between_waits(1_000_000),
    ]
}

#[tokio::test]
async fn calls_of_other_tenants_are_answered_beside_loops_that_are_gone_when_given_up() {
    for busy in busy_guests() {
        let deployment = patient();
        let busy = deployment.install("com.example.busy", &busy);
        let good: Vec<_> = (0..TENANTS)
            .map(|tenant| deployment.install(&format!("com.example.good{tenant}"), &guest::echo()))
            .collect();
        beside(&deployment, &busy, LOOPS, async {
            let calls = (0..CALLS).map(|call| deployment.call(&good[call % TENANTS], get("/")));
            for answer in join_all(calls).await {
                assert_eq!(answer.status, 200);
            }
        })
        .await;
        deployment.until_there(0, 0).await;
    }
}

#[tokio::test]
async fn a_long_computation_comes_to_its_end_beside_loops_of_another_tenant() {
    for busy in busy_guests() {
        let deployment = patient();
        let busy = deployment.install("com.example.busy", &busy);
        let computing = deployment.install("com.example.compute", &guest::compute(100_000_000));
        beside(&deployment, &busy, LOOPS, async {
            assert_eq!(deployment.call(&computing, get("/")).await.status, 200);
        })
        .await;
    }
}

#[tokio::test]
async fn who_waits_for_the_host_holds_up_nobody_who_computes() {
    let deployment = patient();
    let sleeping = deployment.install("com.example.sleep", &guest::compute_then_sleep(50_000_000));
    let computing = deployment.install("com.example.compute", &guest::compute(50_000_000));
    let mut brief = computing.envelope(&get("/"));
    brief["limits"] = json!({ "timeout_ms": 20_000 });
    beside(&deployment, &sleeping, 16, async {
        for _ in 0..3 {
            assert_eq!(deployment.execute(&brief).await.status(), 200);
        }
    })
    .await;
}
