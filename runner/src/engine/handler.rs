//! What a component must export.

use alga_host_api::{Request, Response};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::error::Context as _;

const INTERFACE: &str = "alga:extension/handler@0.1.0";
const FUNCTION: &str = "handle";

/// Refuses a handler that takes or gives something else than the interface says. The bindings find
/// it by its name and look at its type only when an instance is made, which is too late to tell its
/// author. Where there is none, they have said so before.
pub(super) fn ensure_type(component: &Component) -> wasmtime::Result<()> {
    let function = component
        .get_export(None, INTERFACE)
        .and_then(|(_, handler)| component.get_export(Some(&handler), FUNCTION));
    let Some((ComponentItem::ComponentFunc(function), _)) = function else {
        return Ok(());
    };
    let component = component.component_type();
    function
        .typecheck::<(&Request,), (Response,)>(&component.instance_type())
        .with_context(|| format!("`{FUNCTION}` of {INTERFACE} is another function"))
}
