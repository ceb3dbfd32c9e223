//! The limits that can be overridden, and their bounds.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::{LimitsOf, names};
use crate::contract::limits::Limits;

/// A limit that can be overridden.
pub(super) struct Field {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) bounds: RangeInclusive<u64>,
    pub(super) only_of_tenant: bool,
    pub(super) set: fn(&mut Limits, u64),
}

/// A PiB. Bytes of several installs are added up in signed 64-bit numbers.
const MOST_BYTES: u64 = 1 << 50;
const TEN_YEARS: u64 = 315_360_000;

const fn field(
    section: &'static str,
    name: &'static str,
    bounds: RangeInclusive<u64>,
    set: fn(&mut Limits, u64),
) -> Field {
    Field {
        section,
        name,
        bounds,
        only_of_tenant: false,
        set,
    }
}

const fn of_tenant(
    section: &'static str,
    name: &'static str,
    bounds: RangeInclusive<u64>,
    set: fn(&mut Limits, u64),
) -> Field {
    Field {
        only_of_tenant: true,
        ..field(section, name, bounds, set)
    }
}

pub(super) static FIELDS: [Field; 24] = [
    field("requests", "valueBytes", 1..=1 << 20, |limits, value| {
        limits.request.value_bytes = value;
    }),
    field(
        "requests",
        "metadataBytes",
        2..=64 << 10,
        |limits, value| {
            limits.request.metadata_bytes = value;
        },
    ),
    field(
        "requests",
        "minTtlSeconds",
        1..=TEN_YEARS,
        |limits, value| {
            limits.request.ttl.0 = Duration::from_secs(value);
        },
    ),
    field(
        "requests",
        "maxTtlSeconds",
        1..=TEN_YEARS,
        |limits, value| {
            limits.request.ttl.1 = Duration::from_secs(value);
        },
    ),
    field("requests", "bulkItems", 1..=100, |limits, value| {
        limits.request.bulk_items = to_usize(value);
    }),
    field("requests", "bulkBytes", 1..=1 << 20, |limits, value| {
        limits.request.bulk_bytes = value;
    }),
    field("requests", "getManyKeys", 1..=1_000, |limits, value| {
        limits.request.keys = to_usize(value);
    }),
    field("requests", "maxPageItems", 1..=1_000, |limits, value| {
        limits.request.page_items.0 = to_u32(value);
    }),
    field(
        "requests",
        "defaultPageItems",
        1..=1_000,
        |limits, value| {
            limits.request.page_items.1 = to_u32(value);
        },
    ),
    field("requests", "pageBytes", 1_024..=8 << 20, |limits, value| {
        limits.request.page_bytes = value;
    }),
    field("quotas", "namespaces", 1..=10_000, |limits, value| {
        limits.quotas.namespaces = value;
    }),
    field(
        "quotas",
        "keysPerNamespace",
        1..=1_000_000_000,
        |limits, value| {
            limits.quotas.keys_per_namespace = value;
        },
    ),
    field(
        "quotas",
        "bytesPerInstall",
        1..=MOST_BYTES,
        |limits, value| {
            limits.quotas.bytes_per_install = value;
        },
    ),
    of_tenant(
        "quotas",
        "bytesPerTenant",
        1..=MOST_BYTES,
        |limits, value| {
            limits.quotas.bytes_per_tenant = value;
        },
    ),
    field("quotas", "warningPercent", 1..=100, |limits, value| {
        limits.quotas.alert_percent[0] = to_percent(value);
    }),
    field("quotas", "criticalPercent", 1..=100, |limits, value| {
        limits.quotas.alert_percent[1] = to_percent(value);
    }),
    field("rates", "readPerSecond", 1..=1_000_000, |limits, value| {
        limits.rates.read.per_second = to_u32(value);
    }),
    field("rates", "readBurst", 1..=1_000_000, |limits, value| {
        limits.rates.read.burst = to_u32(value);
    }),
    field("rates", "writePerSecond", 1..=1_000_000, |limits, value| {
        limits.rates.write.per_second = to_u32(value);
    }),
    field("rates", "writeBurst", 1..=1_000_000, |limits, value| {
        limits.rates.write.burst = to_u32(value);
    }),
    of_tenant(
        "rates",
        "tenantReadPerSecond",
        1..=1_000_000_000,
        |limits, value| {
            limits.rates.tenant_read.per_second = to_u32(value);
        },
    ),
    of_tenant(
        "rates",
        "tenantReadBurst",
        1..=1_000_000_000,
        |limits, value| {
            limits.rates.tenant_read.burst = to_u32(value);
        },
    ),
    of_tenant(
        "rates",
        "tenantWritePerSecond",
        1..=1_000_000_000,
        |limits, value| {
            limits.rates.tenant_write.per_second = to_u32(value);
        },
    ),
    of_tenant(
        "rates",
        "tenantWriteBurst",
        1..=1_000_000_000,
        |limits, value| {
            limits.rates.tenant_write.burst = to_u32(value);
        },
    ),
];

impl Field {
    pub(super) fn find(section: &str, name: &str, of: LimitsOf) -> Result<&'static Self, String> {
        let found = FIELDS
            .iter()
            .find(|field| field.is_called(section, name))
            .ok_or_else(|| names::no_limit(section, name))?;
        if found.only_of_tenant && of == LimitsOf::Install {
            return Err(format!("{found} is of a whole tenant, not of one install"));
        }
        Ok(found)
    }

    pub(super) fn is_called(&self, section: &str, name: &str) -> bool {
        (self.section, self.name) == (section, name)
    }

    pub(super) fn check(&self, value: &Value) -> Result<u64, String> {
        let (least, most) = (self.bounds.start(), self.bounds.end());
        value
            .as_u64()
            .filter(|value| self.bounds.contains(value))
            .ok_or_else(|| format!("{self} is a whole number from {least} to {most}"))
    }
}

/// Fields are the same where their names are.
impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.is_called(other.section, other.name)
    }
}

impl Eq for Field {}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// The bounds above keep every value within these types.
fn to_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn to_percent(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}
