//! Expired records: invisible at once, gone soon, and never in the way.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::time::Duration;

use alga_model::TenantId;

use super::stage::{Install, Stage, item, namespace};
use crate::{
    AuditFilter, AuditRecord, BulkItem, BulkPutRequest, Error, Guard, Limits, PutRequest, Quota,
    QuotaName, Quotas, Removed,
};

const TTL: Duration = Duration::from_secs(60);

fn with_quotas(quotas: Quotas) -> Limits {
    Limits {
        quotas,
        ..Stage::roomy()
    }
}

fn expiring(key: &str, value: &str) -> BulkItem {
    BulkItem {
        ttl_seconds: Some(TTL.as_secs()),
        ..item(key, value, Guard::Any)
    }
}

async fn put_to(install: &Install<'_>, name: &str, item: BulkItem) -> Result<u64, Error> {
    let request = PutRequest {
        namespace: namespace(name),
        item,
        return_previous: false,
        return_current: false,
    };
    let written = install.gate().put(&install.caller, request).await?;
    Ok(written.revision.get())
}

/// Stores `count` records that expire, a few in a request.
async fn fill(install: &Install<'_>, name: &str, count: usize) {
    for first in (0..count).step_by(20) {
        let items = (first..count.min(first + 20)).map(|i| expiring(&format!("e{i:06}"), "1"));
        let request = BulkPutRequest {
            namespace: namespace(name),
            items: items.collect(),
        };
        let filled = install.gate().bulk_put(&install.caller, request).await;
        assert_eq!(filled.unwrap().len(), 20.min(count - first));
    }
}

async fn expired(install: &Install<'_>) -> u64 {
    install.usage().await.unwrap().expired_keys
}

fn refused_by(error: Error) -> Quota {
    match error {
        Error::QuotaExceeded(quota) => quota,
        other => panic!("expected a quota, not {other}"),
    }
}

async fn audit_of(stage: &Stage, tenant: TenantId) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        tenant: Some(tenant),
        ..AuditFilter::default()
    };
    stage
        .maintenance()
        .audit(&filter, None, 10_000)
        .await
        .unwrap()
}

async fn assert_counters_are_right(stage: &Stage, tenant: TenantId) {
    let drifts = stage.maintenance().verify_usage(tenant, false).await;
    assert_eq!(drifts.unwrap(), []);
}

pub async fn writes_of_a_tenant_remove_a_bounded_number_on_their_way(stage: &Stage) {
    let install = stage.install();
    let neighbour = stage.install_with(install.tenant, Stage::roomy());
    fill(&install, "notes", 300).await;
    stage.clock.advance(TTL);
    install.get("e000000").await.unwrap_err();
    assert_eq!(expired(&install).await, 300, "a read removed something");
    neighbour.put("k", "1").await.unwrap();
    let left = expired(&install).await;
    assert!((1..300).contains(&left), "{left} are left");
    for i in 0..20 {
        neighbour.put("k", &i.to_string()).await.unwrap();
    }
    assert_eq!(expired(&install).await, 0);
    let usage = install.usage().await.unwrap();
    assert_eq!((usage.keys, usage.bytes), (0, 0));
    assert_counters_are_right(stage, install.tenant).await;
}

pub async fn a_write_of_another_tenant_removes_nothing(stage: &Stage) {
    let (install, stranger) = (stage.install(), stage.install());
    fill(&install, "notes", 10).await;
    stage.clock.advance(TTL);
    stranger.put("k", "1").await.unwrap();
    assert_eq!(expired(&install).await, 10);
}

pub async fn expired_records_make_room_for_a_write_that_needs_it(stage: &Stage) {
    // 130 records of 3 bytes, and room for 4 bytes more: more than one write removes on its way.
    let full = [
        Quotas {
            keys_per_namespace: 130,
            ..Quotas::default()
        },
        Quotas {
            bytes_per_install: 394,
            ..Quotas::default()
        },
        Quotas {
            bytes_per_tenant: 394,
            ..Quotas::default()
        },
        Quotas {
            namespaces: 1,
            ..Quotas::default()
        },
    ];
    for quotas in full {
        let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
        fill(&install, "notes", 130).await;
        let place = if quotas.namespaces == 1 {
            "cache"
        } else {
            "notes"
        };
        let new = || item("new", "\"a value that needs room\"", Guard::Any);
        put_to(&install, place, new()).await.unwrap_err();
        stage.clock.advance(TTL);
        let written = put_to(&install, place, new()).await;
        assert!(written.is_ok(), "{quotas:?}: {written:?}");
        assert_counters_are_right(stage, install.tenant).await;
    }
}

