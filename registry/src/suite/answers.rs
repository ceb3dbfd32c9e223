//! Requests that are answered once.

use alga_model::{ContentHash, InstallId, Timestamp};

use super::{Outcome, START_MS, assert_refused};
use crate::error::RegistryError;
use crate::idempotency::{
    Claim, Claimed, IdempotencyKey, KeyedRequest, MAX_ANSWER_BYTES, MAX_ANSWERS_REMOVAL,
};
use crate::registry::Registry;

/// How long a claim of the suite lasts.
const LEASE_MS: i64 = 1_000;
/// How long an answer of the suite is kept.
const KEPT_MS: i64 = 10_000;

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(START_MS + ms)
}

fn request(install: InstallId, key: &str, content: &str) -> KeyedRequest {
    let key: IdempotencyKey = key.parse().expect("the suite's keys are valid");
    KeyedRequest {
        install,
        key,
        digest: ContentHash::of(content.as_bytes()),
    }
}

async fn claimed(
    registry: &dyn Registry,
    request: &KeyedRequest,
    ms: i64,
) -> Result<Claimed, RegistryError> {
    let until = time(ms + LEASE_MS);
    registry.claim_request(request, time(ms), until).await
}

/// Claims a request that must be free.
async fn ours(
    registry: &dyn Registry,
    request: &KeyedRequest,
    ms: i64,
) -> Result<Claim, RegistryError> {
    match claimed(registry, request, ms).await? {
        Claimed::Ours(claim) => Ok(claim),
        other => panic!("expected a claim, got {other:?}"),
    }
}

async fn kept(
    registry: &dyn Registry,
    claim: &Claim,
    answer: &[u8],
    ms: i64,
) -> Result<bool, RegistryError> {
    let until = time(ms + KEPT_MS);
    registry.keep_answer(claim, answer, until).await
}

/// A request is claimed once, and its answer is the same for everybody from then on.
pub async fn a_request_is_answered_once(registry: &dyn Registry) -> Outcome {
    let request = request(InstallId::generate(), "k", "content");
    let claim = ours(registry, &request, 0).await?;
    assert_eq!(claimed(registry, &request, 1).await?, Claimed::Theirs);
    assert!(kept(registry, &claim, b"answer", 2).await?);
    for _ in 0..2 {
        let answered = Claimed::Answered(b"answer".to_vec());
        assert_eq!(claimed(registry, &request, 3).await?, answered);
    }
    // What is answered is answered.
    assert!(!kept(registry, &claim, b"other", 4).await?);
    registry.give_up_request(&claim).await?;
    let answered = Claimed::Answered(b"answer".to_vec());
    assert_eq!(claimed(registry, &request, 5).await?, answered);
    Ok(())
}

/// A key belongs to one request, while that is being answered and afterwards.
pub async fn a_key_is_not_used_for_two_requests(registry: &dyn Registry) -> Outcome {
    let install = InstallId::generate();
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let claim = ours(registry, &first, 0).await?;
    assert_eq!(claimed(registry, &second, 0).await?, Claimed::OtherRequest);
    kept(registry, &claim, b"", 0).await?;
    assert_eq!(claimed(registry, &second, 0).await?, Claimed::OtherRequest);
    assert_eq!(
        claimed(registry, &first, 0).await?,
        Claimed::Answered(Vec::new())
    );
    Ok(())
}

/// Keys differ by install and by case.
pub async fn every_install_has_keys_of_its_own(registry: &dyn Registry) -> Outcome {
    let install = InstallId::generate();
    for request in [
        request(install, "k", "content"),
        request(install, "K", "content"),
        request(InstallId::generate(), "k", "content"),
    ] {
        ours(registry, &request, 0).await?;
    }
    Ok(())
}

/// A request that is given up is anybody's.
pub async fn a_request_that_is_given_up_can_be_claimed_again(registry: &dyn Registry) -> Outcome {
    let install = InstallId::generate();
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let claim = ours(registry, &first, 0).await?;
    registry.give_up_request(&claim).await?;
    let other = ours(registry, &second, 0).await?;
    // The former claim is good for nothing any more.
    registry.give_up_request(&claim).await?;
    assert!(!kept(registry, &claim, b"first", 0).await?);
    assert!(kept(registry, &other, b"second", 0).await?);
    Ok(())
}

