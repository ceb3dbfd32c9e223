//! One extension in this process, with its storage in memory: for tests of extensions, and for
//! programs that embed one.
//!
//! ```
//! use alga_runner::harness::{Harness, Request};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/notes/bundle/dist/main.wasm");
//! let notes = Harness::builder().namespace("notes").start(&std::fs::read(path)?).await?;
//!
//! let note = Request::new("PUT", "/notes/1").body(r#"{"title":"Printer","text":"No paper"}"#);
//! assert_eq!(notes.call(note).await?.status, 201);
//!
//! let stored = notes.value("notes", "1").await?;
//! assert_eq!(stored.as_deref(), Some(r#"{"title":"Printer","text":"No paper"}"#));
//! # Ok(()) }
//! ```
//!
//! Engine, host interfaces, gate, storage and the filters of headers are those of a server. What is
//! not there: bundles, the registry, admission among several, and HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_host_api::{Invocation, Served};
use alga_model::{Clock, ContentHash, InstallId, Secret, SystemClock, TenantId};
use alga_sqlite::{Options, SqliteError};
use alga_storage::{
    Actor, Caller, CursorKey, Gate, GetRequest, GrantSource, Key, Limits, LocalService, Namespace,
    Snapshot, SqliteBackend, StorageGrant,
};
use async_trait::async_trait;
use uuid::Uuid;

use crate::admission::{self, Admission, Caps, Who};
use crate::engine::{
    CompilerFailure, ComponentId, Engine, EngineError, EngineOptions, InvalidComponent,
    PrepareError, Prepared, Run, RunError, RunLimits,
};
use crate::headers;

pub use alga_host_api::{Header, Request, Response};

/// One extension, ready to be called.
#[derive(Debug)]
pub struct Harness {
    engine: Engine,
    extension: Prepared,
    admission: Admission,
    gate: Gate,
    served: Arc<Served>,
}

/// What an extension is given.
#[derive(Debug)]
pub struct HarnessBuilder {
    namespaces: BTreeSet<String>,
    settings: BTreeMap<String, String>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    engine: EngineOptions,
}

