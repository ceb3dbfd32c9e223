//! Settings of the storage of extensions.

use std::num::NonZeroU32;
use std::time::Duration;

use alga_storage::{Limits, Quotas, RateLimit, Rates, RequestLimits};

use super::kind::{bytes, count, count_from_one, days, millis, seconds};
use super::setting::section;

/// A PiB. What is stored is counted in signed 64-bit numbers, of several installs together.
const MAX_STORED_BYTES: u64 = 1 << 50;

section! {
    /// How the database of records is used.
    pub struct StorageConfig {
        /// How long an operation may take before it is answered as unavailable.
        timeout: Duration = Duration::from_secs(5), "storage.timeout_ms": millis(1..=60_000);
        /// How many reads of the database may run at once.
        read_connections: NonZeroU32 = NonZeroU32::MIN.saturating_add(3), "storage.read_connections": count_from_one(64);
        /// How often expired records and answers and old audit records are removed, and quotas that
        /// are nearly used up looked for.
        sweep_interval: Duration = Duration::from_mins(1), "storage.sweep_interval_seconds": seconds(1..=86_400);
        /// How long audit records are kept, those of the registry too.
        audit_retention: Duration = Duration::from_hours(90 * 24), "storage.audit_retention_days": days(1..=3_650);
    }
}

section! {
    /// What a single request to the storage may hold.
    pub struct RequestLimitsConfig {
        /// The most bytes of a value.
        value_bytes: u64 = 64 << 10, "storage.limits.value_bytes": bytes(1..=1 << 20);
        /// The most bytes of a record's metadata.
        metadata_bytes: u64 = 4 << 10, "storage.limits.metadata_bytes": bytes(2..=64 << 10);
        /// The shortest life that may be asked for a record.
        min_ttl: Duration = Duration::from_mins(1), "storage.limits.min_ttl_seconds": seconds(1..=315_360_000);
        /// The longest life that may be asked for a record.
        max_ttl: Duration = Duration::from_hours(30 * 24), "storage.limits.max_ttl_seconds": seconds(1..=315_360_000);
        /// The most items of a `bulkPut`.
        bulk_items: u32 = 20, "storage.limits.bulk_items": count(1..=100);
        /// The most bytes of a `bulkPut`, values and metadata together.
        bulk_bytes: u64 = 512 << 10, "storage.limits.bulk_bytes": bytes(1..=1 << 20);
        /// The most keys of a `getMany`.
        get_many_keys: u32 = 100, "storage.limits.get_many_keys": count(1..=1_000);
        /// The most records of a page.
        max_page_items: u32 = 1_000, "storage.limits.max_page_items": count(1..=1_000);
        /// The records of a page where the request doesn't say.
        default_page_items: u32 = 25, "storage.limits.default_page_items": count(1..=1_000);
        /// After how many bytes of keys, values and metadata a page ends.
        page_bytes: u64 = 1 << 20, "storage.limits.page_bytes": bytes(1_024..=8 << 20);
    }
}

section! {
    /// What may be stored, unless an install or tenant has its own quotas.
    pub struct QuotasConfig {
        /// How many namespaces of an install may hold records.
        namespaces: u64 = 32, "storage.quotas.namespaces": count(1..=10_000);
        /// How many keys a namespace may have.
        keys_per_namespace: u64 = 5_120, "storage.quotas.keys_per_namespace": count(1..=1_000_000_000);
        /// How many bytes of values and metadata an install may store.
        bytes_per_install: u64 = 256 << 20, "storage.quotas.bytes_per_install": bytes(1..=MAX_STORED_BYTES);
        /// How many bytes all installs of a tenant may store together.
        bytes_per_tenant: u64 = 2 << 30, "storage.quotas.bytes_per_tenant": bytes(1..=MAX_STORED_BYTES);
        /// From which part of a quota on its use is a warning, in percent.
        warning_percent: u8 = 80, "storage.quotas.warning_percent": count(1..=100);
        /// From which part of a quota on its use is critical, in percent.
        critical_percent: u8 = 95, "storage.quotas.critical_percent": count(1..=100);
    }
}

section! {
    /// How often the storage may be called. Each key of a `getMany` is a read, each item of a
    /// `bulkPut` a write.
    pub struct RatesConfig {
        /// The reads of an install per second in the long run.
        read_per_second: u32 = 100, "storage.rates.read_per_second": count(1..=1_000_000);
        /// The reads of an install at once after a pause.
        read_burst: u32 = 1_000, "storage.rates.read_burst": count(1..=1_000_000);
        /// The writes of an install per second in the long run.
        write_per_second: u32 = 20, "storage.rates.write_per_second": count(1..=1_000_000);
        /// The writes of an install at once after a pause.
        write_burst: u32 = 400, "storage.rates.write_burst": count(1..=1_000_000);
        /// How many times the rate of one install all installs of a tenant have together.
        tenant_factor: u32 = 5, "storage.rates.tenant_factor": count(1..=1_000);
    }
}

/// What applies to installs that have no limits of their own.
pub(super) fn limits(
    request: &RequestLimitsConfig,
    quotas: &QuotasConfig,
    rates: &RatesConfig,
) -> Limits {
    Limits {
        request: RequestLimits {
            value_bytes: request.value_bytes,
            metadata_bytes: request.metadata_bytes,
            ttl: (request.min_ttl, request.max_ttl),
            bulk_items: to_usize(request.bulk_items),
            bulk_bytes: request.bulk_bytes,
            keys: to_usize(request.get_many_keys),
            page_items: (request.max_page_items, request.default_page_items),
            page_bytes: request.page_bytes,
        },
        quotas: Quotas {
            namespaces: quotas.namespaces,
            keys_per_namespace: quotas.keys_per_namespace,
            bytes_per_install: quotas.bytes_per_install,
            bytes_per_tenant: quotas.bytes_per_tenant,
            alert_percent: [quotas.warning_percent, quotas.critical_percent],
        },
        rates: Rates::new(
            RateLimit {
                per_second: rates.read_per_second,
                burst: rates.read_burst,
            },
            RateLimit {
                per_second: rates.write_per_second,
                burst: rates.write_burst,
            },
            rates.tenant_factor,
        ),
    }
}

fn to_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
