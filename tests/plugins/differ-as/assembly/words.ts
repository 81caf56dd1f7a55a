// The words of a script, and results as text.

/** `%XX` is a byte, `""` nothing, and `*N` N times `x`. */
export function decode(word: string): ArrayBuffer {
  if (word == '""') return new ArrayBuffer(0);
  if (word.startsWith("*")) return String.UTF8.encode("x".repeat(<i32>parseInt(word.substring(1))));
  const bytes = new Array<u8>();
  for (let i = 0; i < word.length; i++) {
    if (word.charCodeAt(i) == 0x25) {
      bytes.push(<u8>parseInt(word.substr(i + 1, 2), 16));
      i += 2;
    } else {
      bytes.push(<u8>word.charCodeAt(i));
    }
  }
  const decoded = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) decoded[i] = bytes[i];
  return decoded.buffer;
}

/** Bytes beyond printable ASCII as `%xx`, and what is long as its length. */
export function escape(data: ArrayBuffer): string {
  if (data.byteLength > 2000) return `(${data.byteLength} bytes)`;
  const bytes = Uint8Array.wrap(data);
  let text = "";
  for (let i = 0; i < bytes.length; i++) {
    const byte: u32 = bytes[i];
    if (byte == 0x25 || byte < 32 || byte > 126) {
      text += "%" + (byte < 16 ? "0" : "") + byte.toString(16);
    } else {
      text += String.fromCharCode(byte);
    }
  }
  return text;
}
