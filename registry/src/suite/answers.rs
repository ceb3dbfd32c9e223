//! Requests that are answered once.

use alga_model::{ContentHash, InstallId, TenantId, Timestamp};

use super::{Outcome, START_MS, assert_refused, at, installed};
use crate::error::{RegistryError, Resource};
use crate::idempotency::{
    AnswerQuota, AnswerQuotas, Claim, Claimed, IdempotencyKey, KeptAnswer, KeyedRequest, Known,
    MAX_ANSWER_BYTES, MAX_ANSWERS_REMOVAL,
};
use crate::install::InstallState;
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
        Claimed::Known(known) => panic!("expected a claim, got {known:?}"),
    }
}

/// Keeps an answer of status 200, where there is room for many.
async fn kept(
    registry: &dyn Registry,
    claim: &Claim,
    content: &[u8],
    ms: i64,
) -> Result<bool, RegistryError> {
    let many = quota(1_000, 1 << 30);
    let quotas = AnswerQuotas {
        install: many,
        tenant: many,
    };
    let until = time(ms + KEPT_MS);
    registry
        .keep_answer(claim, &whole(content), until, quotas)
        .await
}

const fn quota(answers: u64, bytes: u64) -> AnswerQuota {
    AnswerQuota { answers, bytes }
}

fn whole(content: &[u8]) -> KeptAnswer {
    KeptAnswer {
        status: 200,
        bytes: content.len() as u64,
        content: Some(content.to_owned()),
    }
}

/// What is left of an answer whose content had to go.
fn mark(bytes: u64) -> KeptAnswer {
    KeptAnswer {
        status: 200,
        bytes,
        content: None,
    }
}

fn answered(content: &[u8]) -> Claimed {
    Claimed::Known(Known::Answered(whole(content)))
}

const THEIRS: Claimed = Claimed::Known(Known::Theirs);
const OTHER_REQUEST: Claimed = Claimed::Known(Known::OtherRequest);

/// An install of a tenant of its own.
async fn an_install(registry: &dyn Registry) -> Result<InstallId, RegistryError> {
    Ok(installed(registry, "notes", TenantId::generate()).await?.id)
}

/// A request is claimed once, and its answer is the same for everybody from then on.
pub async fn a_request_is_answered_once(registry: &dyn Registry) -> Outcome {
    let request = request(an_install(registry).await?, "k", "content");
    let claim = ours(registry, &request, 0).await?;
    assert_eq!(claimed(registry, &request, 1).await?, THEIRS);
    assert!(kept(registry, &claim, b"answer", 2).await?);
    for _ in 0..2 {
        assert_eq!(claimed(registry, &request, 3).await?, answered(b"answer"));
    }
    // What is answered is answered.
    assert!(!kept(registry, &claim, b"other", 4).await?);
    registry.give_up_request(&claim).await?;
    assert_eq!(claimed(registry, &request, 5).await?, answered(b"answer"));
    Ok(())
}

/// A key belongs to one request, while that is being answered and afterwards.
pub async fn a_key_is_not_used_for_two_requests(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let claim = ours(registry, &first, 0).await?;
    assert_eq!(claimed(registry, &second, 0).await?, OTHER_REQUEST);
    kept(registry, &claim, b"", 0).await?;
    assert_eq!(claimed(registry, &second, 0).await?, OTHER_REQUEST);
    assert_eq!(claimed(registry, &first, 0).await?, answered(b""));
    Ok(())
}

/// Keys differ by install and by case.
pub async fn every_install_has_keys_of_its_own(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
    for request in [
        request(install, "k", "content"),
        request(install, "K", "content"),
        request(an_install(registry).await?, "k", "content"),
    ] {
        ours(registry, &request, 0).await?;
    }
    Ok(())
}

/// A request that is given up is anybody's.
pub async fn a_request_that_is_given_up_can_be_claimed_again(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
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
    let request = request(an_install(registry).await?, "k", "content");
    let late = ours(registry, &request, 0).await?;
    assert_eq!(claimed(registry, &request, LEASE_MS - 1).await?, THEIRS);
    let claim = ours(registry, &request, LEASE_MS).await?;
    assert!(!kept(registry, &late, b"late", LEASE_MS).await?);
    registry.give_up_request(&late).await?;
    assert_eq!(claimed(registry, &request, LEASE_MS).await?, THEIRS);
    assert!(kept(registry, &claim, b"answer", LEASE_MS).await?);
    Ok(())
}

