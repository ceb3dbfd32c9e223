// Running timers: one for each technician, forgotten by itself when nobody stops it.

import type { Response } from "alga:extension/handler@0.1.0";
import { getConfig } from "alga:extension/context@0.1.0";

import { json } from "./answer.js";
import { book } from "./entries.js";
import { identifier, Members } from "./input.js";
import { Refusal } from "./refusal.js";
import type { Call } from "./routing.js";
import { Namespace, type Stored } from "./store.js";
import { ticket } from "./tickets.js";

interface Timer {
  ticket: string;
  startedAt: string;
}

const timers = new Namespace<Timer>("timers");

/** How long a timer runs that nobody stops, unless the setting `timer-hours` says otherwise. */
const HOURS = 12;

/** `PUT /timers/{technician}`: starts the technician's timer; 409 where one is running. */
export function startTimer(call: Call): Response {
  const technician = identifier(call.parameter("technician"));
  const id = Members.of(call.body()).text("ticket");
  ticket(id);
  const timer = { ticket: id, startedAt: new Date().toISOString() };
  // What is expired counts as absent, so a forgotten timer is in nobody's way.
  return json(201, shown(timers.put(technician, timer, { tag: "absent" }, ttlSeconds())));
}

/** `DELETE /timers/{technician}`: stops the timer and books the time it ran, a minute at least. */
export function stopTimer(call: Call): Response {
  const technician = identifier(call.parameter("technician"));
  const found = timers.find(technician);
  if (!found) throw new Refusal(404, "NOT_FOUND", "this technician's timer isn't running");
  const { ticket: id, startedAt } = found.value;
  const elapsed = Date.now() - Date.parse(startedAt);
  const entry = {
    technician,
    minutes: Math.max(1, Math.round(elapsed / 60_000)),
    text: "timer",
    at: new Date().toISOString(),
  };
  // Booked under a name that comes from the timer, then removed: should this end in between, the
  // next attempt finds the entry, and books nothing twice.
  const minutes = book(id, entry, `${startedAt}-${technician}`);
  timers.removeSeen(found);
  return json(200, { entry, minutes });
}

function ttlSeconds(): number {
  const hours = Number(getConfig("timer-hours") ?? HOURS);
  if (!(hours >= 1 && hours <= 24)) throw new Refusal(500, "MISCONFIGURED", "the setting timer-hours must be from 1 to 24");
  return Math.round(hours * 3600);
}

function shown({ key, value, expiresAt }: Stored<Timer>): unknown {
  return { technician: key, ...value, forgottenAt: expiresAt && new Date(Number(expiresAt)).toISOString() };
}
