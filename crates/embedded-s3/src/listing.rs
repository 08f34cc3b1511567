//! The one listing algorithm of S3: sorted by bytes, prefix, delimiter, pages.
//!
//! Works on any sorted map by seeking, so that a page costs what it shows and not what it skips.

use std::collections::BTreeMap;
use std::ops::Bound;

use s3s::{S3Result, s3_error};

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// At the first key.
    Start,
    /// Behind this key.
    AfterKey(String),
    /// Behind everything beginning with this.
    AfterPrefix(String),
}

impl Cursor {
    /// The opaque form clients hand back.
    pub(crate) fn token(&self) -> Option<String> {
        match self {
            Self::Start => None,
            Self::AfterKey(key) => Some(format!("k{}", hex::encode(key))),
            Self::AfterPrefix(prefix) => Some(format!("p{}", hex::encode(prefix))),
        }
    }

    pub(crate) fn from_token(token: &str) -> S3Result<Self> {
        let parse = || {
            let text = String::from_utf8(hex::decode(token.get(1..)?).ok()?).ok()?;
            match token.as_bytes().first()? {
                b'k' => Some(Self::AfterKey(text)),
                b'p' => Some(Self::AfterPrefix(text)),
                _ => None,
            }
        };
        parse().ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "the continuation token provided is incorrect"
            )
        })
    }

    /// A marker or start-after as clients write it: one that names a common prefix stands for all of it.
    pub(crate) fn from_marker(
        marker: Option<String>,
        prefix: &str,
        delimiter: Option<&str>,
    ) -> Self {
        match marker {
            None => Self::Start,
            Some(marker) => match common_prefix(&marker, prefix, delimiter) {
                Some(common) if common.len() == marker.len() => Self::AfterPrefix(marker),
                _ => Self::AfterKey(marker),
            },
        }
    }

    /// The key or prefix the next page begins behind, as ListObjects (version 1) shows it.
    pub(crate) fn into_marker(self) -> Option<String> {
        match self {
            Self::Start => None,
            Self::AfterKey(text) | Self::AfterPrefix(text) => Some(text),
        }
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page<V> {
    pub(crate) items: Vec<(String, V)>,
    pub(crate) prefixes: Vec<String>,
    /// Set when there is more.
    pub(crate) next: Option<Cursor>,
}

/// `max` counts items and common prefixes together.
pub(crate) fn page<V: Clone>(
    map: &BTreeMap<String, V>,
    prefix: &str,
    delimiter: Option<&str>,
    cursor: &Cursor,
    max: usize,
) -> Page<V> {
    let mut out = Page {
        items: Vec::new(),
        prefixes: Vec::new(),
        next: None,
    };
    let mut last = cursor.clone();
    let mut from = match lower_bound(prefix, cursor) {
        Some(from) if max > 0 => from,
        _ => return out,
    };
    loop {
        let bounds = (from.as_ref().map(String::as_str), Bound::Unbounded);
        let Some((key, value)) = map.range::<str, _>(bounds).next() else {
            return out;
        };
        if !key.starts_with(prefix) {
            return out;
        }
        if out.items.len() + out.prefixes.len() == max {
            out.next = Some(last);
            return out;
        }
        match common_prefix(key, prefix, delimiter) {
            Some(common) => {
                out.prefixes.push(common.to_owned());
                last = Cursor::AfterPrefix(common.to_owned());
                match successor(common) {
                    Some(next) => from = Bound::Included(next),
                    None => return out,
                }
            }
            None => {
                out.items.push((key.clone(), value.clone()));
                last = Cursor::AfterKey(key.clone());
                from = Bound::Excluded(key.clone());
            }
        }
    }
}

fn lower_bound(prefix: &str, cursor: &Cursor) -> Option<Bound<String>> {
    Some(match cursor {
        Cursor::AfterKey(key) if key.as_str() >= prefix => Bound::Excluded(key.clone()),
        Cursor::AfterPrefix(common) => {
            let next = successor(common)?;
            Bound::Included(if next.as_str() < prefix {
                prefix.to_owned()
            } else {
                next
            })
        }
        Cursor::Start | Cursor::AfterKey(_) => Bound::Included(prefix.to_owned()),
    })
}

/// The part of `key` up to and with the first delimiter behind `prefix`.
pub(crate) fn common_prefix<'a>(
    key: &'a str,
    prefix: &str,
    delimiter: Option<&str>,
) -> Option<&'a str> {
    let delimiter = delimiter.filter(|d| !d.is_empty())?;
    let at = key.strip_prefix(prefix)?.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

/// The smallest string greater than every string beginning with `prefix`; none if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// Percent-encodes for `encoding-type=url`, so that any key can stand in XML.
pub(crate) fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> BTreeMap<String, ()> {
        keys.iter().map(|k| ((*k).to_owned(), ())).collect()
    }

    fn walk(
        map: &BTreeMap<String, ()>,
        prefix: &str,
        delimiter: Option<&str>,
        max: usize,
    ) -> Vec<String> {
        let mut cursor = Cursor::Start;
        let mut seen = Vec::new();
        loop {
            let page = page(map, prefix, delimiter, &cursor, max);
            let mut both: Vec<String> = page.items.into_iter().map(|(k, ())| k).collect();
            both.extend(page.prefixes);
            both.sort();
            assert!(both.len() <= max);
            seen.extend(both);
            match page.next {
                Some(next) => {
                    cursor = Cursor::from_token(&next.token().unwrap()).unwrap();
                    assert_eq!(cursor, next);
                }
                None => return seen,
            }
        }
    }

    #[test]
    fn every_page_size_shows_the_same() {
        let map = map(&[
            "a",
            "a/",
            "a/1",
            "a/2",
            "a0",
            "b/x/y",
            "b/x/z",
            "c",
            "é/1",
            "\u{10ffff}/x",
        ]);
        for max in 1..12 {
            assert_eq!(
                walk(&map, "", Some("/"), max),
                ["a", "a/", "a0", "b/", "c", "é/", "\u{10ffff}/"]
            );
            assert_eq!(walk(&map, "", None, max).len(), 10);
            assert_eq!(walk(&map, "a/", Some("/"), max), ["a/", "a/1", "a/2"]);
            assert_eq!(walk(&map, "b/x", Some("/"), max), ["b/x/"]);
        }
        assert!(page(&map, "", None, &Cursor::Start, 0).next.is_none());
    }

    #[test]
    fn markers() {
        let map = map(&["a/1", "a/2", "b"]);
        let list = |marker: &str| {
            let cursor = Cursor::from_marker(Some(marker.into()), "", Some("/"));
            let page = page(&map, "", Some("/"), &cursor, 10);
            (page.prefixes, page.items.len())
        };
        assert_eq!(list("a/"), (vec![], 1));
        assert_eq!(list("a/1"), (vec!["a/".to_owned()], 1));
        assert_eq!(list("a/2"), (vec![], 1));
        assert_eq!(list("b"), (vec![], 0));
    }

    #[test]
    fn successors() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{10ffff}"), None);
    }
}
