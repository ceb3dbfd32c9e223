//! Counters, quotas and rates.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::time::Duration;

use alga_model::TenantId;

use super::Stage;
use super::stage::{item, namespace};
use crate::{Error, Guard, Limits, PutRequest, Quota, QuotaName, Quotas, RateLimit, Rates};

fn with_quotas(quotas: Quotas) -> Limits {
    Limits {
        quotas,
        ..Stage::roomy()
    }
}

fn exceeded(error: Error) -> Quota {
    match error {
        Error::QuotaExceeded(quota) => quota,
        other => panic!("expected a quota, not {other}"),
    }
}

pub async fn counters_follow_every_operation(stage: &Stage) {
    let install = stage.install();
    let counted = async || {
        let usage = install.usage().await.unwrap();
        (usage.keys, usage.bytes, usage.per_namespace.len())
    };
    assert_eq!(counted().await, (0, 0, 0));
    // A value of 5 bytes and metadata of 2.
    install.put("a", "\"abc\"").await.unwrap();
    assert_eq!(counted().await, (1, 7, 1));
    install.put("a", "1").await.unwrap();
    assert_eq!(counted().await, (1, 3, 1));
    install
        .put_if("a", "12345", Guard::Absent)
        .await
        .unwrap_err();
    assert_eq!(counted().await, (1, 3, 1));
    install
        .bulk_put(vec![item("b", "1", Guard::Any), item("c", "1", Guard::Any)])
        .await
        .unwrap();
    assert_eq!(counted().await, (3, 9, 1));
    for key in ["a", "b", "c", "c"] {
        install.delete(key).await.unwrap();
    }
    assert_eq!(counted().await, (0, 0, 0));
}

pub async fn keys_bytes_and_namespaces_stop_at_their_quota(stage: &Stage) {
    let quotas = Quotas {
        keys_per_namespace: 2,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    install.put("a", "1").await.unwrap();
    install.put("b", "1").await.unwrap();
    let quota = exceeded(install.put("c", "1").await.unwrap_err());
    assert_eq!(
        (quota.name, quota.limit, quota.used, quota.attempted),
        (QuotaName::KeysPerNamespace, 2, 2, 3)
    );
    install.put("b", "2").await.unwrap();
    assert!(install.delete("a").await.unwrap());
    install.put("c", "1").await.unwrap();

    let quotas = Quotas {
        bytes_per_install: 10,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    install.put("a", "12345678").await.unwrap();
    assert_eq!(
        exceeded(install.put("b", "1").await.unwrap_err()).name,
        QuotaName::BytesPerInstall
    );
    assert_eq!(
        exceeded(install.put("a", "123456789").await.unwrap_err()).attempted,
        11
    );
    install.put("a", "12345").await.unwrap();
    install.put("b", "1").await.unwrap();

    let quotas = Quotas {
        namespaces: 1,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    let put_to = async |name: &str| {
        let request = PutRequest {
            namespace: namespace(name),
            item: item("k", "1", Guard::Any),
            return_previous: false,
            return_current: false,
        };
        install.gate().put(&install.caller, request).await
    };
    put_to("notes").await.unwrap();
    assert_eq!(
        exceeded(put_to("cache").await.unwrap_err()).name,
        QuotaName::Namespaces
    );
    assert!(install.delete("k").await.unwrap());
    put_to("cache").await.unwrap();

    let tenant = TenantId::generate();
    let quotas = Quotas {
        bytes_per_tenant: 10,
        ..Quotas::default()
    };
    let one = stage.install_with(tenant, with_quotas(quotas));
    let two = stage.install_with(tenant, with_quotas(quotas));
    one.put("a", "123").await.unwrap();
    two.put("a", "123").await.unwrap();
    assert_eq!(
        exceeded(one.put("b", "1").await.unwrap_err()).name,
        QuotaName::BytesPerTenant
    );
    stage
        .install_with(TenantId::generate(), with_quotas(quotas))
        .put("a", "12345678")
        .await
        .unwrap();
}

pub async fn a_batch_is_judged_as_a_whole(stage: &Stage) {
    let quotas = Quotas {
        bytes_per_install: 14,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    install.put("a", "12345").await.unwrap();
    install.put("b", "12345").await.unwrap();
    // Grows first and shrinks then: in the end there are as many bytes as before.
    let swap = |a: &str, b: &str| vec![item("a", a, Guard::Any), item("b", b, Guard::Any)];
    install.bulk_put(swap("1234567", "123")).await.unwrap();
    let refused = install.bulk_put(swap("12345678", "123")).await.unwrap_err();
    assert_eq!(refused.item.unwrap().index, 0);
    assert_eq!(exceeded(refused.error).attempted, 15);
    assert_eq!(install.get("a").await.unwrap().value.as_str(), "1234567");
}

pub async fn the_quota_that_is_exceeded_in_the_end_is_named(stage: &Stage) {
    let quotas = Quotas {
        bytes_per_install: 20,
        keys_per_namespace: 2,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    install.put("a", "1234567").await.unwrap();
    install.put("b", "1234567").await.unwrap();
    // First too many bytes, then fewer again, and one key too many.
    let items = [("a", "1234567890123"), ("b", "1"), ("a2", "1")];
    let items = items
        .map(|(key, value)| item(key, value, Guard::Any))
        .to_vec();
    let refused = install.bulk_put(items).await.unwrap_err();
    assert_eq!(refused.item.unwrap().index, 2);
    assert_eq!(exceeded(refused.error).name, QuotaName::KeysPerNamespace);
}

pub async fn racing_writers_stop_exactly_at_the_quota(stage: &Stage) {
    let quotas = Quotas {
        keys_per_namespace: 20,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    let writers = (0..64).map(|i| {
        let install = install.clone();
        async move { install.put(&format!("k{i}"), "1").await }
    });
    let outcomes = futures_util::future::join_all(writers).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        20
    );
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(exceeded(refused).used, 20);
    }
    assert_eq!(install.usage().await.unwrap().keys, 20);
}

pub async fn rates_refuse_with_the_time_to_wait(stage: &Stage) {
    let slow = RateLimit {
        per_second: 1,
        burst: 2,
    };
    let rates = Rates::new(slow, slow, Rates::TENANT_FACTOR);
    let install = stage.install_with(
        TenantId::generate(),
        Limits {
            rates,
            ..Limits::default()
        },
    );
    install
        .bulk_put(vec![item("a", "1", Guard::Any), item("b", "1", Guard::Any)])
        .await
        .unwrap();
    let Err(Error::RateLimited { retry_after }) = install.put("c", "1").await else {
        panic!("a third write within a second was allowed");
    };
    assert!(
        retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1),
        "{retry_after:?}"
    );
    assert_eq!(
        install
            .get_many(&["a", "c"])
            .await
            .unwrap()
            .iter()
            .flatten()
            .count(),
        1
    );
    assert!(matches!(
        install.get("a").await,
        Err(Error::RateLimited { .. })
    ));
}
