//! Settings of the HTTP server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::kind::{Address, Flag, OneOf, Optional, bytes, millis};
use super::setting::section;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs extensions and keeps their storage.
    All,
    /// Runs extensions, and asks another process for their storage.
    Runner,
    /// Keeps the storage of extensions that other processes run.
    Storage,
}

impl Role {
    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Runner => "runner",
            Self::Storage => "storage",
        }
    }

    /// Whether it runs extensions.
    pub const fn runs_extensions(self) -> bool {
        matches!(self, Self::All | Self::Runner)
    }

    /// Whether it keeps their storage.
    pub const fn keeps_storage(self) -> bool {
        matches!(self, Self::All | Self::Storage)
    }
}

section! {
    /// How the server is reached, and how it stops.
    pub struct ServerConfig {
        /// The address to listen on. Port 0 takes a free one.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7410)), "server.listen": Address;
        /// What the process does: run extensions, keep their storage, or both. Where it is not set, both,
        /// or only the first where `storage.api.url` is set.
        role: Option<Role> = None, "server.role": Optional(OneOf(&[
            ("all", Role::All),
            ("runner", Role::Runner),
            ("storage", Role::Storage),
        ]));
        /// Whether everything is allowed without a token, for development. On loopback only.
        insecure_dev: bool = false, "server.insecure_dev": Flag;
        /// How long requests under way may take to finish when the server stops.
        drain_timeout: Duration = Duration::from_secs(30), "server.drain_timeout_ms": millis(0..=3_600_000);
        /// The most bytes of the body of a request.
        max_body_bytes: u64 = 10 << 20, "server.max_body_bytes": bytes(1..=1 << 30);
    }
}
