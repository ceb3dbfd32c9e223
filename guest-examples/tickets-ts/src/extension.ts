// An extension that keeps tickets and the time that technicians spend on them.
//
// A request comes in through `handle` below. `routing.ts` finds what it asks for; `tickets.ts`,
// `timers.ts` and `entries.ts` do it with the help of `store.ts`; `answer.ts` turns what came out,
// also every failure, into a response.

import { failed } from "./answer.js";
import { routes } from "./routes.js";
import { respond } from "./routing.js";

/** What the world in `wit/` wants exported. The type makes sure that it is. */
export const handler: typeof import("alga:extension/handler@0.1.0") = {
  /** Runs in a fresh instance for every request: whatever has to last goes into storage. */
  handle(request) {
    try {
      return respond(routes, request);
    } catch (thrown) {
      // Nothing may leave `handle`: the host would answer 502, and nobody would know why.
      return failed(thrown);
    }
  },
};