/// A claim whose lease is over is still good while nobody else has claimed the request.
pub async fn an_answer_that_comes_late_is_kept_where_nobody_else_answers(
    registry: &dyn Registry,
) -> Outcome {
    let request = request(an_install(registry).await?, "k", "content");
    let claim = ours(registry, &request, 0).await?;
    assert!(kept(registry, &claim, b"late", LEASE_MS).await?);
    assert_eq!(
        claimed(registry, &request, LEASE_MS).await?,
        answered(b"late")
    );
    Ok(())
}

/// An answer is forgotten at its time, and the key can be used for anything.
pub async fn an_answer_is_kept_until_its_time(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let claim = ours(registry, &first, 0).await?;
    kept(registry, &claim, b"answer", 0).await?;
    assert_eq!(
        claimed(registry, &first, KEPT_MS - 1).await?,
        answered(b"answer")
    );
    let claim = ours(registry, &second, KEPT_MS).await?;
    assert!(kept(registry, &claim, b"second", KEPT_MS).await?);
    Ok(())
}

/// An answer is kept to the largest one, and no larger.
pub async fn an_answer_has_a_bound(registry: &dyn Registry) -> Outcome {
    let request = request(an_install(registry).await?, "k", "content");
    let claim = ours(registry, &request, 0).await?;
    let mut answer = vec![b'x'; MAX_ANSWER_BYTES + 1];
    let refused = kept(registry, &claim, &answer, 0).await;
    assert_refused!(refused, RegistryError::Invalid { .. });
    answer.pop();
    assert!(kept(registry, &claim, &answer, 0).await?);
    assert_eq!(claimed(registry, &request, 1).await?, answered(&answer));
    Ok(())
}

