// Tickets: created once, replaced only by who has seen the newest state, imported all or nothing.

import type { Response } from "alga:extension/handler@0.1.0";
import { log } from "alga:extension/logging@0.1.0";

import { etag, json } from "./answer.js";
import { identifier, Members, pageOf, revisionOf } from "./input.js";
import { Refusal } from "./refusal.js";
import type { Call } from "./routing.js";
import { Namespace, type Stored } from "./store.js";

const STATUSES = ["open", "waiting", "closed"] as const;

export interface Ticket {
  client: string;
  title: string;
  status: (typeof STATUSES)[number];
  /** The sum over the ticket's entries. */
  minutes: number;
}

/** Tickets and, under other keys, their entries: what is written together is in one namespace. */
export const tickets = new Namespace<Ticket>("tickets");

const PREFIX = "ticket:";

export function ticketKey(id: string): string {
  return PREFIX + identifier(id);
}

/** The ticket, which must be there. */
export function ticket(id: string): Stored<Ticket> {
  const found = tickets.find(ticketKey(id));
  if (!found) throw new Refusal(404, "NOT_FOUND", "there is no such ticket");
  return found;
}

/** `GET /tickets`: a page of tickets, in the order of their ids. */
export function listTickets(call: Call): Response {
  const prefix = PREFIX + (call.query.get("prefix") ?? "");
  const page = tickets.page(prefix, pageOf(call.query));
  return json(200, { items: page.items.map(shown), nextCursor: page.nextCursor ?? null });
}

/** `POST /tickets`: creates a ticket, never replaces one. */
export function createTicket(call: Call): Response {
  const body = Members.of(call.body());
  const id = body.text("id");
  const created = tickets.put(ticketKey(id), newTicket(body), { tag: "absent" });
  log("info", `created ticket ${id}`);
  return json(201, shown(created), { ...etag(created.revision), location: `tickets/${id}` });
}

/** `POST /imports`: creates up to 20 tickets, or none if one of them can't be created. */
export function importTickets(call: Call): Response {
  const imported = Members.of(call.body()).objects("tickets");
  const revisions = tickets.putAll(
    imported.map((body) => ({ key: ticketKey(body.text("id")), value: newTicket(body), guard: { tag: "absent" } })),
  );
  log("info", `imported ${revisions.length} tickets`);
  return json(201, { imported: revisions.length });
}

/** `GET /tickets/{id}` */
export function readTicket(call: Call): Response {
  const found = ticket(call.parameter("id"));
  return json(200, shown(found), etag(found.revision));
}

/**
 * `PUT /tickets/{id}`: changes the ticket that the caller has seen, which `if-match` names.
 *
 * Where somebody else was faster, the answer is 409 with the ticket as it is now: unlike adding
 * time, which of two titles is right is for a person to decide.
 */
export function writeTicket(call: Call): Response {
  const id = call.parameter("id");
  const ifMatch = call.header("if-match");
  if (ifMatch === undefined) throw new Refusal(428, "PRECONDITION_REQUIRED", "say with if-match which revision you have seen");
  const seen = revisionOf(ifMatch);
  const change = newTicket(Members.of(call.body()));
  // The sum is nobody's to write but `book`'s. Should it change from here on, the guard notices.
  const { minutes } = ticket(id).value;
  const written = tickets.put(ticketKey(id), { ...change, minutes }, { tag: "revision", val: seen });
  log("info", `wrote ticket ${id} at revision ${written.revision}`);
  return json(200, shown(written), etag(written.revision));
}

function newTicket(body: Members): Ticket {
  return {
    client: body.text("client"),
    title: body.text("title"),
    status: body.oneOf("status", STATUSES, "open"),
    minutes: 0,
  };
}

function shown({ key, value, revision }: Stored<Ticket>): unknown {
  return { id: key.slice(PREFIX.length), revision, ticket: value };
}
