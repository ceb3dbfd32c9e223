//! How much one request, one install and one tenant may use.

use std::time::Duration;

/// What applies to the requests and records of one install.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            namespaces: 32,
            keys_per_namespace: 5_120,
            bytes_per_install: 256 << 20,
            bytes_per_tenant: 2 << 30,
        }
    }
}

/// How often the operations of an install may be called; its tenant may `tenant_factor` times that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Reads: `get`, `list`, `usage`, and each key of a `getMany`.
    pub read: RateLimit,
    /// Writes: `put`, `delete`, and each item of a `bulkPut`.
    pub write: RateLimit,
    /// How many times the rate of one install all installs of a tenant have together.
    pub tenant_factor: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            read: RateLimit {
                per_second: 100,
                burst: 1_000,
            },
            write: RateLimit {
                per_second: 20,
                burst: 400,
            },
            tenant_factor: 5,
        }
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
