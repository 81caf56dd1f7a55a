//! The words of a script, and results as text.

/// `%XX` is a byte, `""` nothing, and `*N` N times `x`.
pub fn decode(word: &str) -> Vec<u8> {
    if word == "\"\"" {
        return Vec::new();
    }
    if let Some(count) = word.strip_prefix('*').and_then(|count| count.parse().ok()) {
        return vec![b'x'; count];
    }
    let bytes = word.as_bytes();
    let mut decoded = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            decoded.push(u8::from_str_radix(&word[index + 1..index + 3], 16).expect("hex"));
            index += 3;
        } else {
            decoded.push(bytes[index]);
            index += 1;
        }
    }
    decoded
}

/// Bytes beyond printable ASCII as `%xx`, and what is long by its length.
pub fn escape(bytes: &[u8]) -> String {
    if bytes.len() > 2000 {
        return format!("({} bytes)", bytes.len());
    }
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'%' | 0..=31 | 127..=255 => text.push_str(&format!("%{byte:02x}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}
