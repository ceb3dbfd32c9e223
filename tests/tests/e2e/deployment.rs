//! A runner with a data folder of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use uuid::Uuid;

pub(crate) const RUNNER: &str = env!("CARGO_BIN_EXE_alga-runner-under-test");

/// How long a test waits for what should happen at once. Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A data folder, the commands on it, and a server once it is started.
pub(crate) struct Deployment {
    folder: TempDir,
    data: PathBuf,
    listen: String,
    environment: Vec<(String, String)>,
    server: Option<Server>,
    client: Client,
}

struct Server {
    child: Child,
    url: String,
}

/// The process of a server, by its id: to send it signals while others talk to it. It is good until
/// the deployment has waited for the process to end.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    id: String,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    files: usize,
    threads: usize,
    children: usize,
}

/// An extension that is installed.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) tenant: String,
    pub(crate) install: String,
    pub(crate) extension: String,
    pub(crate) hash: String,
}

/// What an extension answered through `/v1/execute`.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) headers: Value,
    pub(crate) body: Vec<u8>,
}

impl Deployment {
    /// An empty data folder, no server.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            data: folder.path().join("data"),
            folder,
            listen: "127.0.0.1:0".to_owned(),
            environment: Vec::new(),
            server: None,
            client: client(),
        }
    }

    /// Another process on the data of this one, not started.
    pub(crate) fn beside(&self) -> Self {
        let mut beside = Self::new();
        beside.data = self.data();
        beside.environment.clone_from(&self.environment);
        beside
    }

    /// A data folder with a server that has started.
    pub(crate) fn started() -> Self {
        let mut deployment = Self::new();
        deployment.start();
        deployment
    }

    /// Sets a variable for every command from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where the deployment keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// The same as a command is told: relative to where it works where that can be, as the default is.
    fn data_dir(&self) -> &Path {
        let own = self.data.strip_prefix(self.folder.path());
        own.unwrap_or(&self.data)
    }

    /// A place for files of the test.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the runner, with nothing of the test's own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command
            .env_clear()
            .current_dir(self.folder.path())
            .env("ALGA_DATA_DIR", self.data_dir())
            .env("ALGA_LOG_FORMAT", "json")
            .envs(self.environment.iter().cloned())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that succeeds, and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {errors}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Runs a command that fails, and gives what it said.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts the server on a free port and waits until it listens.
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let mut child = self
            .command(&["serve", "--listen", &self.listen])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url
            .unwrap_or_else(|| panic!("the server did not start: {}", self.log()))
            .to_owned();
        self.server = Some(Server { child, url });
    }

    /// Kills the server as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
        assert!(!self.wait(), "killed, and yet it succeeded");
    }

    /// Kills the server; the next one will listen where it did.
    pub(crate) fn kill_and_keep_address(&mut self) {
        let url = self.url();
        self.listen = url.strip_prefix("http://").unwrap().to_owned();
        self.kill();
    }

    /// Asks the server to stop.
    pub(crate) fn terminate(&self) {
        self.process().terminate();
    }

    /// The process of the server.
    pub(crate) fn process(&self) -> Process {
        let id = self.server.as_ref().unwrap().child.id();
        Process { id: id.to_string() }
    }

    /// Whether the server has a file of this name open.
    pub(crate) fn has_open(&self, name: &str) -> bool {
        let folder = format!("/proc/{}/fd", self.process().id);
        let mut files = fs::read_dir(folder).unwrap();
        files.any(|file| {
            let target = fs::read_link(file.unwrap().path());
            target.is_ok_and(|target| target.ends_with(name))
        })
    }

    /// Waits for the server to end by itself; true where it succeeded.
    pub(crate) fn wait(&mut self) -> bool {
        self.server.take().unwrap().child.wait().unwrap().success()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Everything the servers of this deployment logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the log holds the text `times` times, and gives the log.
    pub(crate) async fn logged(&self, text: &str, times: usize) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if log.matches(text).count() >= times {
                return log;
            }
            assert!(start.elapsed() < PATIENCE, "{text} is not in the log");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Packs a component into a bundle that asks for the namespace `notes`.
    pub(crate) fn pack(&self, name: &str, version: &str, component: &[u8]) -> PathBuf {
        self.pack_asking(name, version, component, &["notes"])
    }

    /// Packs a component into a bundle that asks for these namespaces.
    pub(crate) fn pack_asking(
        &self,
        name: &str,
        version: &str,
        component: &[u8],
        namespaces: &[&str],
    ) -> PathBuf {
        self.pack_folder(&self.unpacked(name, version, component, namespaces))
    }

    /// Packs a component together with so many bytes that don't get fewer.
    pub(crate) fn pack_large(&self, name: &str, component: &[u8], bytes: usize) -> PathBuf {
        let folder = self.unpacked(name, "1.0.0", component, &["notes"]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            // Xorshift: nothing that a compressor would see through.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let noise: Vec<u8> = noise.flatten().take(bytes).collect();
        std::fs::write(folder.join("noise"), noise).unwrap();
        self.pack_folder(&folder)
    }

    fn pack_folder(&self, folder: &Path) -> PathBuf {
        let bundle = folder.with_extension("tar.zst");
        self.ok(&["bundle", "pack", path(folder), "--output", path(&bundle)]);
        bundle
    }

    /// A folder of a bundle that asks for these namespaces.
    fn unpacked(
        &self,
        name: &str,
        version: &str,
        component: &[u8],
        namespaces: &[&str],
    ) -> PathBuf {
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|name| json!({ "name": name, "access": ["read", "write"] }))
            .collect();
        let folder = self.scratch(&format!("{name}-{version}-{}", Uuid::new_v4()));
        let manifest = json!({
            "name": name,
            "publisher": "Tests",
            "version": version,
            "runtime": "wasm-component@1",
            "capabilities": { "alga.storage": { "namespaces": namespaces } },
        });
        std::fs::create_dir_all(folder.join("dist")).unwrap();
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        std::fs::write(folder.join("dist/main.wasm"), component).unwrap();
        folder
    }

    /// Publishes a bundle and installs it for a new tenant.
    pub(crate) fn publish(&self, extension: &str, bundle: &Path) -> Installed {
        self.publish_with(extension, bundle, &[])
    }

    /// Publishes a bundle and installs it for a new tenant, with more arguments to the command.
    pub(crate) fn publish_with(
        &self,
        extension: &str,
        bundle: &Path,
        arguments: &[&str],
    ) -> Installed {
        let hash = self.ok(&["bundle", "add", path(bundle)]);
        self.create_install(extension, &hash, arguments)
    }

    /// Installs an extension, whose only bundle has this hash, for a new tenant.
    pub(crate) fn create_install(
        &self,
        extension: &str,
        hash: &str,
        arguments: &[&str],
    ) -> Installed {
        let tenant = Uuid::new_v4().to_string();
        let create = [
            "install",
            "create",
            "--tenant",
            &tenant,
            "--extension",
            extension,
        ];
        let install = self.ok(&[&create, arguments].concat());
        Installed {
            tenant,
            install,
            extension: extension.to_owned(),
            hash: hash.to_owned(),
        }
    }

    /// Packs the example extension.
    pub(crate) fn pack_notes(&self) -> PathBuf {
        let bundle = self.scratch("notes.tar.zst");
        let folder = guest::notes_bundle_dir();
        self.ok(&["bundle", "pack", path(&folder), "--output", path(&bundle)]);
        bundle
    }

    /// Packs, publishes and installs the example extension.
    pub(crate) fn install_notes(&self) -> Installed {
        self.publish("com.example.notes", &self.pack_notes())
    }

    /// Publishes and installs a component.
    pub(crate) fn install(&self, extension: &str, component: &[u8]) -> Installed {
        let bundle = self.pack(extension, "1.0.0", component);
        self.publish(extension, &bundle)
    }

    /// The service token that the server made for itself.
    pub(crate) fn token(&self) -> String {
        self.secret("service.token")
    }

    /// The administrator's token that the server made for itself.
    pub(crate) fn admin_token(&self) -> String {
        self.secret("admin.token")
    }

    fn secret(&self, file: &str) -> String {
        let secret = std::fs::read_to_string(self.data().join(file)).unwrap();
        secret.trim().to_owned()
    }

    /// A connection to the server that has sent nothing yet.
    pub(crate) async fn connect(&self) -> TcpStream {
        let url = &self.server.as_ref().unwrap().url;
        let address = url.strip_prefix("http://").unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    /// A request to the server, without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = &self.server.as_ref().unwrap().url;
        self.client.request(method, format!("{url}{path}"))
    }

    /// A request to the server with the service token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.token())
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> &str {
        &self.server.as_ref().unwrap().url
    }

    /// A request to the server with the administrator's token.
    pub(crate) fn admin(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.admin_token())
    }

    /// The invocation of an install that ended last.
    pub(crate) async fn last_invocation(&self, installed: &Installed) -> Value {
        let path = format!("/v1/installs/{}/invocations", installed.install);
        let response = self.admin(Method::GET, &path).send().await.unwrap();
        let mut body: Value = response.json().await.unwrap();
        body["items"][0].take()
    }

    /// What the server counts, as Prometheus reads it.
    pub(crate) async fn metrics(&self) -> String {
        let response = self.request(Method::GET, "/metrics").send().await.unwrap();
        response.text().await.unwrap()
    }

    /// Waits until as many calls run and wait.
    pub(crate) async fn until_there(&self, running: usize, waiting: usize) {
        let expected = [
            format!("alga_admission_running {running}\n"),
            format!("alga_admission_waiting {waiting}\n"),
        ];
        let start = Instant::now();
        loop {
            let metrics = self.metrics().await;
            if expected.iter().all(|line| metrics.contains(line)) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not {expected:?} but {}",
                metrics
                    .lines()
                    .filter(|line| line.starts_with("alga_admission"))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends an envelope.
    pub(crate) async fn execute(&self, envelope: &Value) -> Response {
        self.request(Method::POST, "/v1/execute")
            .json(envelope)
            .send()
            .await
            .unwrap()
    }

    /// Calls an extension through the envelope and expects an answer.
    pub(crate) async fn call(&self, installed: &Installed, http: Value) -> Answer {
        let response = self.execute(&installed.envelope(&http)).await;
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{answer}");
        Answer::of(&answer)
    }

    /// Sends an envelope and expects the runner to refuse: status and code.
    pub(crate) async fn refusal(&self, envelope: &Value) -> (u16, String) {
        refusal(self.execute(envelope).await).await
    }
}

/// The status and code of an error, whose body must be of the shape that its path has.
pub(crate) async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let is_of_bundles = response.url().path().starts_with("/api/ext-bundles/");
    let request_id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let body: Value = response.json().await.unwrap();
    let (error, message) = if is_of_bundles {
        (&body, "error")
    } else {
        (&body["error"], "message")
    };
    assert_eq!(error["requestId"], request_id.as_str(), "{body}");
    assert!(error[message].is_string(), "{body}");
    let details = error["details"].as_object();
    let fits = if is_of_bundles {
        details.is_none_or(|details| !details.is_empty())
    } else {
        details.is_some()
    };
    assert!(fits, "{body}");
    (status, error["code"].as_str().unwrap().to_owned())
}

