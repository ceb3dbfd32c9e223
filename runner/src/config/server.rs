//! Settings of the HTTP server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::kind::{Address, Flag, bytes, millis};
use super::setting::section;

section! {
    /// How the server is reached, and how it stops.
    pub struct ServerConfig {
        /// The address to listen on. Port 0 takes a free one.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7410)), "server.listen": Address;
        /// Whether everything is allowed without a token, for development. On loopback only.
        insecure_dev: bool = false, "server.insecure_dev": Flag;
        /// How long requests under way may take to finish when the server stops.
        drain_timeout: Duration = Duration::from_secs(30), "server.drain_timeout_ms": millis(0..=3_600_000);
        /// The most bytes of the body of a request.
        max_body_bytes: u64 = 10 << 20, "server.max_body_bytes": bytes(1..=1 << 30);
    }
}
