//! What runs and what is known, in resident memory.

use std::sync::Arc;

use alga_host_api::Request;
use alga_model::{InstallId, TenantId};
use alga_registry::{Change, NewInstall};
use alga_runner::app::App;
use alga_storage::{
    BulkError, CheckedList, DeleteRequest, Error, Gate, GetManyRequest, GetRequest, Page, Put,
    Record, Scope, StorageClient, Usage, Written,
};
use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::stage;
use crate::report::{Bar, Figure};
use crate::session::Bench;

const KIB: f64 = 1024.0;
const EXECUTIONS: usize = 200;
const INSTALLS: usize = 10_000;
/// At least as many as there are to read the registry with.
const CONNECTIONS: usize = 8;

/// Executions at once, all of them in the middle of a host call.
pub(super) async fn of_executions(bench: Bench) -> anyhow::Result<Figure> {
    let mut config = stage::config(&bench, "data");
    let at_once = u32::try_from(EXECUTIONS)?;
    // One more is the first.
    config.admission.install_concurrency = at_once + 1;
    config.admission.tenant_concurrency = at_once + 1;
    config.admission.reserve_percent = 0;
    let app = App::build(&config).await?;
    let install = stage::install(&app, &bench, &stage::bundle_of("notes")).await?;
    let halting = Arc::new(Halting::new());
    let gate = Gate::new(Arc::clone(&app.installs) as _, Arc::clone(&halting) as _);
    let executor = Arc::new(app.stores.executor(
        &config,
        app.admin.activity.clone().context("it runs extensions")?,
        gate,
    )?);
    let run = |count: usize| {
        let mut running = JoinSet::new();
        for _ in 0..count {
            let executor = Arc::clone(&executor);
            let call = stage::call(Arc::clone(&install), Request::new("GET", "/notes/welcome"));
            running.spawn(async move { executor.execute(call).await.map(drop) });
        }
        running
    };
    // What the first one needs (its code, the threads of the runtime) is not what each one needs.
    let mut first = run(1);
    halting.arrived(1).await?;
    let before = resident()?;
    let mut others = run(EXECUTIONS);
    halting.arrived(at_once).await?;
    let each = (resident()? - before) / f64::from(at_once);
    halting.answer_all();
    first.join_next().await.context("it is gone")???;
    while let Some(ended) = others.join_next().await {
        ended??;
    }
    Ok(Figure::new(each / KIB, "KiB")
        .against(512.0, Bar::AtMost(1.0))
        .note("each, with the memory it touched"))
}

/// Installs that the process knows, and of which nothing runs.
pub(super) async fn of_known_installs(bench: Bench) -> anyhow::Result<Figure> {
    let each = of_installs(bench, async |app: &App, install| {
        app.installs.find(install).await?.context("it is gone")?;
        Ok(())
    });
    Ok(Figure::new(each.await?, "KiB").against(2.0, Bar::AtMost(1.0)))
}

/// Installs that were called lately: what they did is remembered for an hour, in 16 MiB for all.
pub(super) async fn of_called_installs(bench: Bench) -> anyhow::Result<Figure> {
    Ok(Figure::new(of_installs(bench, call).await?, "KiB"))
}

/// KiB that each of many installs takes once this was done to it.
async fn of_installs(
    bench: Bench,
    done: impl AsyncFn(&App, InstallId) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let app = App::build(&stage::config(&bench, "data")).await?;
    let install = stage::install(&app, &bench, &stage::bundle_of("notes")).await?;
    let (stores, version) = (&app.stores, install.install.version_id);
    let registered = stores.registry.install(install.install.id).await?;
    let grants = registered.context("the install is gone")?.grants;
    let mut ids = Vec::new();
    for number in 0..INSTALLS {
        if number.is_multiple_of(1_000) {
            bench.progress(&format!("install {number} of {INSTALLS}"));
        }
        let new = NewInstall {
            grants: grants.clone(),
            ..NewInstall::new(TenantId::generate(), version)
        };
        let change = Change {
            actor: "bench",
            request_id: None,
            now: stores.clock.now(),
        };
        ids.push(stores.registry.create_install(&new, change).await?.id);
    }
    // As a server that was just started.
    stores.close().await;
    drop(app);
    let app = App::build(&stage::config(&bench, "data")).await?;
    call(&app, install.install.id).await?;
    fill_caches(&app, &ids).await?;
    let before = resident()?;
    for id in &ids {
        done(&app, *id).await?;
    }
    let each = (resident()? - before) / f64::from(u32::try_from(INSTALLS)?);
    Ok(each / KIB)
}

/// Reads so much that the caches of all connections to the database are full. They are bounded, and
/// more than what is known of an install would be their part of it.
async fn fill_caches(app: &App, ids: &[InstallId]) -> anyhow::Result<()> {
    let mut readers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (registry, ids) = (Arc::clone(&app.stores.registry), ids.to_vec());
        readers.spawn(async move {
            for id in ids {
                registry.install(id).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    Ok(())
}

/// Has an install greet.
async fn call(app: &App, install: InstallId) -> anyhow::Result<()> {
    let install = app.installs.find(install).await?.context("it is gone")?;
    let call = stage::call(install, Request::new("GET", "/"));
    app.extensions()?.executor.execute(call).await?;
    Ok(())
}

/// Bytes of this process in memory.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: f64 = kib.context("the kernel doesn't say")?.trim().parse()?;
    Ok(kib * KIB)
}

/// Storage that answers nobody until it is told to.
#[derive(Debug)]
struct Halting {
    arrived: Semaphore,
    answers: Semaphore,
}

impl Halting {
    fn new() -> Self {
        Self {
            arrived: Semaphore::new(0),
            answers: Semaphore::new(0),
        }
    }

    /// Waits until `count` more calls wait here.
    async fn arrived(&self, count: u32) -> anyhow::Result<()> {
        self.arrived.acquire_many(count).await?.forget();
        Ok(())
    }

    fn answer_all(&self) {
        self.answers.close();
    }
}

#[async_trait]
impl StorageClient for Halting {
    async fn get(&self, _: &Scope, _: GetRequest) -> Result<Record, Error> {
        self.arrived.add_permits(1);
        // Closed, it lets all go.
        drop(self.answers.acquire().await);
        Err(Error::NotFound)
    }

    async fn get_many(&self, _: &Scope, _: GetManyRequest) -> Result<Vec<Option<Record>>, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn put(&self, _: &Scope, _: Put) -> Result<Vec<Written>, BulkError> {
        Err(Error::CapabilityDenied.into())
    }

    async fn delete(&self, _: &Scope, _: DeleteRequest) -> Result<bool, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn list(&self, _: &Scope, _: CheckedList) -> Result<Page, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn usage(&self, _: &Scope) -> Result<Usage, Error> {
        Err(Error::CapabilityDenied)
    }
}
