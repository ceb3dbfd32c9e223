//! The extensions of a soak, who calls them, and what is expected to be answered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alga_guest_fixtures as guest;
use anyhow::{Context as _, bail};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{Program, Server};

/// The tenants, each with an install of every extension but those that come and go.
const TENANTS: usize = 2;
/// The longest that anything may take; a stream that goes on is dropped by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection of the client stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(5);

/// Comes in two versions, the second of which asks for more.
pub(super) const CHANGING: &str = "com.example.changing";
/// The lines that the extension writes that writes some.
const LINES: u32 = 20;

/// What is installed, and a client that may call and administrate it.
#[derive(Debug)]
pub(super) struct Scene {
    url: String,
    client: Client,
    service: String,
    admin: String,
    pub(super) tenants: Vec<Tenant>,
}

/// A tenant and its installs.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: Uuid,
    pub(super) notes: Installed,
    pub(super) looping: Installed,
    pub(super) trapping: Installed,
    pub(super) growing: Installed,
    pub(super) writing: Installed,
}

/// An install and what it is of.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) id: String,
    tenant: Uuid,
    extension: &'static str,
}

/// Packs and publishes the extensions.
pub(super) fn publish(program: &Program) -> anyhow::Result<()> {
    let mut notes = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    notes.extend(["..", "guest-examples", "notes", "bundle"]);
    add(program, "notes", &notes)?;
    for (name, component) in [
        (LOOPING, guest::endless_loop()),
        (TRAPPING, guest::trap()),
        (GROWING, guest::grow_memory()),
        (WRITING, guest::log_flood(LINES)),
    ] {
        pack(program, name, "1.0.0", &component, &[])?;
    }
    pack(program, CHANGING, "1.0.0", &guest::echo(), &["notes"])?;
    let more = ["notes", "more"];
    pack(program, CHANGING, "2.0.0", &guest::echo_request(), &more)
}

const NOTES: &str = "com.example.notes";
const LOOPING: &str = "com.example.looping";
const TRAPPING: &str = "com.example.trapping";
const GROWING: &str = "com.example.growing";
const WRITING: &str = "com.example.writing";

fn pack(
    program: &Program,
    name: &str,
    version: &str,
    component: &[u8],
    namespaces: &[&str],
) -> anyhow::Result<()> {
    let folder = program.scratch(&format!("{name}-{version}"));
    std::fs::create_dir_all(folder.join("dist"))?;
    std::fs::write(folder.join("dist/main.wasm"), component)?;
    let namespaces = namespaces.iter();
    let namespaces: Vec<_> = namespaces
        .map(|name| json!({ "name": name, "access": ["read", "write"] }))
        .collect();
    let mut manifest = json!({
        "name": name,
        "publisher": "Soak",
        "version": version,
        "runtime": "wasm-component@1",
    });
    if let (false, Some(manifest)) = (namespaces.is_empty(), manifest.as_object_mut()) {
        let storage = json!({ "alga.storage": { "namespaces": namespaces } });
        manifest.insert("capabilities".to_owned(), storage);
    }
    std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    add(program, &format!("{name}-{version}"), &folder)
}

fn add(program: &Program, name: &str, folder: &Path) -> anyhow::Result<()> {
    let bundle = program.scratch(&format!("{name}.tar.zst"));
    let output = std::ffi::OsStr::new("--output");
    program.run(&[
        "bundle".as_ref(),
        "pack".as_ref(),
        folder.as_os_str(),
        output,
        bundle.as_os_str(),
    ])?;
    program.run(&["bundle".as_ref(), "add".as_ref(), bundle.as_os_str()])
}

impl Scene {
    /// Installs everything for every tenant.
    pub(super) async fn install(server: &Server) -> anyhow::Result<Self> {
        // It fails where somebody did so before, and theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut scene = Self {
            url: server.url().to_owned(),
            client: client()?,
            service: server.service_token()?,
            admin: server.admin_token()?,
            tenants: Vec::new(),
        };
        for _ in 0..TENANTS {
            let id = Uuid::new_v4();
            let installed = async |extension| scene.create(id, extension, None).await;
            let tenant = Tenant {
                id,
                notes: installed(NOTES).await?,
                looping: installed(LOOPING).await?,
                trapping: installed(TRAPPING).await?,
                growing: installed(GROWING).await?,
                writing: installed(WRITING).await?,
            };
            scene.tenants.push(tenant);
        }
        Ok(scene)
    }

    /// The tenant whose turn it is.
    pub(super) fn tenant(&self, turn: u32) -> &Tenant {
        let index = usize::try_from(turn).unwrap_or(0) % self.tenants.len();
        self.tenants.get(index).expect("it is below the length")
    }

    /// Makes an install.
    pub(super) async fn create(
        &self,
        tenant: Uuid,
        extension: &'static str,
        version: Option<&str>,
    ) -> anyhow::Result<Installed> {
        let body = json!({ "tenantId": tenant, "extension": extension, "version": version });
        let request = self.admin(Method::POST, "/v1/installs").json(&body);
        let answer = of(request, &[201]).await?.context("there is no room")?;
        let id = answer.get("installId").and_then(Value::as_str);
        Ok(Installed {
            id: id.context("an install has no id")?.to_owned(),
            tenant,
            extension,
        })
    }

    /// A request of an administrator.
    pub(super) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(&self.admin)
    }

    /// A request of a service.
    pub(super) fn service(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(&self.service)
    }

    /// A call in an envelope.
    pub(super) fn execute(&self, install: &Installed, http: &Value) -> RequestBuilder {
        self.execute_with(install, http, &json!({}))
    }

    /// A call in an envelope, with limits.
    pub(super) fn execute_with(
        &self,
        install: &Installed,
        http: &Value,
        limits: &Value,
    ) -> RequestBuilder {
        let envelope = json!({
            "context": {
                "tenant_id": install.tenant,
                "extension_id": install.extension,
                "install_id": install.id,
            },
            "http": http,
            "limits": limits,
        });
        self.service(Method::POST, "/v1/execute").json(&envelope)
    }

    /// Where the server is, for those who speak HTTP themselves.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.url.strip_prefix("http://");
        Ok(address.context("it is not at http")?.parse()?)
    }

    /// The service token, for them.
    pub(super) fn token(&self) -> &str {
        &self.service
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }
}

fn client() -> anyhow::Result<Client> {
    Ok(Client::builder()
        .timeout(PATIENCE)
        // What nobody uses is closed, so that a server at rest has no connections.
        .pool_idle_timeout(IDLE)
        .tls_certs_only([])
        .build()?)
}

/// What is answered, which must have one of these statuses; nothing where there is no room for it at
/// the moment. An answer without JSON is null.
pub(super) async fn of(request: RequestBuilder, statuses: &[u16]) -> anyhow::Result<Option<Value>> {
    let response = answered(request, statuses).await?;
    let Some(response) = response else {
        return Ok(None);
    };
    let body = response.bytes().await?;
    Ok(Some(serde_json::from_slice(&body).unwrap_or_default()))
}

/// An answer, as far as its head.
pub(super) async fn answered(
    request: RequestBuilder,
    statuses: &[u16],
) -> anyhow::Result<Option<Response>> {
    let response = request.send().await?;
    let status = response.status();
    if statuses.contains(&status.as_u16()) {
        return Ok(Some(response));
    }
    let path = response.url().path().to_owned();
    let body = response.text().await?;
    if [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ]
    .contains(&status)
    {
        return Ok(None);
    }
    bail!("{path} is answered with {status} instead of {statuses:?}: {body}")
}
