//! `alga:extension/context`: who is being served, and with which settings.

use crate::bindings::alga::extension::context::{Host, Invocation};
use crate::ctx::HostCtx;

impl Host for HostCtx {
    fn get_invocation(&mut self) -> Invocation {
        let served = &self.invocation.served;
        Invocation {
            request_id: self.invocation.request_id.to_string(),
            tenant_id: served.tenant.to_string(),
            install_id: served.install.to_string(),
            extension: served.extension.to_string(),
            version: served.version.to_string(),
        }
    }

    fn get_config(&mut self, name: String) -> Option<String> {
        self.invocation.served.config.get(&name).cloned()
    }
}