pub async fn room_comes_from_every_install_of_the_tenant(stage: &Stage) {
    let quotas = Quotas {
        bytes_per_tenant: 9_000,
        ..Quotas::default()
    };
    let limits = with_quotas(quotas);
    let idle = stage.install_with(TenantId::generate(), limits);
    let busy = stage.install_with(idle.tenant, limits);
    // More than is removed at once.
    fill(&idle, "notes", 1_500).await;
    fill(&idle, "cache", 1_500).await;
    let large = format!("\"{}\"", "x".repeat(8_900));
    let quota = refused_by(busy.put("large", &large).await.unwrap_err());
    assert_eq!((quota.name, quota.used), (QuotaName::BytesPerTenant, 9_000));
    stage.clock.advance(TTL);
    busy.put("large", &large).await.unwrap();
    assert_eq!(expired(&idle).await, 0);
    assert_counters_are_right(stage, idle.tenant).await;
}

pub async fn what_expired_elsewhere_does_not_hide_a_full_quota(stage: &Stage) {
    let quotas = Quotas {
        keys_per_namespace: 200,
        ..Quotas::default()
    };
    let install = stage.install_with(TenantId::generate(), with_quotas(quotas));
    fill(&install, "cache", 200).await;
    for i in 0..200 {
        install.put(&format!("k{i}"), "1").await.unwrap();
    }
    stage.clock.advance(TTL);
    let quota = refused_by(install.put("one-more", "1").await.unwrap_err());
    assert_eq!(
        (quota.name, quota.used, quota.attempted),
        (QuotaName::KeysPerNamespace, 200, 201)
    );
}

pub async fn a_sweep_clears_idle_installs_in_bounded_batches(stage: &Stage) {
    let (one, two) = (stage.install(), stage.install());
    fill(&one, "notes", 50).await;
    fill(&one, "cache", 50).await;
    fill(&two, "notes", 30).await;
    two.put("stays", "1").await.unwrap();
    let sweep = || stage.maintenance().remove_expired(40);
    assert_eq!(sweep().await.unwrap(), Removed::default());
    stage.clock.advance(TTL);
    let mut batches = Vec::new();
    loop {
        let removed = sweep().await.unwrap();
        assert!(removed.records <= 40);
        batches.push(removed);
        if !removed.more {
            break;
        }
    }
    let records: u64 = batches.iter().map(|removed| removed.records).sum();
    let bytes: u64 = batches.iter().map(|removed| removed.bytes).sum();
    assert_eq!((records, bytes), (130, 390));
    assert_eq!(sweep().await.unwrap(), Removed::default());
    assert_eq!(expired(&one).await + expired(&two).await, 0);
    assert!(two.get("stays").await.is_ok());
    for install in [&one, &two] {
        assert_counters_are_right(stage, install.tenant).await;
    }
}

pub async fn a_removal_leaves_one_audit_record_a_namespace_and_the_floor(stage: &Stage) {
    let install = stage.install();
    fill(&install, "notes", 20).await;
    fill(&install, "notes", 20).await;
    fill(&install, "cache", 1).await;
    stage.clock.advance(TTL);
    stage.maintenance().remove_expired(1_000).await.unwrap();
    let mut removals: Vec<(String, u64, u64)> = audit_of(stage, install.tenant)
        .await
        .into_iter()
        .filter(|record| record.operation == "expire")
        .map(|record| {
            assert_eq!(record.install_id, install.caller.install);
            assert_eq!((record.key, record.request_id), (None, None));
            assert_eq!(record.actor, "system:expiry");
            (record.namespace, record.records, record.bytes)
        })
        .collect();
    removals.sort();
    assert_eq!(removals, [("cache".into(), 1, 3), ("notes".into(), 20, 60)]);
    // Each of the removed had been written twice.
    assert_eq!(install.put("e000000", "1").await.unwrap().revision.get(), 3);
}