/// Whoever was answering may have crashed: the claim ends with its lease.
pub async fn a_claim_ends_with_its_lease(registry: &dyn Registry) -> Outcome {
    let request = request(InstallId::generate(), "k", "content");
    let late = ours(registry, &request, 0).await?;
    assert_eq!(
        claimed(registry, &request, LEASE_MS - 1).await?,
        Claimed::Theirs
    );
    let claim = ours(registry, &request, LEASE_MS).await?;
    assert!(!kept(registry, &late, b"late", LEASE_MS).await?);
    registry.give_up_request(&late).await?;
    assert_eq!(
        claimed(registry, &request, LEASE_MS).await?,
        Claimed::Theirs
    );
    assert!(kept(registry, &claim, b"answer", LEASE_MS).await?);
    Ok(())
}

/// A claim whose lease is over is still good while nobody else has claimed the request.
pub async fn an_answer_that_comes_late_is_kept_where_nobody_else_answers(
    registry: &dyn Registry,
) -> Outcome {
    let request = request(InstallId::generate(), "k", "content");
    let claim = ours(registry, &request, 0).await?;
    assert!(kept(registry, &claim, b"late", LEASE_MS).await?);
    let answered = Claimed::Answered(b"late".to_vec());
    assert_eq!(claimed(registry, &request, LEASE_MS).await?, answered);
    Ok(())
}

/// An answer is forgotten at its time, and the key can be used for anything.
pub async fn an_answer_is_kept_until_its_time(registry: &dyn Registry) -> Outcome {
    let install = InstallId::generate();
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let claim = ours(registry, &first, 0).await?;
    kept(registry, &claim, b"answer", 0).await?;
    let answered = Claimed::Answered(b"answer".to_vec());
    assert_eq!(claimed(registry, &first, KEPT_MS - 1).await?, answered);
    let claim = ours(registry, &second, KEPT_MS).await?;
    assert!(kept(registry, &claim, b"second", KEPT_MS).await?);
    Ok(())
}

/// An answer is kept to the largest one, and no larger.
pub async fn an_answer_has_a_bound(registry: &dyn Registry) -> Outcome {
    let request = request(InstallId::generate(), "k", "content");
    let claim = ours(registry, &request, 0).await?;
    let mut answer = vec![b'x'; MAX_ANSWER_BYTES + 1];
    let refused = kept(registry, &claim, &answer, 0).await;
    assert_refused!(refused, RegistryError::Invalid { .. });
    answer.pop();
    assert!(kept(registry, &claim, &answer, 0).await?);
    assert_eq!(
        claimed(registry, &request, 1).await?,
        Claimed::Answered(answer)
    );
    Ok(())
}

/// Of claims at once exactly one succeeds.
pub async fn of_claims_at_once_one_succeeds(registry: &dyn Registry) -> Outcome {
    for round in 0..10 {
        let request = request(InstallId::generate(), "k", &format!("round {round}"));
        let claims = tokio::join!(
            claimed(registry, &request, 0),
            claimed(registry, &request, 0),
            claimed(registry, &request, 0),
        );
        let claims = [claims.0?, claims.1?, claims.2?];
        let ours = |claim: &&Claimed| matches!(claim, Claimed::Ours(_));
        assert_eq!(claims.iter().filter(ours).count(), 1, "{claims:?}");
    }
    Ok(())
}

/// What is expired goes, claims too, the first to expire first; nothing else does.
pub async fn expired_answers_are_removed_in_batches(registry: &dyn Registry) -> Outcome {
    let install = InstallId::generate();
    for (key, ms) in [("a", 0), ("b", 1), ("c", 2)] {
        let claim = ours(registry, &request(install, key, key), ms).await?;
        kept(registry, &claim, b"answer", ms).await?;
    }
    ours(registry, &request(install, "claimed", ""), 0).await?;
    assert_eq!(registry.remove_answers(time(LEASE_MS - 1), 10).await?, 0);
    assert_eq!(registry.remove_answers(time(LEASE_MS), 10).await?, 1);
    assert_eq!(registry.remove_answers(time(KEPT_MS - 1), 10).await?, 0);
    let now = KEPT_MS + 1;
    assert_eq!(registry.remove_answers(time(now), 1).await?, 1);
    assert_eq!(registry.remove_answers(time(now), 10).await?, 1);
    assert_eq!(registry.remove_answers(time(now), 10).await?, 0);
    let left = claimed(registry, &request(install, "c", "c"), now).await?;
    assert_eq!(left, Claimed::Answered(b"answer".to_vec()));
    for limit in [0, MAX_ANSWERS_REMOVAL + 1] {
        let refused = registry.remove_answers(time(now), limit).await;
        assert_refused!(refused, RegistryError::Invalid { .. });
    }
    Ok(())
}
