//! The quotas that are nearly used up, for whoever operates the runner.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::sync::{PoisonError, RwLock};

use alga_model::{InstallId, TenantId};
use alga_storage::{GrantSource as _, Holding, Maintenance, QuotaName, Quotas};

use crate::installs::Installs;

/// Tenants that are asked for at once.
const PAGE: u32 = 200;
/// Series that are shown, the fullest ones. Each costs whoever collects them memory for weeks.
const MOST_SERIES: usize = 1_000;

/// The quotas that were nearly used up when it was last looked, as a gauge for Prometheus.
///
/// The gauge is the only metric with a tenant and an install in its labels, which is bearable as
/// few are nearly full. So a series must be gone as soon as its quota is not; metrics of the
/// process stay.
#[derive(Debug, Default)]
pub struct QuotaGauges(RwLock<Vec<QuotaUse>>);

/// How much of a quota is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QuotaUse {
    tenant: TenantId,
    /// None for a quota of the whole tenant.
    install: Option<InstallId>,
    quota: QuotaName,
    ratio: f64,
}

impl QuotaGauges {
    /// Shows `uses` and nothing else.
    pub(super) fn replace(&self, uses: Vec<QuotaUse>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = uses;
    }
}

/// The text format of Prometheus; nothing where no quota is nearly used up.
impl fmt::Display for QuotaGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if uses.is_empty() {
            return Ok(());
        }
        f.write_str(
            "# HELP alga_storage_quota_used_ratio How much of a quota is used, for those that are nearly used up.\n\
             # TYPE alga_storage_quota_used_ratio gauge\n",
        )?;
        // No label needs escaping: ids are UUIDs, the names of quotas are ours.
        for QuotaUse {
            tenant,
            install,
            quota,
            ratio,
        } in uses.iter()
        {
            write!(
                f,
                "alga_storage_quota_used_ratio{{tenant=\"{tenant}\",install=\""
            )?;
            if let Some(install) = install {
                write!(f, "{install}")?;
            }
            writeln!(f, "\",quota=\"{quota}\"}} {ratio}")?;
        }
        f.write_char('\n')
    }
}

/// Looks through all tenants for quotas whose use is worth a warning, the fullest first.
pub(super) async fn nearly_used_up(
    storage: &dyn Maintenance,
    installs: &Installs,
) -> anyhow::Result<Vec<QuotaUse>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let tenants = storage.tenants(after, PAGE).await?;
        for tenant in &tenants {
            found.extend(of_tenant(storage, installs, *tenant).await?);
        }
        keep_fullest(&mut found);
        after = tenants.last().copied();
        if after.is_none() {
            return Ok(found);
        }
    }
}

async fn of_tenant(
    storage: &dyn Maintenance,
    installs: &Installs,
    tenant: TenantId,
) -> anyhow::Result<Vec<QuotaUse>> {
    let holdings = storage.holdings(tenant).await?;
    let mut found = Vec::new();
    for holding in &holdings {
        // Nobody can write to an uninstalled one; it counts to its tenant only.
        if let Some(snapshot) = installs.snapshot(holding.install).await? {
            let of_install = of_install(holding, &snapshot.limits.quotas);
            found.extend(of_install.map(|(quota, ratio)| QuotaUse {
                tenant,
                install: Some(holding.install),
                quota,
                ratio,
            }));
        }
    }
    let bytes = holdings
        .iter()
        .fold(0_u64, |sum, holding| sum.saturating_add(holding.bytes));
    let quotas = installs.tenant_limits(tenant).await?.quotas;
    let quota = QuotaName::BytesPerTenant;
    found.extend(ratio(bytes, quota, &quotas).map(|ratio| QuotaUse {
        tenant,
        install: None,
        quota,
        ratio,
    }));
    Ok(found)
}

