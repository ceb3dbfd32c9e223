//! The server that the tests of a machine share.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// What the gateway needs; a manager, which counts and balances, it does not.
const PROGRAMS: [&str; 7] = [
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
];
/// The files in which its processes say which ones they are.
const PIDS: [&str; 3] = ["rgw.pid", "osd.pid", "mon.pid"];
/// One monitor, one store in memory, one gateway; it promises about order what a large one does. Without
/// `tcp_nodelay` every answer with a short body would come 40 ms late: its end waits for an acknowledgement
/// that the other side delays.
const SETTINGS: &str = "\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}
crash dir = {folder}
admin socket =
log file = {folder}/$name.log
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
paxos propose interval = 0.02
paxos min wait = 0.01
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 8589934592
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw gc obj min wait = 1
rgw gc processor period = 2
rgw enable usage log = false
rgw enable ops log = false
";
/// Stops the processes when nobody was connected for a while, and removes what they leave.
const KEEPER: &str = r#"
idle=0
while sleep 5; do
    [ -e "$1/rgw.pid" ] || exit 0
    idle=$((idle + 1))
    # The state of a connection that is open is 01.
    if grep -q "^ *[0-9]*: 0100007F:$2 [0-9A-F:]* 01 " /proc/net/tcp; then idle=0; fi
    if [ "$idle" -ge 12 ]; then
        # Whoever starts the next one waits for that.
        exec 9< "$1/../lock" && flock 9
        for file in rgw osd mon; do kill -9 "$(cat "$1/$file.pid")"; done
        rm -rf "$1"
        exit 0
    fi
done
"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    port: u16,
}

impl Server {
    /// Who may do everything.
    pub const ACCESS_KEY: &str = "alga-tests";
    /// What they sign with.
    pub const SECRET_KEY: &str = "not-a-secret";

    /// Whether this machine has one to start.
    pub fn is_installed() -> bool {
        PROGRAMS.iter().all(|name| program(name).is_some())
    }

    /// The one that all tests share; started if it doesn't run.
    ///
    /// # Panics
    /// Where it isn't installed, or doesn't start.
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
        let data = folder.join("data");
        let server = Self::running(&data).unwrap_or_else(|| Self::start(&data));
        drop::<File>(lock);
        server
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn running(data: &Path) -> Option<Self> {
        let port = fs::read_to_string(data.join("port")).ok()?.parse().ok()?;
        let server = Self { port };
        server.answers().then_some(server)
    }

