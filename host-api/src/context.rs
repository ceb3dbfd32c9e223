//! `alga:extension/context`: who is being served, and with which settings.

use crate::bindings::alga::extension::context::{Host, Invocation};
use crate::ctx::HostCtx;

impl Host for HostCtx {
    fn get_invocation(&mut self) -> Invocation {
        let invocation = &self.invocation;
        Invocation {
            request_id: invocation.request_id.to_string(),
            tenant_id: invocation.tenant.to_string(),
            install_id: invocation.install.to_string(),
            extension: invocation.extension.to_string(),
            version: invocation.version.to_string(),
        }
    }

    fn get_config(&mut self, name: String) -> Option<String> {
        self.invocation.config.get(&name).cloned()
    }
}
