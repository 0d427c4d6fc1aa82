// The records of the example backend, and the contract's rules about them. Knows nothing of WebAssembly.

// What a record takes besides its key and value, about: the objects around them, and their places in array and map.
export const OVERHEAD_BYTES = 300;

// How many slots each write looks at for records that have expired. More than one, so that they can't pile up.
const SWEPT_PER_WRITE = 2;

/** There is no room for an entry. */
export class Full extends Error {}

/**
 * A record is `{ key, stamp, expiresAt, value, slot }`: an entry, or the tombstone of one (`value` is `undefined`). Stamps and
 * expiries are BigInts.
 */
export function hasExpired(record, now) {
  return record.expiresAt !== undefined && record.expiresAt <= now;
}

/** Records by key, in slots that never move: what a scan can walk along while they come and go. */
export class Records {
  #maxBytes;
  #heldBytes = 0;
  #byKey = new Map();
  #slots = [];
  #empty = [];
  #hand = 0;

  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  /** The entry of a key, if it has one that has not expired. */
  live(key, now) {
    const record = this.#byKey.get(key);
    return record !== undefined && record.value !== undefined && !hasExpired(record, now) ? record : undefined;
  }

  /**
   * Stores a record if `condition` allows it, and says whether it did.
   *
   * @throws {Full} if it is an entry for which there is no room
   */
  write(record, condition, now) {
    this.#sweep(SWEPT_PER_WRITE, now);
    let stored = this.#byKey.get(record.key);
    // An expired record counts as none: whether it still lies there is chance.
    if (stored !== undefined && !hasExpired(stored, now)) {
      if (condition === 'always') {
        if (stored.stamp > record.stamp) record.stamp = stored.stamp;
      } else if (record.stamp < stored.stamp || (condition === 'newer' && record.stamp === stored.stamp)) {
        return false;
      }
    }
    if (!this.#hasRoom(record, stored)) {
      this.#sweep(this.#slots.length, now);
      stored = this.#byKey.get(record.key);
      if (!this.#hasRoom(record, stored)) {
        throw new Full(`${this.#heldBytes} of max_bytes = ${this.#maxBytes} bytes are in use`);
      }
    }
    this.#store(record, stored);
    return true;
  }

  /** How many slots there are, empty ones included. Never becomes less, so that a cursor stays good. */
  get slots() {
    return this.#slots.length;
  }

  /** The live entries in the slots from `start` to before `end`. */
  *entries(start, end, now) {
    for (let slot = start; slot < end; slot++) {
      const record = this.#slots[slot];
      if (record !== undefined && record.value !== undefined && !hasExpired(record, now)) yield record;
    }
  }

  #hasRoom(record, stored) {
    if (this.#maxBytes === undefined || record.value === undefined) return true;
    const before = stored === undefined ? 0 : size(stored);
    const after = size(record);
    // What makes things no worse passes.
    return after <= before || this.#heldBytes - before + after <= this.#maxBytes;
  }

  #store(record, stored) {
    if (stored !== undefined) {
      this.#heldBytes -= size(stored);
      record.slot = stored.slot;
    } else {
      record.slot = this.#empty.pop() ?? this.#slots.length;
    }
    this.#slots[record.slot] = record;
    this.#byKey.set(record.key, record);
    this.#heldBytes += size(record);
  }

  /** Looks at the next `count` slots, round and round, and frees those whose records have expired. */
  #sweep(count, now) {
    for (let left = Math.min(count, this.#slots.length); left > 0; left--) {
      this.#hand = (this.#hand + 1) % this.#slots.length;
      const record = this.#slots[this.#hand];
      if (record !== undefined && hasExpired(record, now)) {
        this.#heldBytes -= size(record);
        this.#byKey.delete(record.key);
        this.#slots[this.#hand] = undefined;
        this.#empty.push(this.#hand);
      }
    }
  }
}

function size(record) {
  return OVERHEAD_BYTES + record.key.length + (record.value?.length ?? 0);
}
