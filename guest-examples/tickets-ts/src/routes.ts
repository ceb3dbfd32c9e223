// Every endpoint there is, as `bundle/manifest.json` lists them.

import { getConfig, getInvocation } from "alga:extension/context@0.1.0";

import { json } from "./answer.js";
import { listEntries, postEntry } from "./entries.js";
import type { Routes } from "./routing.js";
import { createTicket, importTickets, listTickets, readTicket, writeTicket } from "./tickets.js";
import { startTimer, stopTimer } from "./timers.js";

export const routes: Routes = {
  "/": { GET: about },
  "/imports": { POST: importTickets },
  "/tickets": { GET: listTickets, POST: createTicket },
  "/tickets/{id}": { GET: readTicket, PUT: writeTicket },
  "/tickets/{id}/entries": { GET: listEntries, POST: postEntry },
  "/timers/{technician}": { PUT: startTimer, DELETE: stopTimer },
};

/** `GET /`: whom this is. */
function about() {
  const { extension, version, tenantId } = getInvocation();
  // An `option` of WIT that is none is `undefined` here.
  const company = getConfig("company") ?? "your company";
  return json(200, { company, extension, version, tenant: tenantId, now: new Date().toISOString() });
}
