//! HTTP/2 frames and field blocks, byte by byte (RFC 9113, section 4; RFC 7541, sections 5 and 6).

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// The largest frame that every peer accepts.
pub(super) const LARGEST: usize = 16 * 1024;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the preface, and settings with a window of zero: the peer must not send any byte of a body.
pub(super) fn preface_without_window() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()
}

/// Returns the preface and empty settings.
pub(super) fn preface() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Returns the field block of `GET PATH` with further fields, without Huffman coding or the dynamic table.
pub(super) fn get(authority: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // `:method GET` and `:scheme http` of the static table.
    let mut block = vec![0x82, 0x86];
    indexed_name(1, authority, &mut block);
    indexed_name(4, path, &mut block);
    for (name, value) in fields {
        block.push(0);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// Returns the field block of an interim response.
pub(super) fn interim(status: &str, field: (&str, &str)) -> Vec<u8> {
    let mut block = Vec::new();
    indexed_name(8, status, &mut block);
    block.push(0);
    string(field.0, &mut block);
    string(field.1, &mut block);
    block
}

/// Returns a field block as HEADERS and the necessary CONTINUATION frames.
pub(super) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = block.chunks(LARGEST).peekable();
    let mut kind = HEADERS;
    let mut flags = flags;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= END_HEADERS;
        }
        bytes.extend(frame(kind, flags, stream, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// Returns this number of requests without a body, on streams 1, 3, 5 and so on.
pub(super) fn requests(count: usize, block: &[u8]) -> Vec<u8> {
    streams(count)
        .flat_map(|stream| headers(stream, END_STREAM, block))
        .collect()
}

/// Returns the first stream identifiers of a client.
pub(super) fn streams(count: usize) -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(count)
}

/// Appends a field without indexing whose name is in the static table.
fn indexed_name(index: u8, value: &str, block: &mut Vec<u8>) {
    block.push(index);
    string(value, block);
}

/// Appends a string literal. Its length is an integer with a prefix of seven bits.
fn string(text: &str, block: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128 + 128) as u8);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text.as_bytes());
}