/// The quotas of an install that are nearly used up, and how much of each is.
fn of_install(holding: &Holding, quotas: &Quotas) -> impl Iterator<Item = (QuotaName, f64)> {
    [
        (QuotaName::Namespaces, holding.namespaces),
        (QuotaName::KeysPerNamespace, holding.keys_of_fullest),
        (QuotaName::BytesPerInstall, holding.bytes),
    ]
    .into_iter()
    .filter_map(|(quota, used)| Some((quota, ratio(used, quota, quotas)?)))
}

/// How much of the quota is used, if that is worth a warning.
#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio is for people; the comparison before it is exact"
)]
fn ratio(used: u64, quota: QuotaName, quotas: &Quotas) -> Option<f64> {
    let limit = quotas.limit(quota);
    let [warning, _] = quotas.alert_percent;
    let is_worth_it = u128::from(used) * 100 >= u128::from(limit) * u128::from(warning);
    is_worth_it.then(|| used as f64 / limit as f64)
}

/// Sorts the fullest to the front and lets go of what is not shown.
fn keep_fullest(uses: &mut Vec<QuotaUse>) {
    let place = |one: &QuotaUse| (one.tenant, one.install, one.quota);
    uses.sort_unstable_by(|one, other| match other.ratio.total_cmp(&one.ratio) {
        Ordering::Equal => place(one).cmp(&place(other)),
        order => order,
    });
    uses.truncate(MOST_SERIES);
}

#[cfg(test)]
mod tests {
    use alga_registry::{InstallState, Registry as _, TenantEdit};
    use alga_storage::Limits;
    use serde_json::json;

    use super::*;
    use crate::stage::Stage;

    async fn shown(stage: &Stage, limits: Limits) -> Vec<(Option<InstallId>, QuotaName, f64)> {
        let installs = stage.installs_with(limits);
        nearly_used_up(&*stage.storage, &installs)
            .await
            .unwrap()
            .into_iter()
            .map(|found| (found.install, found.quota, found.ratio))
            .collect()
    }

    fn limits(quotas: Quotas) -> Limits {
        Limits {
            quotas,
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn every_quota_shows_from_the_warning_on() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        for key in ["a", "b", "c", "d"] {
            stage.put(install.id, key, "12345678", None).await;
        }
        let id = Some(install.id);
        for (quotas, expected) in [
            (
                Quotas {
                    keys_per_namespace: 5,
                    ..Quotas::default()
                },
                vec![(id, QuotaName::KeysPerNamespace, 0.8)],
            ),
            (
                Quotas {
                    keys_per_namespace: 6,
                    ..Quotas::default()
                },
                vec![],
            ),
            (
                Quotas {
                    bytes_per_install: 50,
                    ..Quotas::default()
                },
                vec![(id, QuotaName::BytesPerInstall, 0.8)],
            ),
            (
                Quotas {
                    bytes_per_install: 51,
                    ..Quotas::default()
                },
                vec![],
            ),
            (
                Quotas {
                    bytes_per_tenant: 50,
                    ..Quotas::default()
                },
                vec![(None, QuotaName::BytesPerTenant, 0.8)],
            ),
            (
                Quotas {
                    bytes_per_tenant: 51,
                    ..Quotas::default()
                },
                vec![],
            ),
            (
                Quotas {
                    namespaces: 1,
                    ..Quotas::default()
                },
                vec![(id, QuotaName::Namespaces, 1.0)],
            ),
            (
                Quotas {
                    namespaces: 2,
                    ..Quotas::default()
                },
                vec![],
            ),
            (
                Quotas {
                    namespaces: 2,
                    alert_percent: [50, 95],
                    ..Quotas::default()
                },
                vec![(id, QuotaName::Namespaces, 0.5)],
            ),
        ] {
            assert_eq!(shown(&stage, limits(quotas)).await, expected, "{quotas:?}");
        }
    }

    #[tokio::test]
    async fn limits_of_the_tenant_and_of_the_install_count() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        stage.put(install.id, "a", "12345678", None).await;
        let narrow =
            json!({"quotas": {"bytesPerTenant": 10, "bytesPerInstall": 20, "namespaces": 2}});
        let edit = TenantEdit::Limits(Some(narrow));
        stage
            .registry
            .edit_tenant(install.tenant, edit, None, stage.change())
            .await
            .unwrap();
        assert_eq!(
            shown(&stage, Limits::default()).await,
            [(None, QuotaName::BytesPerTenant, 1.0)]
        );
        let narrower = Some(json!({"quotas": {"bytesPerInstall": 8}}));
        stage
            .registry
            .set_limits(install.id, narrower, None, stage.change())
            .await
            .unwrap();
        assert_eq!(
            shown(&stage, Limits::default()).await,
            [
                (Some(install.id), QuotaName::BytesPerInstall, 1.25),
                (None, QuotaName::BytesPerTenant, 1.0),
            ]
        );
    }

