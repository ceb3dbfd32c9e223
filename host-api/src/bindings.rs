//! What `bindgen!` makes of the WIT world. Nothing in this module is written by hand.

#![expect(missing_docs, reason = "the WIT files are the documentation")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "alga:extension/extension",
    imports: {
        "alga:storage/records.get": async,
        "alga:storage/records.get-many": async,
        "alga:storage/records.put": async,
        "alga:storage/records.bulk-put": async,
        "alga:storage/records.delete": async,
        "alga:storage/records.list": async,
        "alga:storage/records.usage": async,
    },
    exports: { default: async },
});
