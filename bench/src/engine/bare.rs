//! The bare thing: Wasmtime with the engine's own settings, and a host that does next to nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alga_runner::engine::{EngineOptions, wasmtime_config};
use wasmtime::component::{Component, HasData, Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use self::bindings::ExtensionPre;
use self::bindings::alga::extension::{context, logging};
use self::bindings::alga::storage::{records, types};

pub(super) use self::bindings::exports::alga::extension::handler::{Header, Request, Response};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "alga:extension/extension",
        imports: {
            "alga:storage/records.get": async,
            "alga:storage/records.get-many": async,
            "alga:storage/records.put": async,
            "alga:storage/records.bulk-put": async,
            "alga:storage/records.delete": async,
            "alga:storage/records.list": async,
            "alga:storage/records.usage": async,
        },
        exports: { default: async },
    });
}

/// How often the runner's engine ticks.
const TICK: Duration = Duration::from_millis(2);

/// A component that is compiled and linked.
#[derive(Clone)]
pub(super) struct Bare {
    engine: Engine,
    linked: ExtensionPre<Host>,
    records: Records,
}

/// Values and revisions by key.
type Records = Arc<Mutex<HashMap<String, (String, u64)>>>;

struct Host {
    records: Records,
    /// For the guests that can't do without.
    wasi: Option<(WasiCtx, ResourceTable)>,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = self
            .wasi
            .get_or_insert_with(|| (WasiCtx::builder().build(), ResourceTable::new()));
        WasiCtxView { ctx, table }
    }
}

struct HostData;

impl HasData for HostData {
    type Data<'a> = &'a mut Host;
}

impl Bare {
    /// Compiles and links a component.
    pub(super) fn compile(engine: &Engine, component: &[u8]) -> anyhow::Result<Self> {
        let component = Component::new(engine, component).map_err(failed)?;
        Self::link(engine, &component).map_err(failed)
    }

    /// Loads and links code that [`Component::serialize`] gave.
    #[expect(unsafe_code, reason = "loading machine code can't be anything else")]
    pub(super) fn load(engine: &Engine, code: &[u8]) -> anyhow::Result<Self> {
        // SAFETY: the bytes are those that this process has just had an engine write.
        let component = unsafe { Component::deserialize(engine, code) }.map_err(failed)?;
        Self::link(engine, &component).map_err(failed)
    }

    fn link(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        types::add_to_linker::<_, HostData>(&mut linker, |host| host)?;
        records::add_to_linker::<_, HostData>(&mut linker, |host| host)?;
        context::add_to_linker::<_, HostData>(&mut linker, |host| host)?;
        logging::add_to_linker::<_, HostData>(&mut linker, |host| host)?;
        Ok(Self {
            linked: ExtensionPre::new(linker.instantiate_pre(component)?)?,
            engine: engine.clone(),
            records: Records::default(),
        })
    }

    /// An engine as the runner sets its own up, with the ticks that it is used to.
    pub(super) fn engine(options: &EngineOptions) -> anyhow::Result<Engine> {
        let engine = Engine::new(&wasmtime_config(options)).map_err(failed)?;
        let ticked = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        });
        Ok(engine)
    }

    /// Stores a record.
    pub(super) fn seed(&self, key: String, value: String) {
        lock(&self.records).insert(key, (value, 1));
    }

    /// Runs the handler in a fresh instance.
    pub(super) async fn call(&self, request: &Request) -> anyhow::Result<Response> {
        self.run(request).await.map_err(failed)
    }

    async fn run(&self, request: &Request) -> wasmtime::Result<Response> {
        let mut store = Store::new(
            &self.engine,
            Host {
                records: Arc::clone(&self.records),
                wasi: None,
            },
        );
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let instance = self.linked.instantiate_async(&mut store).await?;
        let handler = instance.alga_extension_handler();
        handler.call_handle(&mut store, request).await
    }
}

fn failed(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::from_boxed(error.into_boxed_dyn_error())
}

fn lock(records: &Records) -> std::sync::MutexGuard<'_, HashMap<String, (String, u64)>> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

impl context::Host for Host {
    fn get_invocation(&mut self) -> context::Invocation {
        let id = || "0199aa00-0000-7000-8000-000000000000".to_owned();
        context::Invocation {
            request_id: id(),
            tenant_id: id(),
            install_id: id(),
            extension: "com.example.notes".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    fn get_config(&mut self, _: String) -> Option<String> {
        None
    }
}

impl logging::Host for Host {
    fn log(&mut self, _: logging::Level, _: String) {}
}

impl types::Host for Host {}

impl records::Host for Host {
    async fn get(
        &mut self,
        _: String,
        key: String,
        _: Option<u64>,
    ) -> Result<types::Entry, types::Error> {
        let records = lock(&self.records);
        let (value, revision) = records.get(&key).ok_or(types::Error::NotFound)?;
        Ok(types::Entry {
            key: key.clone(),
            value: value.clone(),
            metadata: "{}".to_owned(),
            revision: *revision,
            expires_at: None,
            created_at: 0,
            updated_at: 0,
        })
    }

    async fn put(
        &mut self,
        _: String,
        key: String,
        value: String,
        _: types::PutOptions,
    ) -> Result<types::Written, types::Error> {
        let mut records = lock(&self.records);
        let record = records.entry(key).or_default();
        *record = (value, record.1 + 1);
        Ok(types::Written {
            revision: record.1,
            expires_at: None,
            created_at: 0,
            updated_at: 0,
            previous: None,
        })
    }

    async fn get_many(
        &mut self,
        _: String,
        _: Vec<String>,
    ) -> Result<Vec<Option<types::Entry>>, types::Error> {
        Err(types::Error::CapabilityDenied)
    }

    async fn bulk_put(
        &mut self,
        _: String,
        _: Vec<types::BulkItem>,
    ) -> Result<Vec<types::Written>, types::BulkError> {
        Ok(Vec::new())
    }

    async fn delete(
        &mut self,
        _: String,
        _: String,
        _: types::DeleteGuard,
    ) -> Result<bool, types::Error> {
        Err(types::Error::CapabilityDenied)
    }

    async fn list(
        &mut self,
        _: String,
        _: types::ListOptions,
    ) -> Result<types::Page, types::Error> {
        Err(types::Error::CapabilityDenied)
    }

    async fn usage(&mut self) -> Result<types::InstallUsage, types::Error> {
        Err(types::Error::CapabilityDenied)
    }
}
