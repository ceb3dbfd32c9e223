//! Where the limits of one tenant or one install differ from those of everybody.

mod field;
mod names;

use serde_json::Value;

use self::field::{FIELDS, Field};
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

/// JSON that is no set of overrides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limits are not valid: {}", .0.join("; "))]
pub struct InvalidLimits(Vec<String>);

impl InvalidLimits {
    /// Everything that is wrong, each mistake with the name of its limit; at least one.
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

/// The lower bounds and the upper ones that they must not exceed.
const ORDERED: [[(&str, &str); 2]; 3] = [
    [("requests", "minTtlSeconds"), ("requests", "maxTtlSeconds")],
    [
        ("requests", "defaultPageItems"),
        ("requests", "maxPageItems"),
    ],
    [("quotas", "warningPercent"), ("quotas", "criticalPercent")],
];

impl LimitOverrides {
    /// Reads the JSON described above.
    ///
    /// # Errors
    /// [`InvalidLimits`] names every limit that is unknown, out of its bounds, or contradicted by
    /// another one of the same set.
    pub fn parse(json: &Value, of: LimitsOf) -> Result<Self, InvalidLimits> {
        let (mut limits, mut mistakes) = (Vec::new(), Vec::new());
        for reading in read(json, of) {
            match reading {
                Ok(limit) => limits.push(limit),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let overrides = Self(limits);
        mistakes.extend(overrides.contradictions());
        if mistakes.is_empty() {
            Ok(overrides)
        } else {
            Err(InvalidLimits(mistakes))
        }
    }

    /// Whether every limit stays as it is.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contradictions(&self) -> impl Iterator<Item = String> {
        let value = |(section, name)| {
            let is_meant = |(field, _): &&(&Field, u64)| field.is_called(section, name);
            self.0.iter().find(is_meant).copied()
        };
        ORDERED.into_iter().filter_map(move |bounds| {
            let [(lower, least), (upper, most)] = [value(bounds[0])?, value(bounds[1])?];
            (least > most)
                .then(|| format!("{lower} is {least}, more than {upper}, which is {most}"))
        })
    }
}

impl Limits {
    /// These limits with `overrides` in their places, later ones stronger.
    ///
    /// Where bounds of different origin contradict one another, the upper one counts for both.
    #[must_use]
    pub fn with<'o>(mut self, overrides: impl IntoIterator<Item = &'o LimitOverrides>) -> Self {
        for (field, value) in overrides.into_iter().flat_map(|overrides| &overrides.0) {
            (field.set)(&mut self, *value);
        }
        let request = &mut self.request;
        request.ttl.0 = request.ttl.0.min(request.ttl.1);
        request.page_items.1 = request.page_items.1.min(request.page_items.0);
        let [warning, critical] = &mut self.quotas.alert_percent;
        *warning = (*warning).min(*critical);
        self
    }
}

/// One limit, or what is wrong with it.
type Reading = Result<(&'static Field, u64), String>;

fn read(json: &Value, of: LimitsOf) -> Vec<Reading> {
    let Some(sections) = json.as_object() else {
        return vec![Err("limits is no JSON object".to_owned())];
    };
    sections
        .iter()
        .flat_map(|(section, limits)| read_section(section, limits, of))
        .collect()
}

fn read_section(section: &str, limits: &Value, of: LimitsOf) -> Vec<Reading> {
    if !FIELDS.iter().any(|field| field.section == section) {
        return vec![Err(names::no_section(section))];
    }
    let Some(limits) = limits.as_object() else {
        return vec![Err(format!("{section} is no JSON object"))];
    };
    limits
        .iter()
        .map(|(name, value)| {
            let field = Field::find(section, name, of)?;
            Ok((field, field.check(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            (json!({"sheep": {"namespaces": 1}}), "no section sheep"),
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
    fn every_mistake_is_reported() {
        let json = json!({
            "quotas": {"namespaces": 0, "sheep": 1, "bytesPerTenant": 1, "bytesPerInstall": 1},
            "requests": {"minTtlSeconds": 11, "maxTtlSeconds": 10, "valueBytes": true},
            "sheep": {},
        });
        let refused = LimitOverrides::parse(&json, LimitsOf::Install).unwrap_err();
        let mistakes = refused.mistakes();
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        for wrong in [
            "quotas.namespaces",
            "quotas.sheep",
            "quotas.bytesPerTenant",
            "requests.minTtlSeconds",
            "requests.valueBytes",
            "section sheep",
        ] {
            let naming = mistakes.iter().filter(|mistake| mistake.contains(wrong));
            assert_eq!(naming.count(), 1, "{wrong}: {mistakes:?}");
        }
    }

    #[test]
    fn a_lower_bound_of_the_same_set_is_at_most_the_upper_one() {
        for (section, lower, upper) in [
            ("requests", "minTtlSeconds", "maxTtlSeconds"),
            ("requests", "defaultPageItems", "maxPageItems"),
            ("quotas", "warningPercent", "criticalPercent"),
        ] {
            let set = |least: u64, most: u64| {
                let json = json!({ section: { lower: least, upper: most } });
                parse(&json, LimitsOf::Install)
            };
            set(49, 50).unwrap();
            set(50, 50).unwrap();
            let refused = set(51, 50).unwrap_err();
            let contradiction =
                format!("{section}.{lower} is 51, more than {section}.{upper}, which is 50");
            assert!(refused.contains(&contradiction), "{refused}");
        }
    }

    #[test]
    fn nothing_is_overridden_by_nothing() {
        for (json, is_empty) in [
            (json!({}), true),
            (json!({"quotas": {}}), true),
            (json!({"quotas": {"namespaces": 1}}), false),
        ] {
            let overrides = parse(&json, LimitsOf::Install).unwrap();
            assert_eq!(overrides.is_empty(), is_empty, "{json}");
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
    fn contradictions_of_different_origin_leave_limits_that_can_be_met() {
        let json = json!({
            "requests": {"maxTtlSeconds": 10, "maxPageItems": 5},
            "quotas": {"criticalPercent": 50},
        });
        let limits = Limits::default().with([&parse(&json, LimitsOf::Install).unwrap()]);
        assert_eq!(
            limits.request.ttl,
            (Duration::from_secs(10), Duration::from_secs(10))
        );
        assert_eq!(limits.request.page_items, (5, 5));
        assert_eq!(limits.quotas.alert_percent, [50, 50]);
    }
}
