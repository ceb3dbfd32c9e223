// From a method and a path to what answers them.

import type { Request, Response } from "alga:extension/handler@0.1.0";

import { BadRequest, Refusal } from "./refusal.js";

/** A request on its way to what answers it. */
export interface Call {
  /** A part of the path, decoded. */
  parameter(name: string): string;
  readonly query: URLSearchParams;
  /** The first header of this name, which is lowercase. */
  header(name: string): string | undefined;
  /** The body, which must be JSON. */
  body(): unknown;
}

/** Paths, in which `{name}` stands for any one segment, and what answers each method. */
export type Routes = Record<string, Record<string, (call: Call) => Response>>;

/** Has the first route that matches answer. */
export function respond(routes: Routes, request: Request): Response {
  for (const [pattern, methods] of Object.entries(routes)) {
    const parameters = match(pattern, request.path);
    if (!parameters) continue;
    const answer = Object.hasOwn(methods, request.method) ? methods[request.method] : undefined;
    if (!answer) {
      const allow = Object.keys(methods).join(", ");
      throw new Refusal(405, "METHOD_NOT_ALLOWED", "this path has other methods", {}, { allow });
    }
    return answer(callOf(request, parameters));
  }
  throw new Refusal(404, "NOT_FOUND", "there is nothing at this path");
}

function match(pattern: string, path: string): Map<string, string> | undefined {
  // Split before decoding: `%2F` in an id is a part of it, not a separator.
  const [expected, given] = [pattern.split("/"), path.split("/")];
  if (expected.length !== given.length) return undefined;
  const parameters = new Map<string, string>();
  for (const [index, segment] of expected.entries()) {
    const text = given[index] ?? "";
    if (!segment.startsWith("{")) {
      if (segment !== text) return undefined;
    } else {
      const decoded = decode(text);
      if (!decoded) return undefined;
      parameters.set(segment.slice(1, -1), decoded);
    }
  }
  return parameters;
}

/** Decodes `%xx`; undefined where an escape is broken. */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function callOf(request: Request, parameters: Map<string, string>): Call {
  return {
    parameter: (name) => parameters.get(name) ?? "",
    query: new URLSearchParams(request.query ?? ""),
    header: (name) => request.headers.find((header) => header.name === name)?.value,
    body: () => parse(request.body),
  };
}

function parse(body: Uint8Array | undefined): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body ?? new Uint8Array()));
  } catch {
    throw new BadRequest("the body must be JSON");
  }
}