pub async fn a_record_that_was_given_a_longer_life_is_not_removed(stage: &Stage) {
    let install = stage.install();
    install.put_item(expiring("longer", "1")).await.unwrap();
    install.put_item(expiring("for-ever", "1")).await.unwrap();
    stage.clock.advance(TTL / 2);
    install.put_item(expiring("longer", "2")).await.unwrap();
    install.put("for-ever", "2").await.unwrap();
    stage.clock.advance(TTL / 2);
    let removed = stage.maintenance().remove_expired(1_000).await.unwrap();
    assert_eq!(removed, Removed::default());
    assert_eq!(install.get("longer").await.unwrap().value.as_str(), "2");
    stage.clock.advance(TTL);
    let removed = stage.maintenance().remove_expired(1_000).await.unwrap();
    assert_eq!(removed.records, 1);
    assert_eq!(install.get("for-ever").await.unwrap().value.as_str(), "2");
}

pub async fn the_audit_is_read_in_pages_by_tenant_install_and_time(stage: &Stage) {
    let one = stage.install();
    let two = stage.install_with(one.tenant, Stage::roomy());
    let mut times = Vec::new();
    for i in 0..5 {
        times.push(one.put("k", &i.to_string()).await.unwrap().updated_at);
        two.put("k", &i.to_string()).await.unwrap();
        stage.clock.advance(Duration::from_millis(1));
    }
    let read = async |filter: AuditFilter| {
        let mut found: Vec<AuditRecord> = Vec::new();
        loop {
            let after = found.last().map(|record| record.id);
            let page = stage.maintenance().audit(&filter, after, 3).await.unwrap();
            if page.is_empty() {
                return found;
            }
            found.extend(page);
        }
    };
    let of_tenant = AuditFilter {
        tenant: Some(one.tenant),
        ..AuditFilter::default()
    };
    let found = read(of_tenant.clone()).await;
    assert_eq!(found.len(), 10);
    assert!(found.is_sorted_by_key(|record| (record.time, record.id)));
    let found = read(AuditFilter {
        install: Some(two.caller.install),
        ..of_tenant.clone()
    })
    .await;
    let revisions: Vec<_> = found.iter().map(|record| record.revision_after).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5].map(Some));
    let found = read(AuditFilter {
        since: Some(times[1]),
        until: Some(times[3]),
        ..of_tenant
    })
    .await;
    let found: Vec<_> = found.iter().map(|record| record.time).collect();
    assert_eq!(found, [times[1], times[1], times[2], times[2]]);
}

pub async fn the_audit_is_removed_from_its_old_end(stage: &Stage) {
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    install.put("k", "2").await.unwrap();
    stage.clock.advance(Duration::from_millis(1));
    let third = install.put("k", "3").await.unwrap();
    let remove = async |limit| {
        let removed = stage.maintenance().remove_audit(third.updated_at, limit);
        let removed = removed.await.unwrap();
        (removed.records, removed.more)
    };
    assert_eq!(remove(1).await, (1, true));
    let left = audit_of(stage, install.tenant).await;
    let left: Vec<_> = left.iter().map(|record| record.revision_after).collect();
    assert_eq!(left, [Some(2), Some(3)]);
    assert_eq!(remove(10).await, (1, false));
    assert_eq!(remove(10).await, (0, false));
    assert_eq!(audit_of(stage, install.tenant).await.len(), 1);
}

pub async fn tenants_and_their_holdings_are_told(stage: &Stage) {
    let one = stage.install();
    let two = stage.install_with(one.tenant, Stage::roomy());
    one.put("a", "1").await.unwrap();
    one.put("b", "1").await.unwrap();
    put_to(&one, "cache", item("a", "123", Guard::Any))
        .await
        .unwrap();
    two.put("a", "1").await.unwrap();
    let mut tenants = Vec::new();
    while let [tenant] = stage
        .maintenance()
        .tenants(tenants.last().copied(), 1)
        .await
        .unwrap()[..]
    {
        tenants.push(tenant);
    }
    assert!(tenants.contains(&one.tenant));
    let mut holdings = stage.maintenance().holdings(one.tenant).await.unwrap();
    holdings.sort_by_key(|holding| holding.install != one.caller.install);
    let told = holdings.iter().map(|holding| {
        (
            holding.install,
            holding.bytes,
            holding.keys_of_fullest,
            holding.namespaces,
        )
    });
    let expected = [
        (one.caller.install, 11, 2, 2),
        (two.caller.install, 3, 1, 1),
    ];
    assert!(told.eq(expected), "{holdings:?}");
}