/// Of claims at once exactly one succeeds.
pub async fn of_claims_at_once_one_succeeds(registry: &dyn Registry) -> Outcome {
    for round in 0..10 {
        let request = request(an_install(registry).await?, "k", &format!("round {round}"));
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
    let install = an_install(registry).await?;
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
    assert_eq!(left, answered(b"answer"));
    for limit in [0, MAX_ANSWERS_REMOVAL + 1] {
        let refused = registry.remove_answers(time(now), limit).await;
        assert_refused!(refused, RegistryError::Invalid { .. });
    }
    Ok(())
}

/// What is known of a request is what its claim would find.
pub async fn a_request_is_looked_up_without_being_claimed(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
    let (first, second) = (
        request(install, "k", "first"),
        request(install, "k", "second"),
    );
    let known = async |request: &KeyedRequest, ms| registry.known_request(request, time(ms)).await;
    assert_eq!(known(&first, 0).await?, None);
    let claim = ours(registry, &first, 0).await?;
    assert_eq!(known(&first, 0).await?, Some(Known::Theirs));
    assert_eq!(known(&second, 0).await?, Some(Known::OtherRequest));
    assert_eq!(known(&second, LEASE_MS).await?, None);
    kept(registry, &claim, b"answer", 0).await?;
    let answer = Some(Known::Answered(whole(b"answer")));
    assert_eq!(known(&first, KEPT_MS - 1).await?, answer);
    assert_eq!(known(&first, KEPT_MS).await?, None);
    Ok(())
}

/// Of an answer that is too large it is known that it was given, and how large it was.
pub async fn a_mark_is_kept_without_the_content(registry: &dyn Registry) -> Outcome {
    let request = request(an_install(registry).await?, "k", "content");
    let claim = ours(registry, &request, 0).await?;
    let large = mark(5_000_000);
    let room = quota(1, 0);
    let quotas = AnswerQuotas {
        install: room,
        tenant: room,
    };
    let keep = registry.keep_answer(&claim, &large, time(KEPT_MS), quotas);
    assert!(keep.await?);
    let known = Claimed::Known(Known::Answered(large));
    assert_eq!(claimed(registry, &request, 0).await?, known);
    Ok(())
}

/// Claims and answers each of these requests, one a millisecond from `ms` on, with contents of so
/// many bytes, within `quotas`.
async fn fill(
    registry: &dyn Registry,
    install: InstallId,
    ms: i64,
    answers: &[(&str, usize)],
    quotas: AnswerQuotas,
) -> Outcome {
    for (ms, (key, bytes)) in (ms..).zip(answers) {
        let claim = ours(registry, &request(install, key, key), ms).await?;
        let until = time(ms + KEPT_MS);
        let answer = whole(&vec![b'x'; *bytes]);
        assert!(registry.keep_answer(&claim, &answer, until, quotas).await?);
    }
    Ok(())
}

/// What is left of each of these answers: its content, a mark, or nothing.
async fn left(
    registry: &dyn Registry,
    install: InstallId,
    keys: &[&str],
) -> Result<String, RegistryError> {
    let mut left = String::new();
    for key in keys {
        let known = registry
            .known_request(&request(install, key, key), time(100))
            .await?;
        left.push(match known {
            Some(Known::Answered(KeptAnswer {
                content: Some(_), ..
            })) => 'w',
            Some(Known::Answered(_)) => 'm',
            Some(_) => 'c',
            None => '-',
        });
    }
    Ok(left)
}

/// Beyond the number of answers the oldest are forgotten, claims never.
pub async fn the_oldest_answers_are_forgotten_where_there_are_too_many(
    registry: &dyn Registry,
) -> Outcome {
    let install = an_install(registry).await?;
    let neighbour = an_install(registry).await?;
    let quotas = AnswerQuotas {
        install: quota(2, 1_000),
        tenant: quota(100, 1_000),
    };
    ours(registry, &request(install, "claimed", "claimed"), 0).await?;
    fill(registry, neighbour, 0, &[("a", 1), ("b", 1)], quotas).await?;
    fill(registry, install, 0, &[("a", 1), ("b", 1)], quotas).await?;
    let keys = ["claimed", "a", "b", "c"];
    assert_eq!(left(registry, install, &keys).await?, "cww-");
    fill(registry, install, 2, &[("c", 1)], quotas).await?;
    assert_eq!(left(registry, install, &keys).await?, "c-ww");
    assert_eq!(left(registry, neighbour, &["a", "b"]).await?, "ww");
    // Where less is allowed than before, the next one brings it about.
    let less = AnswerQuotas {
        install: quota(1, 1_000),
        ..quotas
    };
    fill(registry, install, 3, &[("d", 1)], less).await?;
    assert_eq!(
        left(registry, install, &["a", "b", "c", "d"]).await?,
        "---w"
    );
    Ok(())
}

/// Beyond the bytes of their contents the oldest answers become marks, which count for none.
pub async fn the_oldest_answers_become_marks_where_they_are_too_large(
    registry: &dyn Registry,
) -> Outcome {
    let install = an_install(registry).await?;
    let quotas = AnswerQuotas {
        install: quota(100, 10),
        tenant: quota(100, 1_000),
    };
    fill(registry, install, 0, &[("a", 4), ("b", 6)], quotas).await?;
    let keys = ["a", "b", "c", "d", "e"];
    assert_eq!(left(registry, install, &keys).await?, "ww---");
    fill(registry, install, 2, &[("c", 1)], quotas).await?;
    assert_eq!(left(registry, install, &keys).await?, "mww--");
    fill(registry, install, 3, &[("d", 10)], quotas).await?;
    assert_eq!(left(registry, install, &keys).await?, "mmmw-");
    // One that is too large for all there is becomes a mark at once.
    fill(registry, install, 4, &[("e", 11)], quotas).await?;
    assert_eq!(left(registry, install, &keys).await?, "mmmmm");
    let known = registry
        .known_request(&request(install, "e", "e"), time(100))
        .await?;
    assert_eq!(known, Some(Known::Answered(mark(11))));
    Ok(())
}

/// The installs of a tenant share what the tenant may have; those of others have theirs.
pub async fn installs_of_a_tenant_share_what_is_kept_for_it(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let first = installed(registry, "notes", tenant).await?.id;
    let second = installed(registry, "notes", tenant).await?.id;
    let stranger = an_install(registry).await?;
    let quotas = AnswerQuotas {
        install: quota(100, 1_000),
        tenant: quota(3, 10),
    };
    fill(registry, stranger, 0, &[("a", 5), ("b", 5)], quotas).await?;
    fill(registry, first, 0, &[("a", 5), ("b", 5)], quotas).await?;
    fill(registry, second, 2, &[("c", 1)], quotas).await?;
    assert_eq!(left(registry, first, &["a", "b"]).await?, "mw");
    fill(registry, second, 3, &[("d", 1)], quotas).await?;
    assert_eq!(left(registry, first, &["a", "b"]).await?, "-w");
    assert_eq!(left(registry, second, &["c", "d"]).await?, "ww");
    assert_eq!(left(registry, stranger, &["a", "b"]).await?, "ww");
    Ok(())
}

/// What expired, was claimed anew or went with its install takes no room any more.
pub async fn what_is_gone_does_not_count(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let install = installed(registry, "notes", tenant).await?.id;
    let other = installed(registry, "notes", tenant).await?.id;
    let quotas = AnswerQuotas {
        install: quota(2, 10),
        tenant: quota(2, 10),
    };
    let both = [("a", 5), ("b", 5)];
    fill(registry, install, 0, &both, quotas).await?;
    registry.remove_answers(time(2 * KEPT_MS), 10).await?;
    fill(registry, install, 0, &both, quotas).await?;
    assert_eq!(left(registry, install, &["a", "b"]).await?, "ww");
    // Claimed anew after its time, it is no answer until there is another.
    let late = 2 * KEPT_MS;
    ours(registry, &request(install, "a", "a"), late).await?;
    ours(registry, &request(install, "b", "b"), late).await?;
    fill(registry, other, 0, &both, quotas).await?;
    assert_eq!(left(registry, other, &["a", "b"]).await?, "ww");
    registry
        .set_state(other, InstallState::Uninstalled, None, at(5))
        .await?;
    fill(registry, install, 2, &[("c", 5), ("d", 5)], quotas).await?;
    assert_eq!(left(registry, install, &["c", "d"]).await?, "ww");
    Ok(())
}

/// However many answers an install has, all of them go with it, and nobody else's.
pub async fn many_answers_go_with_their_install(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let install = installed(registry, "notes", tenant).await?.id;
    let neighbour = installed(registry, "notes", tenant).await?.id;
    let keys: Vec<_> = (0..200).map(|number| format!("k{number}")).collect();
    let whole: Vec<_> = keys.iter().map(|key| (key.as_str(), 1)).collect();
    let room = AnswerQuotas {
        install: quota(200, 200),
        tenant: quota(400, 400),
    };
    fill(registry, install, 0, &whole, room).await?;
    fill(registry, neighbour, 0, &whole, room).await?;
    registry
        .set_state(install, InstallState::Uninstalled, None, at(1))
        .await?;
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    assert_eq!(left(registry, neighbour, &keys).await?, "w".repeat(200));
    assert_eq!(
        registry.remove_answers(time(2 * KEPT_MS), 1_000).await?,
        200
    );
    Ok(())
}

/// With an install its answers and claims go, and no request to it can be claimed any more.
pub async fn answers_go_with_their_install(registry: &dyn Registry) -> Outcome {
    let install = an_install(registry).await?;
    let neighbour = an_install(registry).await?;
    for install in [install, neighbour] {
        let claim = ours(registry, &request(install, "k", "content"), 0).await?;
        kept(registry, &claim, b"answer", 0).await?;
    }
    let running = ours(registry, &request(install, "running", ""), 0).await?;
    registry
        .set_state(install, InstallState::Disabled, None, at(1))
        .await?;
    let keyed = request(install, "k", "content");
    assert_eq!(claimed(registry, &keyed, 1).await?, answered(b"answer"));
    registry
        .set_state(install, InstallState::Uninstalled, None, at(2))
        .await?;
    assert_eq!(registry.known_request(&keyed, time(2)).await?, None);
    assert!(!kept(registry, &running, b"late", 2).await?);
    for gone in [install, InstallId::generate()] {
        assert_refused!(
            claimed(registry, &request(gone, "k", "content"), 2).await,
            RegistryError::NotFound {
                what: Resource::Install
            }
        );
    }
    let theirs = request(neighbour, "k", "content");
    assert_eq!(claimed(registry, &theirs, 2).await?, answered(b"answer"));
    Ok(())
}