impl Process {
    /// Ends the process as a power cut would.
    pub(crate) fn kill(&self) {
        self.signal("-KILL");
    }

    /// Asks the process to stop.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Has it do nothing any more, until it is killed.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Its id.
    pub(crate) fn number(&self) -> u32 {
        self.id.parse().unwrap()
    }

    /// What the process holds at the moment, apart from connections.
    pub(crate) fn footprint(&self) -> Footprint {
        let of = |name: &str| format!("/proc/{}/{name}", self.id);
        let count = |name: &str| fs::read_dir(of(name)).unwrap().count();
        let files = fs::read_dir(of("fd")).unwrap().filter(|file| {
            let target = fs::read_link(file.as_ref().unwrap().path());
            target.is_ok_and(|target| !target.to_string_lossy().starts_with("socket:"))
        });
        let children = fs::read_dir(of("task")).unwrap().map(|thread| {
            let children = thread.unwrap().path().join("children");
            let children = fs::read_to_string(children).unwrap_or_default();
            children.split_whitespace().count()
        });
        Footprint {
            files: files.count(),
            threads: count("task"),
            children: children.sum(),
        }
    }

    /// Waits until the process holds no more than it did, but for connections of databases that are
    /// opened when they are first needed. What stays behind of every call is far more.
    pub(crate) async fn until_no_more_than(&self, before: Footprint) {
        const OPENED_LATE: usize = 16;
        let start = Instant::now();
        loop {
            let now = self.footprint();
            if now.files <= before.files + OPENED_LATE
                && now.threads <= before.threads
                && now.children <= before.children
            {
                return;
            }
            // Threads for blocking work end after some seconds without any.
            assert!(start.elapsed() < 3 * PATIENCE, "{now:?} after {before:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Installed {
    /// An envelope for this install.
    pub(crate) fn envelope(&self, http: &Value) -> Value {
        json!({
            "context": {
                "request_id": "e2e-1",
                "tenant_id": self.tenant,
                "extension_id": self.extension,
                "install_id": self.install,
                "content_hash": self.hash,
            },
            "http": http,
        })
    }
}

impl Answer {
    /// What an extension answered, out of the body of the runner's answer.
    pub(crate) fn of(body: &Value) -> Self {
        let bytes = body["body_b64"].as_str().unwrap_or_default();
        Self {
            status: body["status"].as_u64().unwrap(),
            headers: body["headers"].clone(),
            body: STANDARD.decode(bytes).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The test is over, or failed; either way nobody waits for the server.
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}

/// A GET in an envelope.
pub(crate) fn get(path: &str) -> Value {
    json!({ "method": "GET", "path": path })
}

/// A request with a JSON body in an envelope.
pub(crate) fn send(method: &str, path: &str, body: &Value) -> Value {
    json!({
        "method": method,
        "path": path,
        "headers": { "content-type": "application/json" },
        "body_b64": STANDARD.encode(body.to_string()),
    })
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn client() -> Client {
    // It fails where another test did so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(Duration::from_secs(60))
        .tls_certs_only([])
        .build()
        .unwrap()
}
