//! Where the limits of one tenant or one install differ from those of everybody.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::limits::Limits;

/// Whose limits are overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsOf {
    /// Those of every install of a tenant, and of all of them together.
    Tenant,
    /// Those of one install, stronger than its tenant's.
    Install,
}

/// Some limits, to put in the place of others.
///
/// As JSON, an object of the sections `requests`, `quotas` and `rates`, each with any of its limits
/// in camel case: `{"quotas": {"keysPerNamespace": 20000}, "rates": {"writePerSecond": 50}}`. The
/// sections and names are those of the settings under `storage` of the runner, and so are the
/// bounds. What all installs of a tenant have together (`bytesPerTenant`, `tenantReadPerSecond`,
/// `tenantReadBurst`, `tenantWritePerSecond`, `tenantWriteBurst`) only the tenant's can say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitOverrides(Vec<(&'static Field, u64)>);

/// A JSON value that overrides no limits.
#[derive(Debug, thiserror::Error)]
#[error("limits are not valid: {0}")]
pub struct InvalidLimits(String);

impl LimitOverrides {
    /// Reads the JSON described above.
    ///
    /// # Errors
    /// [`InvalidLimits`] names the limit that is unknown or out of its bounds.
    pub fn parse(json: &Value, of: LimitsOf) -> Result<Self, InvalidLimits> {
        let mut overrides = Vec::new();
        for (section, limits) in object("limits", json)? {
            for (name, value) in object(section, limits)? {
                let field = Field::find(section, name, of)?;
                overrides.push((field, field.check(value)?));
            }
        }
        Ok(Self(overrides))
    }
}

impl Limits {
    /// These limits with `overrides` in their places, later ones stronger.
    ///
    /// Where bounds of different origin contradict one another, the upper one counts.
    #[must_use]
    pub fn with<'o>(mut self, overrides: impl IntoIterator<Item = &'o LimitOverrides>) -> Self {
        for (field, value) in overrides.into_iter().flat_map(|overrides| &overrides.0) {
            (field.set)(&mut self, *value);
        }
        let request = &mut self.request;
        request.ttl.0 = request.ttl.0.min(request.ttl.1);
        request.page_items.1 = request.page_items.1.min(request.page_items.0);
        self
    }
}

/// A limit that can be overridden.
struct Field {
    section: &'static str,
    name: &'static str,
    bounds: RangeInclusive<u64>,
    only_of_tenant: bool,
    set: fn(&mut Limits, u64),
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

static FIELDS: [Field; 24] = [
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
    fn find(section: &str, name: &str, of: LimitsOf) -> Result<&'static Self, InvalidLimits> {
        let found = FIELDS
            .iter()
            .find(|field| field.section == section && field.name == name)
            .ok_or_else(|| InvalidLimits(format!("there is no limit {section}.{name}")))?;
        if found.only_of_tenant && of == LimitsOf::Install {
            return Err(InvalidLimits(format!(
                "{section}.{name} is of a whole tenant, not of one install"
            )));
        }
        Ok(found)
    }

    fn check(&self, value: &Value) -> Result<u64, InvalidLimits> {
        let Self {
            section,
            name,
            bounds,
            ..
        } = self;
        value
            .as_u64()
            .filter(|value| bounds.contains(value))
            .ok_or_else(|| {
                InvalidLimits(format!(
                    "{section}.{name} is a whole number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ))
            })
    }
}

/// Fields are the same where their names are.
impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        (self.section, self.name) == (other.section, other.name)
    }
}

impl Eq for Field {}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

fn object<'v>(
    name: &str,
    json: &'v Value,
) -> Result<&'v serde_json::Map<String, Value>, InvalidLimits> {
    json.as_object()
        .ok_or_else(|| InvalidLimits(format!("{name} is no JSON object")))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(json: &Value, of: LimitsOf) -> Result<LimitOverrides, String> {
        LimitOverrides::parse(json, of).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_named_changes_and_nothing_else() {
        let json = json!({"quotas": {"keysPerNamespace": 7}, "rates": {"writeBurst": 9}});
        let overrides = parse(&json, LimitsOf::Install).unwrap();
        let mut expected = Limits::default();
        expected.quotas.keys_per_namespace = 7;
        expected.rates.write.burst = 9;
        assert_eq!(Limits::default().with([&overrides]), expected);
    }

    #[test]
    fn every_limit_can_be_set_at_its_bounds_and_not_beyond() {
        for field in &FIELDS {
            let set = |value: u64| {
                let json = json!({ field.section: { field.name: value } });
                parse(&json, LimitsOf::Tenant)
            };
            let (least, most) = (*field.bounds.start(), *field.bounds.end());
            for value in [least, most] {
                set(value).unwrap();
            }
            for value in [least - 1, most + 1] {
                let refused = set(value).unwrap_err();
                assert!(refused.contains(field.name), "{refused}");
            }
            // Set to something else than the default, each changes the limits.
            let changed = Limits::default().with([&set(least).unwrap()]);
            assert_ne!(changed, Limits::default(), "{field:?}");
        }
    }

    #[test]
    fn an_install_is_stronger_than_its_tenant() {
        let of_tenant = parse(
            &json!({"quotas": {"namespaces": 2, "bytesPerInstall": 10}}),
            LimitsOf::Tenant,
        );
        let of_install = parse(&json!({"quotas": {"namespaces": 3}}), LimitsOf::Install);
        let limits = Limits::default().with([&of_tenant.unwrap(), &of_install.unwrap()]);
        assert_eq!(limits.quotas.namespaces, 3);
        assert_eq!(limits.quotas.bytes_per_install, 10);
    }

    #[test]
    fn what_is_no_limit_is_refused_by_name() {
        for (json, reason) in [
            (json!([]), "limits is no JSON object"),
            (json!({"quotas": 1}), "quotas is no JSON object"),
            (json!({"quotas": {"keys": 1}}), "no limit quotas.keys"),
            (
                json!({"quota": {"namespaces": 1}}),
                "no limit quota.namespaces",
            ),
            (
                json!({"quotas": {"namespaces": "1"}}),
                "whole number from 1",
            ),
            (
                json!({"quotas": {"namespaces": 1.5}}),
                "whole number from 1",
            ),
            (
                json!({"quotas": {"bytesPerTenant": 1}}),
                "of a whole tenant",
            ),
            (
                json!({"rates": {"tenantReadBurst": 1}}),
                "of a whole tenant",
            ),
        ] {
            let refused = parse(&json, LimitsOf::Install).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn what_an_install_widens_again_is_as_wide_as_the_settings_say() {
        let narrow = parse(
            &json!({"requests": {"maxTtlSeconds": 10}}),
            LimitsOf::Tenant,
        )
        .unwrap();
        let wide = parse(
            &json!({"requests": {"maxTtlSeconds": 100}}),
            LimitsOf::Install,
        )
        .unwrap();
        let limits = Limits::default().with([&narrow, &wide]);
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(100));
        assert_eq!(limits.request.ttl, (least, most));
    }

    #[test]
    fn contradictions_leave_limits_that_can_be_met() {
        let json = json!({"requests": {"maxTtlSeconds": 10, "maxPageItems": 5}});
        let limits = Limits::default().with([&parse(&json, LimitsOf::Install).unwrap()]);
        assert_eq!(
            limits.request.ttl,
            (Duration::from_secs(10), Duration::from_secs(10))
        );
        assert_eq!(limits.request.page_items, (5, 5));
    }
}
