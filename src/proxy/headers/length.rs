//! `Content-Length`: one decimal number (RFC 9110, 8.6).

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};

use crate::header_lookup;

/// The fields do not contain one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Content-Length is not one decimal number")]
pub struct InvalidLength;

/// Rewrites `Content-Length` as one plain decimal number if it repeats that number or has leading zeros.
///
/// # Errors
///
/// It holds different numbers, or anything that is not a number below 2^64.
pub fn normalize_length(headers: &mut HeaderMap) -> Result<(), InvalidLength> {
    if !header_lookup::has(headers, &CONTENT_LENGTH) {
        return Ok(());
    }
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(only), None) = (lines.next(), lines.next())
        && is_plain(only.as_bytes())
    {
        return Ok(());
    }
    let mut length = None;
    for item in headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
    {
        let number = parse(item.trim_ascii())?;
        if *length.get_or_insert(number) != number {
            return Err(InvalidLength);
        }
    }
    let length = length.ok_or(InvalidLength)?;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}

/// Returns whether the value is normalized already. Its number of digits shows that it is below 2^64.
fn is_plain(value: &[u8]) -> bool {
    match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Parses 1*DIGIT. `u64` alone would also accept a sign.
fn parse(digits: &[u8]) -> Result<u64, InvalidLength> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidLength);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| InvalidLength)?;
    digits.parse().map_err(|_| InvalidLength)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalized(lines: &[&str]) -> Result<Vec<String>, InvalidLength> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_LENGTH, line.parse().unwrap());
        }
        normalize_length(&mut headers)?;
        let values = headers.get_all(CONTENT_LENGTH).iter();
        Ok(values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn a_repeated_length_is_forwarded_as_one_number() {
        for (lines, length) in [
            (&["0"] as &[_], "0"),
            (&["2"], "2"),
            (&["2, 2"], "2"),
            (&["4,4"], "4"),
            (&["2", "2"], "2"),
            (&["2", "2,2", "02"], "2"),
            (&["04"], "4"),
            (&["00"], "0"),
            (&[" 4"], "4"),
            (&["4\t,\t4 "], "4"),
            (&["00000000000000000000000000000005"], "5"),
            (&["9999999999999999999"], "9999999999999999999"),
            (&["18446744073709551615"], "18446744073709551615"),
        ] {
            assert_eq!(normalized(lines), Ok(vec![length.to_owned()]), "{lines:?}");
        }
        assert_eq!(normalized(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_length_that_is_not_one_number_is_rejected() {
        for lines in [
            &[""] as &[_],
            &[" "],
            &[","],
            &["2,"],
            &[",2"],
            &["2, 3"],
            &["2", "3"],
            &["2", ""],
            &["+4"],
            &["-4"],
            &["4 4"],
            &["0x4"],
            &["4.0"],
            &["4;4"],
            &["18446744073709551616"],
            &["99999999999999999999999999"],
        ] {
            assert_eq!(normalized(lines), Err(InvalidLength), "{lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_bytes(b"\xb2").unwrap());
        assert_eq!(normalize_length(&mut headers), Err(InvalidLength));
    }

    proptest! {
        #[test]
        fn a_forwarded_length_is_canonical(
            lines in prop::collection::vec("[0-9,+ ]{0,21}", 1..3),
        ) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            if let Ok(values) = normalized(&lines) {
                prop_assert_eq!(values.len(), 1);
                prop_assert_eq!(values[0].parse::<u64>().unwrap().to_string(), values[0].clone());
                prop_assert_eq!(normalized(&[&values[0]]), Ok(values));
            }
        }
    }
}
