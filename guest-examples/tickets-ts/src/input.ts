// What comes from outside, parsed once into what the rest relies on.

import { BadRequest } from "./refusal.js";

/** A JSON object whose members are read one by one. */
export class Members {
  private constructor(private readonly members: Record<string, unknown>) {}

  static of(value: unknown): Members {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new BadRequest("the body must be a JSON object");
    }
    return new Members(value as Record<string, unknown>);
  }

  /** A text that is there and not empty. */
  text(name: string): string {
    const value = this.members[name];
    if (typeof value !== "string" || value === "") throw new BadRequest(`${name} must be a text`);
    return value;
  }

  /** A text that may be left out. */
  optionalText(name: string): string {
    return this.members[name] === undefined ? "" : this.text(name);
  }

  /** One of the words. */
  oneOf<Word extends string>(name: string, words: readonly Word[], otherwise: Word): Word {
    const value = this.members[name] ?? otherwise;
    const word = words.find((word) => word === value);
    if (word === undefined) throw new BadRequest(`${name} must be one of ${words.join(", ")}`);
    return word;
  }

  /** A whole number in a range. */
  integer(name: string, least: number, most: number): number {
    const value = this.members[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      throw new BadRequest(`${name} must be a whole number from ${least} to ${most}`);
    }
    return value;
  }

  /** A list of objects. */
  objects(name: string): Members[] {
    const value = this.members[name];
    if (!Array.isArray(value)) throw new BadRequest(`${name} must be a list`);
    return value.map((item) => Members.of(item));
  }
}

/** An id or a name that keys are made of: `:` stands between their parts, so it can't be in one. */
export function identifier(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text)) {
    throw new BadRequest("an id is 1 to 64 letters, digits, dots, underscores or hyphens");
  }
  return text;
}

/** The page that a query asks for. What is wrong with a cursor or a limit, storage knows best. */
export function pageOf(query: URLSearchParams): { limit?: number; cursor?: string } {
  const limit = query.get("limit");
  const cursor = query.get("cursor");
  if (limit !== null && !/^[0-9]{1,4}$/.test(limit)) throw new BadRequest("limit must be a number");
  return { limit: limit === null ? undefined : Number(limit), cursor: cursor ?? undefined };
}

/** The revision that an `if-match` header names. */
export function revisionOf(ifMatch: string): bigint {
  const revision = /^"([0-9]{1,19})"$/.exec(ifMatch)?.[1];
  if (revision === undefined) throw new BadRequest('if-match must be one ETag as it was given, such as "3"');
  // Revisions are 64-bit numbers, which is what `bigint` is for.
  return BigInt(revision);
}
