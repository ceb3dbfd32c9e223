//! Limits, quotas and what contradicts them.

use super::*;

#[test]
fn the_default_limits_are_those_of_the_storage() {
    assert_eq!(
        Config::default().storage_limits(),
        alga_storage::Limits::default()
    );
}

#[test]
fn every_setting_of_the_storage_reaches_its_limits() {
    let toml = "
        [storage]
        timeout_ms = 100
        read_connections = 2
        sweep_interval_seconds = 3
        audit_retention_days = 4
        [storage.limits]
        value_bytes = 101
        metadata_bytes = 102
        min_ttl_seconds = 103
        max_ttl_seconds = 104
        bulk_items = 5
        bulk_bytes = 106
        get_many_keys = 7
        max_page_items = 108
        default_page_items = 9
        page_bytes = 1024
        [storage.quotas]
        namespaces = 11
        keys_per_namespace = 12
        bytes_per_install = 13
        bytes_per_tenant = 14
        warning_percent = 20
        critical_percent = 21
        [storage.rates]
        read_per_second = 15
        read_burst = 16
        write_per_second = 17
        write_burst = 18
        tenant_factor = 19
    ";
    let config = Said::toml(toml).load().unwrap();
    assert_eq!(config.storage.timeout, Duration::from_millis(100));
    assert_eq!(config.storage.read_connections.get(), 2);
    assert_eq!(config.storage.sweep_interval, Duration::from_secs(3));
    assert_eq!(config.storage.audit_retention, Duration::from_hours(4 * 24));
    let limits = config.storage_limits();
    assert_eq!(limits.request.value_bytes, 101);
    assert_eq!(limits.request.metadata_bytes, 102);
    assert_eq!(
        limits.request.ttl,
        (Duration::from_secs(103), Duration::from_secs(104))
    );
    assert_eq!(limits.request.bulk_items, 5);
    assert_eq!(limits.request.bulk_bytes, 106);
    assert_eq!(limits.request.keys, 7);
    assert_eq!(limits.request.page_items, (108, 9));
    assert_eq!(limits.request.page_bytes, 1024);
    assert_eq!(limits.quotas.namespaces, 11);
    assert_eq!(limits.quotas.keys_per_namespace, 12);
    assert_eq!(limits.quotas.bytes_per_install, 13);
    assert_eq!(limits.quotas.bytes_per_tenant, 14);
    assert_eq!(limits.quotas.alert_percent, [20, 21]);
    assert_eq!(
        (limits.rates.read.per_second, limits.rates.read.burst),
        (15, 16)
    );
    assert_eq!(
        (limits.rates.write.per_second, limits.rates.write.burst),
        (17, 18)
    );
    assert_eq!(limits.rates.tenant_read, limits.rates.read.times(19));
    assert_eq!(limits.rates.tenant_write, limits.rates.write.times(19));
}

#[test]
fn a_bulk_put_can_be_raised_to_its_hard_limits_and_no_further() {
    let said = |items: u32, bytes: u32| {
        Said::toml(&format!(
            "[storage.limits]\nbulk_items = {items}\nbulk_bytes = {bytes}"
        ))
    };
    assert_eq!(
        said(100, 1 << 20)
            .load()
            .unwrap()
            .storage_limits()
            .request
            .bulk_items,
        100
    );
    assert_eq!(
        said(101, (1 << 20) + 1).mistakes(),
        [
            "alga.toml: storage.limits.bulk_items must be 1 to 100",
            "alga.toml: storage.limits.bulk_bytes must be 1 to 1048576 bytes",
        ]
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let toml = "
        [engine]
        log_bytes = 100
        [storage.limits]
        min_ttl_seconds = 101
        max_ttl_seconds = 100
        max_page_items = 24
        bulk_items = 10
        get_many_keys = 10
        [storage.quotas]
        warning_percent = 96
        [storage.rates]
        read_burst = 9
        write_burst = 9
    ";
    let mistakes = Said::toml(toml).mistakes();
    let subjects: Vec<_> = mistakes
        .iter()
        .map(|mistake| mistake.split(" must").next().unwrap())
        .collect();
    assert_eq!(
        subjects,
        [
            "default: engine.log_line_bytes (ALGA_ENGINE_LOG_LINE_BYTES)",
            "alga.toml: storage.limits.min_ttl_seconds",
            "default: storage.limits.default_page_items (ALGA_STORAGE_LIMITS_DEFAULT_PAGE_ITEMS)",
            "default: storage.quotas.critical_percent (ALGA_STORAGE_QUOTAS_CRITICAL_PERCENT)",
            "alga.toml: storage.rates.read_burst",
            "alga.toml: storage.rates.write_burst",
        ]
    );
    assert!(
        mistakes[0].ends_with("(see alga.toml: engine.log_bytes)"),
        "{mistakes:?}"
    );
}

#[test]
fn a_quota_may_be_critical_from_the_warning_on_but_not_before() {
    let said = |critical: u8| {
        Said::toml(&format!(
            "[storage.quotas]\nwarning_percent = 50\ncritical_percent = {critical}"
        ))
    };
    assert!(said(50).load().is_ok());
    assert_eq!(
        said(49).mistakes(),
        [
            "alga.toml: storage.quotas.critical_percent must not be below that of the warning \
            (see alga.toml: storage.quotas.warning_percent)"
        ]
    );
}
