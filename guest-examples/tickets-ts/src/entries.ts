// Time spent on a ticket: an entry for each piece of work, and their sum in the ticket.

import type { Response } from "alga:extension/handler@0.1.0";
import { log } from "alga:extension/logging@0.1.0";

import { json } from "./answer.js";
import { identifier, Members, pageOf } from "./input.js";
import type { Call } from "./routing.js";
import { failedItem, Namespace, storageError } from "./store.js";
import { ticket, ticketKey } from "./tickets.js";

/** A piece of work. */
export interface Entry {
  technician: string;
  minutes: number;
  text: string;
  at: string;
}

const entries = new Namespace<Entry>("tickets");

/** How often it is tried to book, before it is left to the caller. */
const ATTEMPTS = 5;

/** A day, which nobody works longer at a time. */
const MOST_MINUTES = 24 * 60;

/** `GET /tickets/{id}/entries`: a page of the ticket's entries, the latest first. */
export function listEntries(call: Call): Response {
  const id = call.parameter("id");
  ticket(id);
  const page = entries.page(prefixOf(id), { ...pageOf(call.query), reverse: true });
  return json(200, { items: page.items.map(({ value }) => value), nextCursor: page.nextCursor ?? null });
}

/** `POST /tickets/{id}/entries`: books time, whoever else does so at the same time. */
export function postEntry(call: Call): Response {
  const body = Members.of(call.body());
  const entry = {
    technician: identifier(body.text("technician")),
    minutes: body.integer("minutes", 1, MOST_MINUTES),
    text: body.optionalText("text"),
    at: new Date().toISOString(),
  };
  const id = call.parameter("id");
  // Two technicians, or one twice, may book in the same millisecond.
  const minutes = book(id, entry, `${entry.at}-${crypto.randomUUID()}`);
  return json(201, { entry, minutes });
}

/**
 * Adds an entry to a ticket and its minutes to the ticket's sum: both or neither. Gives the sum.
 *
 * There is no lock to take and no transaction to open. Both records are written at once, the ticket
 * guarded by the revision that was read. Where another write came between, nothing happens, and it
 * is tried again with the ticket as it is by then. An entry that `name` is taken for is there
 * already: then nothing is added, and booking twice is booking once.
 */
export function book(id: string, entry: Entry, name: string): number {
  for (let attempt = 1; ; attempt++) {
    const { value, revision } = ticket(id);
    const minutes = value.minutes + entry.minutes;
    try {
      entries.putAll([
        { key: ticketKey(id), value: { ...value, minutes }, guard: { tag: "revision", val: revision } },
        { key: prefixOf(id) + name, value: entry, guard: { tag: "absent" } },
      ]);
      log("info", `booked ${entry.minutes} minutes on ticket ${id}, attempt ${attempt}`);
      return minutes;
    } catch (thrown) {
      if (storageError(thrown)?.tag !== "revision-mismatch") throw thrown;
      if (failedItem(thrown)?.index === 1) return value.minutes;
      if (attempt === ATTEMPTS) throw thrown;
    }
  }
}

function prefixOf(id: string): string {
  return `entry:${identifier(id)}:`;
}