    /// Whether it answers whoever asks nothing in particular.
    fn answers(&self) -> bool {
        let ask = || -> io::Result<bool> {
            let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.write_all(b"GET / HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer.contains(" 200 ") && answer.contains("ListAllMyBucketsResult"))
        };
        ask().unwrap_or(false)
    }

    fn start(data: &Path) -> Self {
        end_what_is_left(data);
        match fs::remove_dir_all(data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        for folder in ["mon", "osd"] {
            fs::create_dir_all(data.join(folder)).expect("the folder for tests can be written");
        }
        let (mon, port) = (free_port(), free_port());
        let cluster = Cluster {
            data: data.to_owned(),
            id: Uuid::new_v4().to_string(),
            mon,
        };
        cluster.configure(port);
        cluster.start_monitor();
        cluster.start_store();
        cluster.start_gateway();
        let server = Self { port };
        let begun = Instant::now();
        while !server.answers() {
            assert!(
                begun.elapsed() < PATIENCE,
                "radosgw does not answer: {}",
                cluster.log("client.admin")
            );
            thread::sleep(Duration::from_millis(50));
        }
        fs::write(data.join("port"), port.to_string()).expect("the folder can be written");
        keep(data, port);
        server
    }
}

/// The processes behind a gateway, on their way up.
struct Cluster {
    data: PathBuf,
    id: String,
    mon: u16,
}

impl Cluster {
    fn configure(&self, port: u16) {
        let folder = self.data.to_str().expect("the path is text");
        let settings = SETTINGS
            .replace("{fsid}", &self.id)
            .replace("{folder}", folder)
            .replace("{mon}", &self.mon.to_string())
            .replace("{port}", &port.to_string());
        fs::write(self.data.join("ceph.conf"), settings).expect("the folder can be written");
    }

    fn start_monitor(&self) {
        let (keyring, map) = (self.data.join("keyring"), self.data.join("monmap"));
        for (name, is_first) in [("mon.", true), ("client.admin", false), ("osd.0", false)] {
            let mut key = command("ceph-authtool");
            key.arg(&keyring).args(["--gen-key", "-n", name]);
            for service in ["mon", "osd", "mgr"] {
                key.args(["--cap", service, "allow *"]);
            }
            if is_first {
                key.arg("--create-keyring");
            }
            succeed(&mut key);
        }
        let address = format!("[v2:127.0.0.1:{}]", self.mon);
        let mut make = command("monmaptool");
        make.args(["--create", "--fsid", &self.id, "--addv", "a", &address]);
        succeed(make.arg(&map));
        let mut prepare = self.command("ceph-mon");
        prepare.args(["-i", "a", "--mkfs", "--monmap"]).arg(&map);
        succeed(prepare.arg("--keyring").arg(&keyring));
        let mut run = self.command("ceph-mon");
        succeed(run.args(["-i", "a", "--pid-file"]).arg(self.pid("mon")));
    }

    fn start_store(&self) {
        let id = Uuid::new_v4().to_string();
        succeed(self.command("ceph").args(["osd", "new", &id, "0"]));
        let mut prepare = self.command("ceph-osd");
        succeed(prepare.args(["-i", "0", "--mkfs", "--osd-uuid", &id]));
        let mut run = self.command("ceph-osd");
        succeed(run.args(["-i", "0", "--pid-file"]).arg(self.pid("osd")));
    }

    fn start_gateway(&self) {
        let mut user = self.command("radosgw-admin");
        user.args(["user", "create", "--uid=tests", "--display-name=tests"]);
        user.args(["--access-key", Server::ACCESS_KEY]);
        succeed(user.args(["--secret-key", Server::SECRET_KEY]));
        let mut run = self.command("radosgw");
        succeed(
            run.args(["-n", "client.admin", "--pid-file"])
                .arg(self.pid("rgw")),
        );
    }

    fn command(&self, name: &str) -> Command {
        let mut command = command(name);
        command.arg("-c").arg(self.data.join("ceph.conf"));
        command
    }

    fn pid(&self, process: &str) -> PathBuf {
        self.data.join(format!("{process}.pid"))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.data.join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// Ends the processes of a server that answers no more.
fn end_what_is_left(data: &Path) {
    for file in PIDS {
        let pid = fs::read_to_string(data.join(file)).ok();
        let pid = pid.and_then(|pid| pid.trim().parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // The number may be somebody else's by now.
        let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let command = String::from_utf8_lossy(&command.unwrap_or_default()).into_owned();
        if data.to_str().is_some_and(|data| command.contains(data)) {
            // One that has ended meanwhile is not missed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// One for each build, in the folder for temporary files.
fn folder() -> PathBuf {
    let program = env::current_exe().expect("a program knows where it is");
    let target = program.ancestors().nth(3);
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    env::temp_dir().join(format!("alga-test-s3-{:016x}", hasher.finish()))
}

fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

/// Waits for a program; one that goes on in the background has its own output closed by then.
fn succeed(command: &mut Command) {
    let name = command.get_program().to_owned();
    let log = tempfile();
    let told = log.try_clone().expect("a file can be shared");
    let status = command
        .stdout(Stdio::null())
        .stderr(told)
        .status()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", name.display()));
    assert!(
        status.success(),
        "{} failed: {}",
        name.display(),
        contents(log)
    );
}

fn tempfile() -> File {
    let path = env::temp_dir().join(format!("alga-test-s3-{}", Uuid::new_v4().simple()));
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .expect("the folder for temporary files can be written");
    // It is gone when nobody has it open any more.
    fs::remove_file(path).expect("it is ours");
    file
}

fn contents(mut file: File) -> String {
    use std::io::Seek as _;
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.read_to_string(&mut text).map(drop));
    read.map_or_else(|error| error.to_string(), |()| text)
}

fn keep(data: &Path, port: u16) {
    // In a session of its own, as whoever runs the tests may end all that is left of theirs.
    let keeper = Command::new("setsid")
        .args(["--fork", "sh", "-c", KEEPER, "keeper"])
        .arg(data)
        .arg(format!("{port:04X}"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let started = keeper.expect("a shell can be run");
    assert!(started.success(), "nobody would stop the server");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a port is free").port()
}
