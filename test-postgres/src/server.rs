//! The server that the tests of a machine share.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, io};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use uuid::Uuid;

/// Who runs it where the tests are run by the superuser, who may not.
const USER: &str = "postgres";
/// Stops the server when nobody was connected for a while, and removes its data, which are gigabytes after
/// a run of all tests.
const KEEPER: &str = r#"
idle=0
while sleep 5; do
    "$1/pg_ctl" -D "$2" status || exit 0
    idle=$((idle + 1))
    server=$(head -n 1 "$2/postmaster.pid") || exit 0
    for process in $(cat "/proc/$server/task/$server/children"); do
        # The title of one that serves a client names where that is.
        if grep -q "127\.0\.0\.1(" "/proc/$process/cmdline"; then idle=0; fi
    done
    if [ "$idle" -ge 12 ]; then
        # Whoever starts the next one waits for that.
        exec 9< "$2/../lock" && flock 9
        "$1/pg_ctl" -D "$2" -m immediate stop
        rm -rf "$2"
        exit 0
    fi
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
    settings: &'static str,
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
        initialize(folder);
        let server = Self { port: free_port() };
        // What a test server writes need not outlive the machine; what it promises about order is kept.
        server.launch(folder, "-c fsync=off -c shared_buffers=64MB");
        keep(&folder.join("data"));
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
    /// Starts one that nobody else uses.
    ///
    /// # Panics
    /// Where there is no PostgreSQL on this machine.
    pub fn start() -> Self {
        Self::start_with("-c shared_buffers=64MB", |_| {})
    }

    /// Starts one that is used over TLS only, with this certificate and its key, as PEM.
    ///
    /// # Panics
    /// Where there is no PostgreSQL on this machine.
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_with("-c ssl=on", |data| {
            install(&data.join("server.crt"), certificate);
            install(&data.join("server.key"), key);
            install(
                &data.join("pg_hba.conf"),
                "hostssl all all 127.0.0.1/32 trust\n",
            );
        })
    }

    fn start_with(settings: &'static str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = env::temp_dir().join(format!("alga-postgres-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        initialize(&folder);
        prepare(&folder.join("data"));
        let server = Server { port: free_port() };
        server.launch(&folder, settings);
        Self {
            server,
            folder,
            settings,
        }
    }

    /// Ends every process of it at once, in the middle of whatever they do.
    pub fn kill(&self) {
        let lock = self.folder.join("data/postmaster.pid");
        let known = fs::read_to_string(&lock).expect("a server that runs says so");
        let first = known.lines().next().and_then(|pid| pid.parse().ok());
        let server = first
            .and_then(Pid::from_raw)
            .expect("it says which process it is");
        // Stopped, it starts no others while they are counted.
        kill_process(server, Signal::STOP).expect("it runs");
        let processes: Vec<Pid> = children(server).chain([server]).collect();
        for process in &processes {
            match kill_process(*process, Signal::KILL) {
                // One that ended meanwhile is not missed.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => panic!("cannot kill a process of the server: {error}"),
            }
        }
        while processes.iter().any(|process| is_alive(*process)) {
            std::thread::yield_now();
        }
        // Until somebody has reaped it, its successor would take it for alive.
        fs::remove_file(lock).expect("nobody else removes it");
    }

    /// Starts it again, at the same place.
    pub fn restart(&self) {
        self.server.launch(&self.folder, self.settings);
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

/// Makes an empty database, where nothing of an earlier one is left.
fn initialize(folder: &Path) {
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
}

/// Writes a file that the server alone may read.
fn install(path: &Path, content: &str) {
    fs::write(path, content).expect("the data can be written");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
    hand_over(path);
}

fn children(process: Pid) -> impl Iterator<Item = Pid> {
    let process = process.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.expect("Linux tells the children of a process");
    let pids: Vec<_> = children
        .split(' ')
        .filter_map(|pid| pid.parse().ok())
        .collect();
    pids.into_iter().filter_map(Pid::from_raw)
}

/// Whether it holds anything still: one that waits to be reaped does not.
fn is_alive(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    let state = stat.as_deref().unwrap_or_default().rsplit_once(") ");
    state.is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// In the folder for temporary files, as whoever runs the server may not be let into that of the build; one
/// for each build and version, as each wants another server.
fn folder() -> PathBuf {
    let program = env::current_exe().expect("a program knows where it is");
    let target = program.ancestors().nth(3);
    let mut hasher = DefaultHasher::new();
    (target, chosen()).hash(&mut hasher);
    env::temp_dir().join(format!("alga-test-postgres-{:016x}", hasher.finish()))
}

/// A program of the server, run as somebody who may run it.
fn program(name: &str) -> Command {
    as_whoever_may(programs().join(name))
}

/// A program, run by somebody else where the tests are run by the superuser, whom it would refuse.
pub(crate) fn as_whoever_may(program: impl AsRef<OsStr>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", USER, "--"]).arg(program);
    // Whoever it is may not be let into the folder of the build.
    command.current_dir("/");
    command
}

/// The folder of the programs: that which was chosen, the one on the path, or that of the newest server
/// that Debian knows.
fn programs() -> PathBuf {
    chosen()
        .or_else(on_path)
        .or_else(installed)
        .expect("there is no PostgreSQL here; install it as scripts/test does, or set DATABASE_URL")
}

fn chosen() -> Option<PathBuf> {
    env::var_os("ALGA_TEST_POSTGRES_BIN").map(PathBuf::from)
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).find(|folder| folder.join("initdb").exists())
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

fn keep(data: &Path) {
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
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // It outlives this process.
    let started = keeper.expect("a shell can be run");
    assert!(started.success(), "nobody would stop the server");
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a port is free").port()
}

fn succeeded(name: &str, output: io::Result<Output>) {
    let output = output.unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}");
}
