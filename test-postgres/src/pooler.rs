//! A pooler between a test and its database.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};
use std::{env, io};

use sqlx::postgres::PgConnectOptions;

use crate::server::{as_whoever_may, free_port};
use crate::{TestDatabase, at};

/// Runs until nobody holds the other end of its input, so that none outlives a test that is killed.
const WHILE_WANTED: &str = r#"
folder=$(mktemp -d)
printf '%s\n' "$1" > "$folder/ini"
"$2" "$folder/ini" &
pooler=$!
read -r _
# Whatever else it is told, one of some version waits until its last client has gone.
kill -KILL "$pooler"
wait "$pooler" 2> /dev/null
rm -r "$folder"
"#;

/// The first version that keeps track of prepared statements.
const FIRST_TO_KEEP: (u32, u32) = (1, 21);

/// A `PgBouncer` in transaction mode: after each transaction, its connection to the server is for
/// whoever comes next. It stops when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    /// Waits for the end of its input.
    keeper: Child,
}

/// The program of a `PgBouncer` that keeps prepared statements.
#[derive(Debug)]
pub struct NewerPgBouncer(Program);

/// The program of a `PgBouncer`.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    version: (u32, u32),
}

impl PgBouncer {
    /// Starts one that keeps no prepared statements, and at most `connections` to a database of the server of
    /// `database`.
    ///
    /// # Panics
    /// Where there is no `PgBouncer` on this machine.
    pub fn before(database: &TestDatabase, connections: u32) -> Self {
        Self::ignoring(database, connections, "extra_float_digits")
    }

    /// Starts one that lets clients say what it ignores: these startup parameters. It refuses those that
    /// say others.
    ///
    /// # Panics
    /// Where there is no `PgBouncer` on this machine.
    pub fn ignoring(database: &TestDatabase, connections: u32, parameters: &str) -> Self {
        let program =
            Program::on_path().expect("there is no PgBouncer; install it as scripts/test does");
        // An older one knows no such setting.
        let statements = program.keeps_statements().then_some(0);
        let settings = settings(database, connections, parameters, statements);
        Self::run(&program, &settings)
    }

    /// Where `database` is through it.
    pub fn url_of(&self, database: &TestDatabase) -> String {
        at(&database.url, "127.0.0.1", self.port)
    }

    /// Where it tells about itself, to whoever asks without parameters.
    pub fn url_of_console(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/pgbouncer", self.port)
    }

    fn run(program: &Program, settings: &str) -> Self {
        const TRIES: usize = 3;
        // A port that was free may be somebody else's by now.
        let started = (0..TRIES).find_map(|_| Self::start(program, settings));
        started.expect("PgBouncer starts")
    }

    fn start(program: &Program, settings: &str) -> Option<Self> {
        let port = free_port();
        let mut keeper = as_whoever_may("sh")
            .args(["-c", WHILE_WANTED, "keeper"])
            .arg(format!("{settings}listen_port = {port}\n"))
            .arg(&program.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell can be run");
        if answers(port, &mut keeper) {
            return Some(Self { port, keeper });
        }
        stop(&mut keeper);
        None
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        stop(&mut self.keeper);
    }
}

impl NewerPgBouncer {
    /// That of `ALGA_TEST_PGBOUNCER`, or else the one on the path. Where that is missing or too old there is
    /// none, and a line says so.
    ///
    /// # Panics
    /// Where `ALGA_TEST_PGBOUNCER` names none.
    pub fn find() -> Option<Self> {
        let keeping = Program::keeps_statements;
        if let Some(chosen) = env::var_os("ALGA_TEST_PGBOUNCER") {
            let chosen = Program::at(chosen.into()).filter(keeping);
            let chosen = chosen
                .expect("ALGA_TEST_PGBOUNCER names a PgBouncer of 1.21 or newer that can be run");
            return Some(Self(chosen));
        }
        let found = Program::on_path().filter(keeping);
        if found.is_none() {
            println!(
                "skipped: there is no PgBouncer 1.21 or newer on the PATH; name one with ALGA_TEST_PGBOUNCER"
            );
        }
        found.map(Self)
    }

    /// Starts one that keeps `statements` prepared in each of its `connections` to a database of the server of
    /// `database`, and ignores the settings that clients begin with.
    pub fn before(&self, database: &TestDatabase, connections: u32, statements: u32) -> PgBouncer {
        const IGNORED: &str = "extra_float_digits,options";
        let settings = settings(database, connections, IGNORED, Some(statements));
        PgBouncer::run(&self.0, &settings)
    }
}

impl Program {
    fn on_path() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        // Debian installs it where not everybody looks.
        let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
        let mut programs = folders.map(|folder| folder.join("pgbouncer"));
        Self::at(programs.find(|program| program.exists())?)
    }

    fn at(path: PathBuf) -> Option<Self> {
        let told = as_whoever_may(&path).arg("--version").output().ok()?;
        let version = version(&String::from_utf8_lossy(&told.stdout))?;
        Some(Self { path, version })
    }

    fn keeps_statements(&self) -> bool {
        self.version >= FIRST_TO_KEEP
    }
}

/// Major and minor version, of what it says about itself.
fn version(told: &str) -> Option<(u32, u32)> {
    let mut numbers = told.strip_prefix("PgBouncer ")?.split(['.', '\n']);
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

fn settings(
    database: &TestDatabase,
    connections: u32,
    ignored: &str,
    statements: Option<u32>,
) -> String {
    let server = PgConnectOptions::from_str(&database.url).expect("the URL is one");
    let (host, server_port, user) = (server.get_host(), server.get_port(), server.get_username());
    let password = password(&database.url).map(|password| format!(" password='{password}'"));
    let password = password.unwrap_or_default();
    let statements =
        statements.map(|statements| format!("max_prepared_statements = {statements}\n"));
    let statements = statements.unwrap_or_default();
    format!(
        "[databases]\n\
         * = host={host} port={server_port} user={user}{password}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = transaction\n\
         default_pool_size = {connections}\n\
         max_client_conn = 500\n\
         ignore_startup_parameters = {ignored}\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         {statements}"
    )
}

/// The password in a URL, of which the driver tells nothing.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

/// Waits until somebody listens there, or the keeper has given up.
fn answers(port: u16, keeper: &mut Child) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    const LOOK: Duration = Duration::from_millis(2);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        if !matches!(keeper.try_wait(), Ok(None)) {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    false
}

fn stop(keeper: &mut Child) {
    drop(keeper.stdin.take());
    // Whether it ends well is no matter of the test.
    drop::<io::Result<_>>(keeper.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(
            version("PgBouncer 1.25.2\nlibevent 2.1.12-stable\n"),
            Some((1, 25))
        );
        assert!(version("PgBouncer 1.9.0\n") < Some(FIRST_TO_KEEP));
        assert!(version("PgBouncer 1.100\n") > Some(FIRST_TO_KEEP));
        assert_eq!(version("pgpool-II version 4.3.5\n"), None);
    }

    #[test]
    fn the_password_of_a_url_is_found() {
        for (url, expected) in [
            ("postgres://a@h:1/postgres", None),
            ("postgres://a:b@h/db?sslmode=disable", Some("b")),
            ("postgres://h/db", None),
        ] {
            assert_eq!(password(url), expected, "{url}");
        }
    }
}
