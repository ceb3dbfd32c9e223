// Records with JSON values, and the errors of storage as this language throws them.

import { bulkPut, delete as deleteRecord, get, list, put } from "alga:storage/records@0.1.0";
import type {
  BulkError,
  Entry,
  Error as StorageError,
  PutGuard,
} from "alga:storage/types@0.1.0";

/** A record, its value parsed. */
export interface Stored<Value> {
  key: string;
  value: Value;
  revision: bigint;
  expiresAt?: bigint;
}

/** One page of records. */
export interface Page<Value> {
  items: Stored<Value>[];
  nextCursor?: string;
}

/** One record of a write of several. */
export interface Item {
  key: string;
  value: unknown;
  guard: PutGuard;
}

/** A namespace whose values have the shape `Value`, for nobody else writes to it. */
export class Namespace<Value> {
  constructor(private readonly name: string) {}

  /** The record; undefined where there is none. */
  find(key: string): Stored<Value> | undefined {
    try {
      return stored<Value>(get(this.name, key, undefined));
    } catch (thrown) {
      if (storageError(thrown)?.tag === "not-found") return undefined;
      throw thrown;
    }
  }

  /** Writes a record where the guard allows it; a conflict carries the record that is there. */
  put(key: string, value: Value, guard: PutGuard, ttlSeconds?: number): Stored<Value> {
    const options = { guard, ttlSeconds, returnPrevious: false, returnCurrent: true };
    const { revision, expiresAt } = put(this.name, key, JSON.stringify(value), options);
    return { key, value, revision, expiresAt };
  }

  /** Writes all of the records or none of them, whose values may be of several shapes. */
  putAll(items: Item[]): bigint[] {
    const written = bulkPut(
      this.name,
      items.map(({ key, value, guard }) => ({ key, value: JSON.stringify(value), guard })),
    );
    return written.map(({ revision }) => revision);
  }

  /** Removes the record that was read; leaves what somebody else wrote or removed since. */
  removeSeen({ key, revision }: Stored<Value>): void {
    try {
      deleteRecord(this.name, key, { tag: "revision", val: revision });
    } catch (thrown) {
      if (storageError(thrown)?.tag !== "revision-mismatch") throw thrown;
    }
  }

  /** A page of the records whose keys start with `keyPrefix`, in key order. */
  page(keyPrefix: string, options: { limit?: number; cursor?: string; reverse?: boolean }): Page<Value> {
    const { items, nextCursor } = list(this.name, {
      ...options,
      keyPrefix,
      reverse: options.reverse ?? false,
      // One call for a page with the values in it, rather than one more for each record.
      includeValues: true,
      includeMetadata: false,
    });
    return { items: items.map((item) => stored<Value>({ ...item, value: item.value ?? "null" })), nextCursor };
  }
}

/** The record that a conflict found, its value parsed. */
export function stored<Value>(entry: Pick<Entry, "key" | "value" | "revision" | "expiresAt">): Stored<Value> {
  return { ...entry, value: JSON.parse(entry.value) as Value };
}

/**
 * The storage error in what was thrown; undefined where something else was.
 *
 * A function of WIT that gives a `result` throws its error, and what WIT calls the error is in
 * `payload`. `bulk-put` has an error of its own, which says besides which item failed.
 */
export function storageError(thrown: unknown): StorageError | undefined {
  const payload = payloadOf(thrown);
  if (payload === undefined) return undefined;
  return "tag" in payload ? payload : payload.error;
}

/** The index of the item for which a write of several failed; undefined where it wasn't for one. */
export function failedItem(thrown: unknown): BulkError["item"] {
  const payload = payloadOf(thrown);
  return payload === undefined || "tag" in payload ? undefined : payload.item;
}

function payloadOf(thrown: unknown): StorageError | BulkError | undefined {
  if (typeof thrown !== "object" || thrown === null || !("payload" in thrown)) return undefined;
  return thrown.payload as StorageError | BulkError;
}
