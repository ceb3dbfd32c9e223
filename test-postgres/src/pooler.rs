//! A pooler between a test and its database.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

use crate::server::{as_whoever_may, free_port};
use crate::{TestDatabase, at};

/// Runs until nobody holds the other end of its input, so that none outlives a test that is killed.
const WHILE_WANTED: &str = r#"
PATH=$PATH:/usr/sbin
folder=$(mktemp -d)
printf '%s\n' "$1" > "$folder/ini"
pgbouncer "$folder/ini" &
pooler=$!
read -r _
kill "$pooler"
wait "$pooler"
rm -r "$folder"
"#;

/// A `PgBouncer` in transaction mode: after each transaction, its connection to the server is for
/// whoever comes next. It stops when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    /// Waits for the end of its input.
    keeper: Child,
}

impl PgBouncer {
    /// Starts one that keeps at most `connections` to a database of the server of `database`.
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
        const TRIES: usize = 3;
        // A port that was free may be somebody else's by now.
        let start = |_| Self::start(&settings(database, connections, parameters));
        let started = (0..TRIES).find_map(start);
        started.expect(
            "there is no PgBouncer here, or it does not start; install it as scripts/test does",
        )
    }

    /// Where `database` is through it.
    pub fn url_of(&self, database: &TestDatabase) -> String {
        at(&database.url, "127.0.0.1", self.port)
    }

    /// Where it tells about itself, to whoever asks without parameters.
    pub fn url_of_console(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/pgbouncer", self.port)
    }

    fn start(settings: &str) -> Option<Self> {
        let port = free_port();
        let mut keeper = as_whoever_may("sh")
            .args(["-c", WHILE_WANTED, "keeper"])
            .arg(format!("{settings}listen_port = {port}\n"))
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

fn settings(database: &TestDatabase, connections: u32, ignored: &str) -> String {
    let server = PgConnectOptions::from_str(&database.url).expect("the URL is one");
    let (host, server_port, user) = (server.get_host(), server.get_port(), server.get_username());
    let password = password(&database.url).map(|password| format!(" password='{password}'"));
    let password = password.unwrap_or_default();
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
         log_disconnections = 0\n"
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
