//! How much one request, one install and one tenant may use.

use std::fmt;
use std::time::Duration;

/// What applies to the requests and records of one install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// What a single request may hold.
    pub request: RequestLimits,
    /// What may be stored.
    pub quotas: Quotas,
    /// How often operations may be called.
    pub rates: Rates,
}

/// What a single request may hold, whatever is stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a value.
    pub value_bytes: u64,
    /// Bytes of a record's metadata.
    pub metadata_bytes: u64,
    /// The shortest and the longest life of a record.
    pub ttl: (Duration, Duration),
    /// Items of a `bulkPut`.
    pub bulk_items: usize,
    /// Values and metadata of a `bulkPut` together, in bytes.
    pub bulk_bytes: u64,
    /// Keys of a `getMany`.
    pub keys: usize,
    /// Records of a page, at most and where the request does not say.
    pub page_items: (u32, u32),
    /// Bytes of keys, values and metadata after which a page ends.
    pub page_bytes: u64,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            value_bytes: 64 << 10,
            metadata_bytes: 4 << 10,
            ttl: (
                Duration::from_secs(60),
                Duration::from_secs(30 * 24 * 60 * 60),
            ),
            bulk_items: 20,
            bulk_bytes: 512 << 10,
            keys: 100,
            page_items: (1_000, 25),
            page_bytes: 1 << 20,
        }
    }
}

/// What may be stored. Bytes are those of values and metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Namespaces of an install that hold records.
    pub namespaces: u64,
    /// Keys of one namespace.
    pub keys_per_namespace: u64,
    /// Bytes of an install.
    pub bytes_per_install: u64,
    /// Bytes of all installs of a tenant together.
    pub bytes_per_tenant: u64,
    /// The parts of a quota, in percent, whose use is worth a warning.
    pub alert_percent: [u8; 2],
}

impl Quotas {
    /// The limit of the quota called `name`.
    pub const fn limit(&self, name: QuotaName) -> u64 {
        match name {
            QuotaName::Namespaces => self.namespaces,
            QuotaName::KeysPerNamespace => self.keys_per_namespace,
            QuotaName::BytesPerInstall => self.bytes_per_install,
            QuotaName::BytesPerTenant => self.bytes_per_tenant,
        }
    }
}

/// The names of the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are the fields of `Quotas`")]
pub enum QuotaName {
    Namespaces,
    KeysPerNamespace,
    BytesPerInstall,
    BytesPerTenant,
}

impl QuotaName {
    /// Every quota, in the order in which they are judged.
    pub const ALL: [Self; 4] = [
        Self::Namespaces,
        Self::KeysPerNamespace,
        Self::BytesPerInstall,
        Self::BytesPerTenant,
    ];

    /// The name as errors, logs and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::KeysPerNamespace => "keys-per-namespace",
            Self::BytesPerInstall => "bytes-per-install",
            Self::BytesPerTenant => "bytes-per-tenant",
        }
    }

    /// The name that the quota has where it is set.
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Self::Namespaces => "quotas.namespaces",
            Self::KeysPerNamespace => "quotas.keysPerNamespace",
            Self::BytesPerInstall => "quotas.bytesPerInstall",
            Self::BytesPerTenant => "quotas.bytesPerTenant",
        }
    }
}

impl fmt::Display for QuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            namespaces: 32,
            keys_per_namespace: 5_120,
            bytes_per_install: 256 << 20,
            bytes_per_tenant: 2 << 30,
            alert_percent: [80, 95],
        }
    }
}

/// How often the operations of an install may be called, and those of all installs of its tenant
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Reads: `get`, `list`, `usage`, and each key of a `getMany`.
    pub read: RateLimit,
    /// Writes: `put`, `delete`, and each item of a `bulkPut`.
    pub write: RateLimit,
    /// Reads of all installs of the tenant.
    pub tenant_read: RateLimit,
    /// Writes of all installs of the tenant.
    pub tenant_write: RateLimit,
}

impl Rates {
    /// How many times the rate of one install all installs of a tenant have, unless told otherwise.
    pub const TENANT_FACTOR: u32 = 5;

    /// These rates for each install, and `tenant_factor` times as much for its tenant.
    pub const fn new(read: RateLimit, write: RateLimit, tenant_factor: u32) -> Self {
        Self {
            read,
            write,
            tenant_read: read.times(tenant_factor),
            tenant_write: write.times(tenant_factor),
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        let read = RateLimit {
            per_second: 100,
            burst: 1_000,
        };
        let write = RateLimit {
            per_second: 20,
            burst: 400,
        };
        Self::new(read, write, Self::TENANT_FACTOR)
    }
}

/// A steady rate and the burst that may exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Operations a second in the long run; at least 1.
    pub per_second: u32,
    /// Operations at once after a pause; at least 1.
    pub burst: u32,
}

impl RateLimit {
    /// `factor` times this rate and burst.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self {
            per_second: self.per_second.saturating_mul(factor),
            burst: self.burst.saturating_mul(factor),
        }
    }
}
