// A MemCell backend in JavaScript: `wit/kv.wit` answered from memory. Empty at every start.
//
// Setting: `max_bytes` (a size such as `64MiB`; default: no limit but the sandbox's). Puts beyond it are `quota-exceeded`.

import { Full, Records } from './records.js';

const LIMITS = { maxKeyBytes: 1024, maxValueBytes: 16 * 1024 * 1024, maxBatch: 256, persistent: false, shared: false };

// How many slots one step of a scan passes over, per entry wanted, before it answers with fewer.
const PASSED_PER_WANTED = 8;

const UNITS = { '': 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

// The records while the backend is open. An instance is one backend, and has one call at a time.
let opened;

export const lifecycle = {
  open(_shard, settings) {
    let maxBytes;
    for (const [name, value] of settings) {
      if (name !== 'max_bytes') throw invalid(`unknown setting "${name}"; known: max_bytes`);
      maxBytes = parseBytes(name, value);
    }
    opened = new Records(maxBytes);
    return LIMITS;
  },

  flush() {
    records();
  },

  health() {
    records();
  },

  close() {
    records();
    opened = undefined;
  },
};

export const store = {
  getMany(keys) {
    const held = records();
    const now = unixMillis();
    checkBatch(keys);
    return keys.map((key) => {
      checkKey(key);
      const record = held.live(key, now);
      if (record === undefined) return undefined;
      return { key, stamp: record.stamp, expiresAt: record.expiresAt, value: record.value };
    });
  },

  putMany(entries, condition) {
    for (const { value } of entries) {
      if (value.length > LIMITS.maxValueBytes) {
        throw tooLarge(`a value of ${value.length} bytes; at most ${LIMITS.maxValueBytes} are taken`);
      }
    }
    return writeMany(entries, condition);
  },

  deleteMany(marks, condition) {
    return writeMany(marks, condition);
  },

  scan(cursor, limit) {
    const held = records();
    if (limit === 0) throw invalid('the limit of a scan is at least 1');
    const start = cursor === undefined ? 0 : parseCursor(cursor, held.slots);
    let end = Math.min(held.slots, start + limit * PASSED_PER_WANTED);
    const marks = [];
    for (const { key, stamp, expiresAt, slot } of held.entries(start, end, unixMillis())) {
      marks.push({ key, stamp, expiresAt });
      if (marks.length === limit) {
        end = slot + 1;
        break;
      }
    }
    return { marks, next: end < held.slots ? `slot:${end}` : undefined };
  },

  stats() {
    const held = records();
    let entries = 0;
    let bytes = 0;
    for (const { key, value } of held.entries(0, held.slots, unixMillis())) {
      entries += 1;
      bytes += utf8Length(key) + value.length;
    }
    return { entries: BigInt(entries), bytes: BigInt(bytes) };
  },
};

/** Entries have a `value`, marks have none and become tombstones. */
function writeMany(items, condition) {
  const held = records();
  const now = unixMillis();
  checkBatch(items);
  for (const { key } of items) checkKey(key);
  return items.map(({ key, stamp, expiresAt, value }) => {
    try {
      return held.write({ key, stamp, expiresAt, value, slot: -1 }, condition, now) ? 'applied' : 'stale';
    } catch (error) {
      throw error instanceof Full ? { tag: 'quota-exceeded', val: error.message } : error;
    }
  });
}

function records() {
  if (opened === undefined) throw { tag: 'other', val: 'the backend is not open' };
  return opened;
}

function checkBatch(items) {
  if (items.length > LIMITS.maxBatch) {
    throw tooLarge(`a call of ${items.length} items; at most ${LIMITS.maxBatch} are taken`);
  }
}

function checkKey(key) {
  if (key === '') throw invalid('an empty key');
  // No code unit takes more than three bytes, so most keys needn't be measured to know.
  if (key.length * 3 > LIMITS.maxKeyBytes && utf8Length(key) > LIMITS.maxKeyBytes) {
    throw tooLarge(`a key of ${utf8Length(key)} bytes; at most ${LIMITS.maxKeyBytes} are taken`);
  }
}

function utf8Length(text) {
  let bytes = 0;
  for (const character of text) {
    const code = character.codePointAt(0);
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return bytes;
}

function parseBytes(name, text) {
  const found = /^([0-9]{1,12}) ?([A-Za-z]*)$/.exec(text);
  if (found === null || !Object.hasOwn(UNITS, found[2])) {
    throw invalid(`the setting "${name}" is "${text.slice(0, 64)}", which is not a size such as 64MiB`);
  }
  return Number(found[1]) * UNITS[found[2]];
}

function parseCursor(cursor, slots) {
  const found = /^slot:([0-9]{1,10})$/.exec(cursor);
  if (found === null || Number(found[1]) >= slots) throw invalid("the cursor is not one of this backend's");
  return Number(found[1]);
}

function unixMillis() {
  return BigInt(Date.now());
}

function invalid(text) {
  return { tag: 'invalid-argument', val: text };
}

function tooLarge(text) {
  return { tag: 'too-large', val: text };
}
