//! What the host knows during one invocation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use alga_model::{ExtensionName, InstallId, TenantId};
use alga_storage::{Caller, Gate};
use wasmtime::component::{HasData, Linker};

use crate::bindings::alga::extension::{context, logging};
use crate::bindings::alga::storage::{records, types};
use crate::log::InvocationLog;

/// One call of an install.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The id that joins the logs of caller, host and guest.
    pub request_id: Arc<str>,
    /// Who is being served.
    pub served: Arc<Served>,
}

/// An install, as all its invocations see it.
#[derive(Clone)]
pub struct Served {
    /// Whose install it is.
    pub tenant: TenantId,
    /// Which install.
    pub install: InstallId,
    /// Which extension.
    pub extension: ExtensionName,
    /// Which version of it.
    pub version: Arc<str>,
    /// The settings of the install.
    pub config: BTreeMap<String, String>,
}

/// Without the values of settings, some of which are secrets.
impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("tenant", &self.tenant)
            .field("install", &self.install)
            .field("extension", &self.extension)
            .field("version", &self.version)
            .field("config", &self.config.keys())
            .finish()
    }
}

/// What the host functions of one invocation work with.
#[derive(Debug)]
pub struct HostCtx {
    pub(crate) invocation: Invocation,
    pub(crate) gate: Gate,
    pub(crate) caller: Caller,
    pub(crate) log: InvocationLog,
}

impl HostCtx {
    /// Serves `invocation`: storage through `gate` on behalf of `caller`, log lines to `log`.
    pub const fn new(
        invocation: Invocation,
        gate: Gate,
        caller: Caller,
        log: InvocationLog,
    ) -> Self {
        Self {
            invocation,
            gate,
            caller,
            log,
        }
    }
}

/// Gives access to the [`HostCtx`] inside the data of a store.
pub trait HostView: Send {
    /// The context of the invocation.
    fn host(&mut self) -> &mut HostCtx;
}

/// Links every interface of the world to the [`HostCtx`] of the store.
pub fn add_to_linker<T: HostView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, HostData>(linker, T::host)?;
    records::add_to_linker::<T, HostData>(linker, T::host)?;
    context::add_to_linker::<T, HostData>(linker, T::host)?;
    logging::add_to_linker::<T, HostData>(linker, T::host)
}

struct HostData;

impl HasData for HostData {
    type Data<'a> = &'a mut HostCtx;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_setting_is_in_the_text_for_debugging() {
        let config = BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]);
        let served = Served {
            tenant: TenantId::generate(),
            install: InstallId::generate(),
            extension: "com.example.notes".parse().unwrap(),
            version: "1.0.0".into(),
            config,
        };
        let text = format!("{served:?}");
        assert!(
            text.contains("token") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
