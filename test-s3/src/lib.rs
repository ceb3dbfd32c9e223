//! Servers of S3 for tests.
//!
//! [`Server`] is a real one: the RADOS gateway of Ceph, as Debian has it. The first test that needs one starts
//! it, all tests that run meanwhile share it, each with a bucket of its own, and it stops by itself when nobody has
//! used it for a while. Nothing is kept: its objects are in memory. Where it isn't installed, what needs it is
//! skipped with a line that says so, but fails where `CI` is set.
//!
//! [`MemoryServer`] is one of ours, in the process of the test, and always there. It does what radosgw doesn't:
//! conditions of writes hold for uploads in parts too, checksums are compared, and lists come in pages as small
//! as a test likes. It is no proof of what real servers do.
//!
//! A way to a server that can be obstructed is here too.

#![expect(
    clippy::disallowed_methods,
    reason = "what a test runs against is said in the environment"
)]
#![expect(
    clippy::print_stdout,
    reason = "what is skipped is told with what the tests tell"
)]

mod bucket;
mod memory;
mod proxy;
mod server;

pub use bucket::TestBucket;
pub use memory::MemoryServer;
pub use proxy::{Fault, Proxy};
pub use server::Server;
