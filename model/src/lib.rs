//! The few words that every crate of Alga Runner shares.
//!
//! Each type is parsed once, where a value enters the system, and is valid from then on:
//!
//! ```
//! use alga_model::{ContentHash, ExtensionName, TenantId};
//!
//! let tenant: TenantId = "0192f0c1-7a7e-7d0a-8f4e-2b1c5a9d0e11".parse()?;
//! let name: ExtensionName = "com.example.notes".parse()?;
//! let hash = ContentHash::of(b"the bytes of a bundle");
//! println!("{tenant} runs {name} from {hash}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate knows no database, no HTTP and no WebAssembly. A type belongs here only when at least
//! two other crates exchange it.

mod chain;
mod clock;
mod hash;
mod id;
mod json;
mod name;
mod outage;
mod secret;
mod silence;

pub use chain::ErrorChain;
pub use clock::{Clock, ManualClock, ParseTimestampError, SystemClock, Timestamp};
pub use hash::{ContentHash, ContentHasher, ParseContentHashError};
pub use id::{InstallId, ParseIdError, TenantId};
pub use json::{has_reserved_member, is_reserved_member, member_pointer, parse_json};
pub use name::{ExtensionName, ParseExtensionNameError};
pub use outage::Outages;
pub use secret::Secret;
pub use silence::Silences;
