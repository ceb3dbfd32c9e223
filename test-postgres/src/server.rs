//! The server that the tests of a machine share.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, io};

use rustix::process::geteuid;

/// Who runs it where the tests are run by the superuser, who may not.
const USER: &str = "postgres";
/// Stops the server when nobody was connected for a while.
const KEEPER: &str = r#"
idle=0
while sleep 5; do
    "$1/pg_ctl" -D "$2" status || exit 0
    used=$("$1/psql" -h 127.0.0.1 -p "$3" -U postgres -d postgres -AtX -c \
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") || used=2
    if [ "$used" -gt 1 ]; then idle=0; else idle=$((idle + 1)); fi
    if [ "$idle" -ge 12 ]; then "$1/pg_ctl" -D "$2" -m immediate stop; exit 0; fi
done
"#;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    port: u16,
}

/// A server that keeps what it answered, as one in production does. It stops when this is dropped.
#[derive(Debug)]
pub struct DurableServer {
    server: Server,
    folder: PathBuf,
}

impl Server {
    /// The one that all tests share; started if it doesn't run.
    ///
    /// # Panics
    /// Where there is no PostgreSQL on this machine.
    pub fn shared() -> Self {
        let folder = folder();
        fs::create_dir_all(&folder).expect("the folder for tests can be written");
        let lock = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock)
            .expect("the folder for tests can be written");
        lock.lock().expect("files can be locked");
        let server = Self::running(&folder).unwrap_or_else(|| Self::start(&folder));
        drop::<File>(lock);
        server
    }

    /// Where whoever may do everything connects.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn running(folder: &Path) -> Option<Self> {
        let data = folder.join("data");
        let status = program("pg_ctl")
            .arg("-D")
            .arg(&data)
            .arg("status")
            .output();
        if !status.ok()?.status.success() {
            return None;
        }
        // The fourth line of the file that a running server keeps.
        let pid = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let port = pid.lines().nth(3)?.parse().ok()?;
        Some(Self { port })
    }

    fn start(folder: &Path) -> Self {
        // What a test server writes need not outlive the machine; what it promises about order is kept.
        let server = Self::start_with(folder, "-c fsync=off -c shared_buffers=64MB");
        keep(&folder.join("data"), server.port);
        server
    }

    fn start_with(folder: &Path, settings: &str) -> Self {
        let data = folder.join("data");
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        hand_over(folder);
        let initialized = program("initdb")
            .args(["-A", "trust", "-N", "-U", "postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output();
        succeeded("initdb", initialized);
        let server = Self { port: free_port() };
        server.launch(folder, settings);
        server
    }

    /// Runs it over the data that are there.
    fn launch(&self, folder: &Path, settings: &str) {
        let port = self.port;
        let settings = format!(
            "-p {port} -h 127.0.0.1 -c unix_socket_directories= -c max_connections=500 -c max_wal_size=2GB \
             -c log_lock_waits=on -c deadlock_timeout=200ms {settings}"
        );
        let started = program("pg_ctl")
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-l")
            .arg(folder.join("log"))
            .args(["-o", &settings, "-w", "start"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let started = started.expect("pg_ctl can be run");
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(started.success(), "PostgreSQL does not start:\n{}", log());
    }
}

impl DurableServer {
    const SETTINGS: &str = "-c shared_buffers=64MB";

    /// Starts one that nobody else uses.
    ///
    /// # Panics
    /// Where there is no PostgreSQL on this machine.
    pub fn start() -> Self {
        let folder = env::temp_dir().join(format!("alga-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let server = Server::start_with(&folder, Self::SETTINGS);
        Self { server, folder }
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        let stopped = program("pg_ctl")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-m", "immediate", "stop"])
            .output();
        succeeded("pg_ctl", stopped);
    }

    /// Starts it again, at the same place.
    pub fn restart(&self) {
        self.server.launch(&self.folder, Self::SETTINGS);
    }

    /// Where whoever may do everything connects.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

impl Drop for DurableServer {
    fn drop(&mut self) {
        let data = self.folder.join("data");
        let stopped = program("pg_ctl")
            .arg("-D")
            .arg(&data)
            .args(["-m", "immediate", "stop"])
            .output();
        // It is gone with the machine's temporary files at the latest.
        drop(stopped);
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// In the folder for temporary files, as whoever runs the server may not be let into that of the build; one
/// for each build, as each may want another server.
fn folder() -> PathBuf {
    let program = env::current_exe().expect("a program knows where it is");
    let target = program.ancestors().nth(3);
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    env::temp_dir().join(format!("alga-test-postgres-{:016x}", hasher.finish()))
}

/// A program of the server, run as somebody who may run it.
fn program(name: &str) -> Command {
    let program = programs().join(name);
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", USER, "--"]).arg(program);
    // Whoever it is may not be let into the folder of the build.
    command.current_dir("/");
    command
}

/// The folder of the programs: on the path, or those of the newest server that Debian knows.
fn programs() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    on_path
        .or_else(installed)
        .expect("there is no PostgreSQL here; install it as scripts/test does, or set DATABASE_URL")
}

fn installed() -> Option<PathBuf> {
    let version = |folder: &PathBuf| -> Option<u32> {
        let folder = folder.parent()?.file_name()?;
        folder.to_str()?.parse().ok()
    };
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("initdb").exists())
        .max_by_key(version)
}

/// Lets whoever runs the server write its folder.
fn hand_over(folder: &Path) {
    if geteuid().is_root() {
        let given = Command::new("chown").arg(USER).arg(folder).output();
        succeeded("chown", given);
    }
}

fn keep(data: &Path, port: u16) {
    // In a session of its own, as whoever runs the tests may end all that is left of theirs.
    let mut keeper = Command::new("setsid");
    keeper.arg("--fork");
    if geteuid().is_root() {
        keeper.args(["runuser", "-u", USER, "--"]);
    }
    let keeper = keeper
        .args(["sh", "-c", KEEPER, "keeper"])
        .arg(programs())
        .arg(data)
        .arg(port.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // It outlives this process.
    let started = keeper.expect("a shell can be run");
    assert!(started.success(), "nobody would stop the server");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a port is free").port()
}

fn succeeded(name: &str, output: io::Result<Output>) {
    let output = output.unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}");
}
