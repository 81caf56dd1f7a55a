// A validator of JSON texts (RFC 8259) that reads the request body once, from its first byte to its
// last, and holds one slice of it at a time: its memory does not grow with the body.
//
// It checks the grammar. Bytes above 0x7f are taken as they are within strings, and stand nowhere else.

import { BufferTypeValues, get_buffer_bytes } from "@gcoredev/proxy-wasm-sdk-as/assembly";

/** How deep arrays and objects may be nested. */
const MAX_DEPTH: i32 = 128;
const SLICE: u32 = 64 * 1024;

const END: i32 = -1;
const SPACE: i32 = 0x20;
const QUOTE: i32 = 0x22;
const BACKSLASH: i32 = 0x5c;

// The reader's state is global, since only one body is read at a time: no call allocates.
let slice: ArrayBuffer = new ArrayBuffer(0);
let next: usize = 0;
let sliceEnd: usize = 0;
let bodyRead: u32 = 0;
let bodySize: u32 = 0;
/** The byte to look at, or END. */
let byte: i32 = END;

/** Whether the request body, of `size` bytes, is one JSON text. */
export function isJson(size: u32): bool {
  bodySize = size;
  bodyRead = 0;
  next = sliceEnd = 0;
  advance();
  const valid = value(MAX_DEPTH) && byte == END;
  slice = new ArrayBuffer(0);
  return valid;
}

// @ts-ignore: decorator
@inline
function advance(): void {
  byte = next < sliceEnd || refill() ? <i32>load<u8>(next++) : END;
}

function refill(): bool {
  if (bodyRead == bodySize) return false;
  slice = get_buffer_bytes(BufferTypeValues.HttpRequestBody, bodyRead, min(SLICE, bodySize - bodyRead));
  next = changetype<usize>(slice);
  sliceEnd = next + slice.byteLength;
  bodyRead += slice.byteLength;
  return slice.byteLength > 0;
}

/** A value and the space around it. */
function value(depth: i32): bool {
  skipSpace();
  const valid = bareValue(depth);
  skipSpace();
  return valid;
}

function bareValue(depth: i32): bool {
  switch (byte) {
    case 0x7b: // {
      return depth > 0 && object(depth - 1);
    case 0x5b: // [
      return depth > 0 && array(depth - 1);
    case QUOTE:
      return text();
    case 0x74: // t
      return word("true");
    case 0x66: // f
      return word("false");
    case 0x6e: // n
      return word("null");
    default:
      return number();
  }
}

function object(depth: i32): bool {
  advance();
  skipSpace();
  if (accept(0x7d)) return true; // }
  do {
    skipSpace();
    if (byte != QUOTE || !text()) return false;
    skipSpace();
    if (!accept(0x3a) || !value(depth)) return false; // :
  } while (accept(0x2c)); // ,
  return accept(0x7d); // }
}

function array(depth: i32): bool {
  advance();
  skipSpace();
  if (accept(0x5d)) return true; // ]
  do {
    if (!value(depth)) return false;
  } while (accept(0x2c)); // ,
  return accept(0x5d); // ]
}

function text(): bool {
  advance();
  while (byte != QUOTE) {
    if (byte < SPACE) return false; // a control character, or END
    if (byte == BACKSLASH) {
      advance();
      if (!escape()) return false;
    } else {
      advance();
    }
  }
  advance();
  return true;
}

function escape(): bool {
  switch (byte) {
    case QUOTE:
    case BACKSLASH:
    case 0x2f: // /
    case 0x62: // b
    case 0x66: // f
    case 0x6e: // n
    case 0x72: // r
    case 0x74: // t
      advance();
      return true;
    case 0x75: // u
      advance();
      return hexDigit() && hexDigit() && hexDigit() && hexDigit();
    default:
      return false;
  }
}

function hexDigit(): bool {
  const letter = byte | 0x20;
  if (!isDigit() && (letter < 0x61 || letter > 0x66)) return false; // a to f
  advance();
  return true;
}

function number(): bool {
  accept(0x2d); // -
  if (!accept(0x30) && !digits()) return false; // no digit follows a leading 0
  if (accept(0x2e) && !digits()) return false; // .
  if ((byte | 0x20) == 0x65) { // e
    advance();
    if (!accept(0x2b)) accept(0x2d); // + -
    return digits();
  }
  return true;
}

function digits(): bool {
  if (!isDigit()) return false;
  while (isDigit()) advance();
  return true;
}

function word(letters: string): bool {
  for (let i = 0; i < letters.length; i++) {
    if (!accept(letters.charCodeAt(i))) return false;
  }
  return true;
}

function skipSpace(): void {
  while (byte == SPACE || byte == 0x0a || byte == 0x0d || byte == 0x09) advance();
}

function accept(wanted: i32): bool {
  if (byte != wanted) return false;
  advance();
  return true;
}

// @ts-ignore: decorator
@inline
function isDigit(): bool {
  return byte >= 0x30 && byte <= 0x39;
}