    #[tokio::test]
    async fn an_uninstalled_install_counts_to_its_tenant_only() {
        let stage = Stage::open().await;
        let tenant = TenantId::generate();
        let (gone, there) = (stage.install(tenant).await, stage.install(tenant).await);
        stage.put(gone.id, "a", "12345678", None).await;
        stage.put(there.id, "a", "1", None).await;
        let uninstalled = InstallState::Uninstalled;
        stage
            .registry
            .set_state(gone.id, uninstalled, None, stage.change())
            .await
            .unwrap();
        let quotas = Quotas {
            bytes_per_install: 10,
            bytes_per_tenant: 13,
            ..Quotas::default()
        };
        assert_eq!(
            shown(&stage, limits(quotas)).await,
            [(None, QuotaName::BytesPerTenant, 1.0)]
        );
    }

    #[tokio::test]
    async fn all_tenants_are_looked_through() {
        let stage = Stage::open().await;
        let tenants = usize::try_from(PAGE).unwrap() + 1;
        for _ in 0..tenants {
            let install = stage.install(TenantId::generate()).await;
            stage.put(install.id, "a", "1", None).await;
        }
        let quotas = Quotas {
            namespaces: 1,
            ..Quotas::default()
        };
        assert_eq!(shown(&stage, limits(quotas)).await.len(), tenants);
    }

    fn quota_use(ratio: f64) -> QuotaUse {
        QuotaUse {
            tenant: TenantId::generate(),
            install: Some(InstallId::generate()),
            quota: QuotaName::Namespaces,
            ratio,
        }
    }

    #[test]
    fn no_more_than_a_thousand_are_kept_and_those_are_the_fullest() {
        let mut uses: Vec<_> = (0..MOST_SERIES).map(|_| quota_use(0.9)).collect();
        keep_fullest(&mut uses);
        assert_eq!(uses.len(), MOST_SERIES);
        uses.push(quota_use(0.95));
        keep_fullest(&mut uses);
        assert_eq!(uses.len(), MOST_SERIES);
        assert_eq!((uses[0].ratio, uses[1].ratio), (0.95, 0.9));
    }

    #[test]
    fn a_series_is_gone_as_soon_as_its_quota_is_not_nearly_used_up() {
        let gauges = QuotaGauges::default();
        assert_eq!(gauges.to_string(), "");
        let of_install = quota_use(0.8125);
        let of_tenant = QuotaUse {
            install: None,
            quota: QuotaName::BytesPerTenant,
            ..of_install
        };
        gauges.replace(vec![of_install, of_tenant]);
        let text = gauges.to_string();
        let (tenant, install) = (of_install.tenant, of_install.install.unwrap());
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "# TYPE alga_storage_quota_used_ratio gauge",
                &format!(
                    "alga_storage_quota_used_ratio{{tenant=\"{tenant}\",install=\"{install}\",quota=\"namespaces\"}} 0.8125"
                ),
                &format!(
                    "alga_storage_quota_used_ratio{{tenant=\"{tenant}\",install=\"\",quota=\"bytes-per-tenant\"}} 0.8125"
                ),
                "",
            ]
        );
        gauges.replace(vec![of_tenant]);
        assert_eq!(gauges.to_string().matches(&tenant.to_string()).count(), 1);
        gauges.replace(Vec::new());
        assert_eq!(gauges.to_string(), "");
    }
}
