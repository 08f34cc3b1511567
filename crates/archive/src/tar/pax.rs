//! PAX records: `"<length> <keyword>=<value>\n"`, the length counting itself.

use crate::error::ArchiveError;

pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends one record.
pub(crate) fn put(out: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let body = keyword.len() + value.len() + 3; // space, '=' and newline
    let mut length = body + decimal_digits(body);
    if decimal_digits(length) > decimal_digits(body) {
        length = body + decimal_digits(length);
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(keyword);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(mut value: usize) -> usize {
    let mut digits = 1;
    while value >= 10 {
        value /= 10;
        digits += 1;
    }
    digits
}

/// Splits a body into (keyword, value) pairs.
pub(crate) fn records(body: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), ArchiveError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = split_record(rest);
        match record {
            Some((keyword, value, after)) => {
                rest = after;
                Some(Ok((keyword, value)))
            }
            None => {
                rest = &[];
                Some(Err(ArchiveError::corrupted("tar: malformed PAX record")))
            }
        }
    })
}

fn split_record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(12).position(|b| *b == b' ')?;
    let length = usize::try_from(number(&body[..space])?).ok()?;
    if length > body.len() || length < space + 2 {
        return None;
    }
    let (record, after) = body.split_at(length);
    let (newline, record) = record[space + 1..].split_last()?;
    if *newline != b'\n' {
        return None;
    }
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], after))
}

/// An unsigned decimal of 1 to 20 digits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A time as signed decimal seconds: (-2 s, 500,000,000 ns) is the instant -1.5.
pub(crate) fn format_time((seconds, nanoseconds): (i64, u32)) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    if seconds >= 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let whole = (seconds + 1).unsigned_abs();
    format!("-{whole}.{:09}", 1_000_000_000 - nanoseconds)
}

/// Reads what [`format_time`] writes, and any other number of decimals.
pub(crate) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = i128::from(number(parts.next()?)?);
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = parts.next() {
        if fraction.len() > 40 || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            let digit = fraction.get(place).map_or(0, |d| u32::from(d - b'0'));
            nanoseconds = nanoseconds * 10 + digit;
        }
    }
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (whole, nanoseconds),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanoseconds),
    };
    Some((i64::try_from(seconds).ok()?, nanoseconds))
}

/// Attribute names as GNU tar writes them in keywords: '=' and '%' escaped.
pub(crate) fn encode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut out = XATTR.to_vec();
    for byte in name {
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' => out.extend_from_slice(b"%25"),
            other => out.push(*other),
        }
    }
    out
}

/// The reverse of [`encode_xattr_name`], given what follows the prefix.
pub(crate) fn decode_xattr_name(mut text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        if let Some(rest) = text.strip_prefix(b"%3D") {
            name.push(b'=');
            text = rest;
        } else if let Some(rest) = text.strip_prefix(b"%25") {
            name.push(b'%');
            text = rest;
        } else {
            name.push(*first);
            text = rest;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_at_every_length() {
        // The length counts its own digits: the carries at 10, 100, 1000 are where that goes wrong.
        for size in (0..1200).chain([9_990, 9_991, 9_992, 9_993, 99_990, 99_992]) {
            let value = vec![b'\n'; size];
            let mut body = Vec::new();
            put(&mut body, b"k", &value);
            put(&mut body, b"path", b"\xff\0=");
            let read: Vec<_> = records(&body).collect::<Result<_, _>>().unwrap();
            assert_eq!(read, [(&b"k"[..], &value[..]), (b"path", b"\xff\0=")]);
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for body in [
            &b"5"[..],
            b" ",
            b"0 ",
            b"1 ",
            b"2 ",
            b"3 \n",
            b"4 a\n",
            b"6 a=b",
            b"6 a=bc",
            b"99 a=b\n",
            b"-6 a=b\n",
            b"18446744073709551615 a=b\n",
            b"x a=b\n",
            b"\0",
        ] {
            assert!(records(body).any(|r| r.is_err()), "{body:?}");
        }
    }

    #[test]
    fn times_round_trip() {
        for time in [
            (0, 0),
            (0, 1),
            (-1, 500_000_000),
            (-1, 999_999_999),
            (-2, 1),
            (-86_400, 0),
            (i64::MAX, 999_999_999),
            (i64::MIN, 0),
            (i64::MIN, 1),
            (1_700_000_000, 123_456_789),
        ] {
            assert_eq!(parse_time(format_time(time).as_bytes()), Some(time));
        }
        assert_eq!(format_time((-2, 500_000_000)), "-1.500000000");
        assert_eq!(parse_time(b"-0.5"), Some((-1, 500_000_000)));
        for bad in [
            &b""[..],
            b"-",
            b".5",
            b"1.x",
            b"--1",
            b"99999999999999999999",
            b"9223372036854775808",
            b"-9223372036854775808.5",
        ] {
            assert_eq!(parse_time(bad), None);
        }
    }

    #[test]
    fn xattr_names_round_trip() {
        for name in [&b"user.a"[..], b"user.a=b%c", b"user.%3D", b"user.\xff%"] {
            let encoded = encode_xattr_name(name);
            assert!(!encoded.contains(&b'='));
            assert_eq!(decode_xattr_name(&encoded[XATTR.len()..]), name);
        }
    }
}
