//! Where the limits of one tenant or one install differ from those of everybody.

mod field;

use serde_json::Value;

use self::field::Field;
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

fn object<'v>(
    name: &str,
    json: &'v Value,
) -> Result<&'v serde_json::Map<String, Value>, InvalidLimits> {
    json.as_object()
        .ok_or_else(|| InvalidLimits(format!("{name} is no JSON object")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::field::FIELDS;
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
