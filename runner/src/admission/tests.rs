use std::panic::AssertUnwindSafe;

use alga_model::{InstallId, TenantId};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

/// Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn admission(running: usize, longest_wait: Duration) -> Admission {
    let many = Caps {
        running: 1_000,
        waiting: 1_000,
    };
    let limits = Limits {
        process: Caps { running, ..many },
        reserve: 0,
        tenant: many,
        install: many,
    };
    Admission::new(limits, longest_wait)
}

fn somebody() -> Who {
    Who {
        tenant: TenantId::generate(),
        install: InstallId::generate(),
    }
}

fn later() -> Instant {
    Instant::now() + PATIENCE
}

impl Admission {
    fn counts(&self) -> (usize, usize) {
        self.0.change(|queue| (queue.running(), queue.waiting()))
    }
}

#[tokio::test]
async fn a_permit_that_is_dropped_lets_the_next_one_run() {
    let admission = admission(1, PATIENCE);
    let permit = admission
        .admit(somebody(), None, Instant::now(), later())
        .await
        .unwrap();
    let mut next = Box::pin(admission.admit(somebody(), None, Instant::now(), later()));
    assert!((&mut next).now_or_never().is_none());
    assert_eq!(admission.counts(), (1, 1));
    drop(permit);
    let permit = next.await.unwrap();
    assert_eq!(admission.counts(), (1, 0));
    drop(permit);
    assert_eq!(admission.counts(), (0, 0));
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_at_once() {
    let admission = admission(1, PATIENCE);
    let permit = admission
        .admit(somebody(), None, Instant::now(), later())
        .await
        .unwrap();
    let mut gone = Box::pin(admission.admit(somebody(), None, Instant::now(), later()));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    assert_eq!(admission.counts(), (1, 0));
    drop(permit);
    assert_eq!(admission.counts(), (0, 0));
}

#[tokio::test]
async fn a_permit_that_reaches_nobody_goes_to_the_next() {
    let admission = admission(1, PATIENCE);
    let permit = admission
        .admit(somebody(), None, Instant::now(), later())
        .await
        .unwrap();
    let mut gone = Box::pin(admission.admit(somebody(), None, Instant::now(), later()));
    let mut next = Box::pin(admission.admit(somebody(), None, Instant::now(), later()));
    assert!((&mut gone).now_or_never().is_none());
    assert!((&mut next).now_or_never().is_none());
    // Told to run, and gone before it could look.
    drop(permit);
    assert_eq!(admission.counts(), (1, 1));
    drop(gone);
    assert_eq!(admission.counts(), (1, 0));
    drop(next.await.unwrap());
    assert_eq!(admission.counts(), (0, 0));
}

#[tokio::test]
async fn nobody_waits_longer_than_allowed_or_than_the_call_may_take() {
    const SHORT: Duration = Duration::from_millis(20);
    for (admission, deadline) in [
        (admission(1, SHORT), later()),
        (admission(1, PATIENCE), Instant::now() + SHORT),
    ] {
        let _permit = admission
            .admit(somebody(), None, Instant::now(), later())
            .await
            .unwrap();
        let refusal = admission
            .admit(somebody(), None, Instant::now(), deadline)
            .await
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::Process);
        assert_eq!(admission.counts(), (1, 0));
    }
}

#[tokio::test]
async fn after_the_end_who_waits_is_served_and_nobody_else() {
    let admission = admission(1, PATIENCE);
    let permit = admission
        .admit(somebody(), None, Instant::now(), later())
        .await
        .unwrap();
    let mut waiting = Box::pin(admission.admit(somebody(), None, Instant::now(), later()));
    assert!((&mut waiting).now_or_never().is_none());
    admission.close();
    let refusal = admission
        .admit(somebody(), None, Instant::now(), later())
        .await
        .unwrap_err();
    assert_eq!(refusal.reason, Reason::Closed);
    drop(permit);
    assert!(waiting.await.is_ok());
}

#[tokio::test]
async fn a_panic_gives_the_permit_back() {
    let admission = admission(1, PATIENCE);
    let call = async {
        let _permit = admission
            .admit(somebody(), None, Instant::now(), later())
            .await
            .unwrap();
        panic!("of a call");
    };
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert_eq!(admission.counts(), (0, 0));
}

/// Many at once, on several threads; some go away while they wait or just as they are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_permit_is_lost_in_a_storm() {
    let admission = admission(3, Duration::from_millis(2));
    let tenants: Vec<_> = (0..4).map(|_| somebody()).collect();
    let calls = (0..2_000_u32).map(|call| {
        let (admission, who) = (admission.clone(), tenants[call as usize % 4]);
        tokio::spawn(async move {
            let admitted = async {
                let _permit = admission.admit(who, None, Instant::now(), later()).await?;
                assert!(admission.counts().0 <= 3);
                tokio::task::yield_now().await;
                Ok::<_, Refusal>(())
            };
            let patience = Duration::from_micros(u64::from(call % 50) * 40);
            drop(tokio::time::timeout(patience, admitted).await);
        })
    });
    let ended = join_all(calls.collect::<Vec<_>>()).await;
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!(admission.counts(), (0, 0));
}
