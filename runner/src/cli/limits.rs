//! The limits of an install or a tenant: what `install limits` and `tenant limits` have in common.

use std::path::{Path, PathBuf};

use alga_registry::Install;
use alga_storage::{GrantSource as _, InvalidLimits, LimitOverrides, Limits, LimitsOf, Quotas};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};

use super::{input, output};
use crate::installs::Installs;

/// More than the registry stores; it says so then.
const MOST_INPUT: u64 = 1 << 20;

/// What is to become of overrides.
#[derive(Debug, Args)]
pub(super) struct Edit {
    /// Replace the overrides by this JSON, such as '{"quotas": {"keysPerNamespace": 20000}}', or by
    /// that of a file; `-` reads standard input
    #[arg(long, value_name = "JSON|FILE", conflicts_with = "clear")]
    set: Option<PathBuf>,
    /// Remove the overrides
    #[arg(long)]
    clear: bool,
}

/// What an edit asks for.
#[derive(Debug)]
pub(super) enum Wanted {
    /// To leave them alone.
    AsTheyAre,
    /// To replace them.
    Replaced(Option<Value>),
}

impl Edit {
    /// Reads and checks what is to be stored.
    pub(super) fn wanted(&self, of: LimitsOf) -> anyhow::Result<Wanted> {
        let Some(argument) = &self.set else {
            return Ok(if self.clear {
                Wanted::Replaced(None)
            } else {
                Wanted::AsTheyAre
            });
        };
        let json = read(argument)?;
        let overrides = LimitOverrides::parse(&json, of).map_err(|invalid| listed(&invalid))?;
        if overrides.is_empty() {
            output::note("nothing is overridden, which is the same as --clear");
            return Ok(Wanted::Replaced(None));
        }
        Ok(Wanted::Replaced(Some(json)))
    }
}

/// The JSON that an argument is, or that is in the file it names.
fn read(argument: &Path) -> anyhow::Result<Value> {
    let inline = argument
        .to_str()
        .filter(|text| text.trim_start().starts_with('{'));
    match inline {
        Some(text) => serde_json::from_str(text).context("the argument of --set is not JSON"),
        None => input::json(argument, MOST_INPUT),
    }
}

/// Each mistake on a line of its own.
fn listed(invalid: &InvalidLimits) -> anyhow::Error {
    let lines: Vec<_> = invalid
        .mistakes()
        .iter()
        .map(|mistake| format!("\n    {mistake}"))
        .collect();
    anyhow!("the limits are not valid{}", lines.concat())
}

/// Prints what is overridden and what applies.
pub(super) fn print(overrides: Option<&Value>, effective: &Limits) -> anyhow::Result<()> {
    let limits = json!({ "overrides": overrides, "effective": to_json(effective) });
    Ok(output::json(&limits)?)
}

/// What applies to an install; to one that is uninstalled, what applies to its tenant.
pub(super) async fn of_install(installs: &Installs, install: &Install) -> anyhow::Result<Limits> {
    Ok(match installs.snapshot(install.id).await? {
        Some(snapshot) => snapshot.limits,
        None => installs.tenant_limits(install.tenant).await?,
    })
}

/// What may be stored, in the shape of overrides.
pub(super) fn quotas_json(quotas: &Quotas) -> Value {
    let [warning_percent, critical_percent] = quotas.alert_percent;
    json!({
        "namespaces": quotas.namespaces,
        "keysPerNamespace": quotas.keys_per_namespace,
        "bytesPerInstall": quotas.bytes_per_install,
        "bytesPerTenant": quotas.bytes_per_tenant,
        "warningPercent": warning_percent,
        "criticalPercent": critical_percent,
    })
}

/// Limits in the shape of overrides.
fn to_json(limits: &Limits) -> Value {
    let Limits {
        request,
        quotas,
        rates,
    } = limits;
    let ((min_ttl, max_ttl), (max_page_items, default_page_items)) =
        (request.ttl, request.page_items);
    json!({
        "requests": {
            "valueBytes": request.value_bytes,
            "metadataBytes": request.metadata_bytes,
            "minTtlSeconds": min_ttl.as_secs(),
            "maxTtlSeconds": max_ttl.as_secs(),
            "bulkItems": request.bulk_items,
            "bulkBytes": request.bulk_bytes,
            "getManyKeys": request.keys,
            "maxPageItems": max_page_items,
            "defaultPageItems": default_page_items,
            "pageBytes": request.page_bytes,
        },
        "quotas": quotas_json(quotas),
        "rates": {
            "readPerSecond": rates.read.per_second,
            "readBurst": rates.read.burst,
            "writePerSecond": rates.write.per_second,
            "writeBurst": rates.write.burst,
            "tenantReadPerSecond": rates.tenant_read.per_second,
            "tenantReadBurst": rates.tenant_read.burst,
            "tenantWritePerSecond": rates.tenant_write.per_second,
            "tenantWriteBurst": rates.tenant_write.burst,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(set: &str) -> anyhow::Result<Wanted> {
        let edit = Edit {
            set: Some(set.into()),
            clear: false,
        };
        edit.wanted(LimitsOf::Install)
    }

    #[test]
    fn json_is_read_from_the_argument_or_from_the_file_it_names() {
        let overrides = json!({"quotas": {"namespaces": 1}});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), overrides.to_string()).unwrap();
        for set in [&format!(" {overrides}"), file.path().to_str().unwrap()] {
            let wanted = wanted(set).unwrap();
            assert!(
                matches!(&wanted, Wanted::Replaced(Some(json)) if *json == overrides),
                "{set}: {wanted:?}"
            );
        }
        let refused = wanted("{quotas").unwrap_err();
        assert!(refused.to_string().contains("--set"), "{refused:#}");
    }

    #[test]
    fn overriding_nothing_clears_what_was_overridden() {
        for set in ["{}", r#"{"quotas": {}}"#] {
            let wanted = wanted(set).unwrap();
            assert!(matches!(wanted, Wanted::Replaced(None)), "{wanted:?}");
        }
    }

    #[test]
    fn each_mistake_is_on_a_line_of_its_own() {
        let refused = wanted(r#"{"quotas": {"namespace": 1}, "rates": {"readBurst": 0}}"#);
        let said = refused.unwrap_err().to_string();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(lines[1].contains("quotas.namespaces?"), "{said}");
        assert!(lines[2].contains("rates.readBurst"), "{said}");
    }

    #[test]
    fn every_limit_is_printed_as_it_is_set() {
        // Each limit gets a value of its own, so that none can stand in another's place.
        let mut number = 0;
        let mut asked = to_json(&Limits::default());
        for section in asked.as_object_mut().unwrap().values_mut() {
            for limit in section.as_object_mut().unwrap().values_mut() {
                number += 1;
                *limit = json!(number);
            }
        }
        // Within its bounds, and not contradicting another.
        asked["requests"]["pageBytes"] = json!(2_000);
        asked["requests"]["maxTtlSeconds"] = json!(3_000);
        asked["requests"]["maxPageItems"] = json!(900);
        asked["quotas"]["criticalPercent"] = json!(99);
        let overrides = LimitOverrides::parse(&asked, LimitsOf::Tenant).unwrap();
        assert_eq!(to_json(&Limits::default().with([&overrides])), asked);
    }
}