/// Why an extension can't be called.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// There is no engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no storage.
    #[error("cannot open a database in memory")]
    Storage(#[from] SqliteError),
    /// A namespace has a name that is none.
    #[error("cannot grant the namespace '{name}'")]
    Namespace {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: alga_storage::Error,
    },
    /// The component can't run here.
    #[error("cannot run the component")]
    Component(#[source] InvalidComponent),
    /// The compiler could not be run.
    #[error("cannot compile the component")]
    Compiler(#[source] Arc<CompilerFailure>),
    /// The runtime is being shut down.
    #[error("the component was not prepared")]
    Stopped,
}

impl Harness {
    /// An extension that may use nothing yet.
    pub fn builder() -> HarnessBuilder {
        HarnessBuilder {
            namespaces: BTreeSet::new(),
            settings: BTreeMap::new(),
            limits: Limits::default(),
            clock: Arc::new(SystemClock::default()),
            engine: EngineOptions {
                max_instances: 16,
                ..EngineOptions::default()
            },
        }
    }

    /// Has the extension answer, in a fresh instance.
    ///
    /// # Errors
    /// Every way in which a guest can fail.
    pub async fn call(&self, request: Request) -> Result<Response, RunError> {
        let now = Instant::now();
        let deadline = self.engine.deadline(now, None);
        let who = Who {
            tenant: self.served.tenant,
            install: self.served.install,
        };
        let permit = self.admission.admit(who, None, now, deadline).await;
        let invocation = Uuid::now_v7();
        let request_id: Arc<str> = invocation.to_string().into();
        let run = Run {
            permit: permit.map_err(|_| RunError::Timeout)?,
            request: Request {
                headers: headers::to_guest(request.headers),
                ..request
            },
            invocation: Invocation {
                request_id: Arc::clone(&request_id),
                served: Arc::clone(&self.served),
            },
            caller: self.caller(Actor::Invocation(request_id)),
            log_sink: None,
            deadline,
            limits: RunLimits::default(),
        };
        let mut response = self
            .engine
            .run(&self.extension, &self.gate, run)
            .await
            .answer?;
        response.headers = headers::from_guest(response.headers).map_err(RunError::Nonsense)?;
        Ok(response)
    }

    /// The value of a record that the extension may read, as compact JSON; none where there is no
    /// such record.
    pub async fn value(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<String>, alga_storage::Error> {
        let request = GetRequest {
            namespace: Namespace::parse(namespace)?,
            key: Key::parse(key)?,
            if_revision: None,
        };
        match self.gate.get(&self.test(), request).await {
            Ok(record) => Ok(Some(record.value.into_string())),
            Err(alga_storage::Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The storage of the extension, with all that it may do there; to be called as [`Self::test`].
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Somebody who looks into the storage of the extension from outside.
    pub fn test(&self) -> Caller {
        self.caller(Actor::Admin("test".into()))
    }

    fn caller(&self, actor: Actor) -> Caller {
        Caller {
            install: self.served.install,
            actor,
            request_id: "test".into(),
            may_use_storage: true,
            operation_id: None,
        }
    }
}

impl HarnessBuilder {
    /// Grants reading and writing a namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespaces.insert(name.to_owned());
        self
    }

    /// Gives the extension a setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Has other limits and quotas of storage than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has records expire by another clock than the system's, one moved by hand for instance.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Has another engine than the default, with other limits for instance.
    #[must_use]
    pub fn engine(mut self, options: EngineOptions) -> Self {
        self.engine = options;
        self
    }

    /// Compiles the component and opens an empty storage for it.
    pub async fn start(self, component: &[u8]) -> Result<Harness, HarnessError> {
        let places = usize::try_from(self.engine.max_instances).unwrap_or(usize::MAX);
        let install = Arc::new(Snapshot {
            tenant: TenantId::generate(),
            extension: "local.component".parse().expect("the name is valid"),
            grant: Some(StorageGrant::all_of(namespaces(&self.namespaces)?)),
            limits: self.limits,
            active: true,
            switched_on: true,
        });
        let engine = Engine::new(self.engine)?;
        let backend = SqliteBackend::open(Options::memory(), self.clock).await?;
        let service = LocalService::new(
            Arc::new(backend),
            // Cursors end with the process, as the records do.
            CursorKey::new(
                Secret::new(*ContentHash::of(Uuid::new_v4().as_bytes()).as_bytes()),
                None,
            ),
            LocalService::DEFAULT_TIMEOUT,
        );
        Ok(Harness {
            extension: prepare(&engine, component).await?,
            engine,
            admission: all_at_once(places),
            served: Arc::new(Served {
                tenant: install.tenant,
                install: InstallId::generate(),
                extension: install.extension.clone(),
                version: "0.0.0".into(),
                config: self.settings,
            }),
            gate: Gate::new(Arc::new(OneInstall(install)), Arc::new(service)),
        })
    }
}

fn namespaces(names: &BTreeSet<String>) -> Result<Vec<Namespace>, HarnessError> {
    let parse = |name: &String| {
        Namespace::parse(name).map_err(|source| HarnessError::Namespace {
            name: name.clone(),
            source,
        })
    };
    names.iter().map(parse).collect()
}

async fn prepare(engine: &Engine, component: &[u8]) -> Result<Prepared, HarnessError> {
    let id = ComponentId::alone(ContentHash::of(component));
    let bytes = component.to_vec();
    let prepared = engine
        .prepare(id, async { Ok::<_, Infallible>(bytes) })
        .await;
    prepared.map_err(|error| match error {
        PrepareError::Invalid(invalid) => HarnessError::Component(invalid),
        PrepareError::Compiler(failure) => HarnessError::Compiler(failure),
        PrepareError::Load(never) => match *never {},
        PrepareError::Stopped => HarnessError::Stopped,
    })
}

/// As many calls run as there are places, and the others wait their time.
fn all_at_once(places: usize) -> Admission {
    const LONGEST_WAIT: Duration = Duration::from_secs(600);
    let caps = Caps {
        running: places,
        waiting: usize::MAX / 2,
    };
    let limits = admission::Limits {
        process: caps,
        reserve: 0,
        tenant: caps,
        install: caps,
    };
    Admission::new(limits, LONGEST_WAIT)
}

/// The one install there is.
#[derive(Debug)]
struct OneInstall(Arc<Snapshot>);

#[async_trait]
impl GrantSource for OneInstall {
    async fn snapshot(&self, _: InstallId) -> Result<Option<Arc<Snapshot>>, alga_storage::Error> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Vec<u8> {
        let path = "/../guest-examples/notes/bundle/dist/main.wasm";
        std::fs::read([env!("CARGO_MANIFEST_DIR"), path].concat()).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_granted_is_refused_and_what_is_set_is_seen() {
        let builder = Harness::builder().setting("greeting", "Moin");
        let harness = builder.start(&notes()).await.unwrap();
        let greeting = harness.call(Request::new("GET", "/")).await.unwrap();
        let greeting = String::from_utf8(greeting.body.unwrap()).unwrap();
        assert!(greeting.contains("Moin"), "{greeting}");
        let refused = harness.call(Request::new("GET", "/notes")).await.unwrap();
        assert_eq!(refused.status, 403);
    }

    #[tokio::test]
    async fn a_query_and_headers_reach_the_extension() {
        let builder = Harness::builder().namespace("notes");
        let harness = builder.start(&notes()).await.unwrap();
        let put = |etag: &str| {
            Request::new("PUT", "/notes/1")
                .header("if-match", etag)
                .body(r#"{"title":"a","text":"b"}"#)
        };
        assert_eq!(harness.call(put("\"1\"")).await.unwrap().status, 409);
        let page = harness
            .call(Request::new("GET", "/notes?limit=0"))
            .await
            .unwrap();
        assert_eq!(page.status, 400);
    }

    #[tokio::test]
    async fn namespaces_and_components_that_are_none_are_refused() {
        let nameless = Harness::builder().namespace("N O").start(&notes()).await;
        assert!(matches!(nameless, Err(HarnessError::Namespace { name, .. }) if name == "N O"));
        let none = Harness::builder().start(b"none").await;
        assert!(matches!(none, Err(HarnessError::Component(_))));
    }
}
