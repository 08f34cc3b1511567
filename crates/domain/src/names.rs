//! What things may be called, and what Windlass calls its own. The rules are checked where a name comes
//! in (api) and hold everywhere else.

use crate::ids::WorkspaceId;

/// A name, image or text that breaks its rule; the message says which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(pub &'static str);

/// Longest name of a workspace or host: a DNS label (RFC 1035).
pub const MAX_NAME: usize = 63;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1024;
/// Longest image reference, in bytes.
pub const MAX_IMAGE: usize = 255;

/// The container of a workspace: `{prefix}{workspace_id}`.
pub fn container(prefix: &str, id: WorkspaceId) -> String {
    format!("{prefix}{id}")
}

/// The home volume of a workspace: `{prefix}{workspace_id}-home`.
pub fn home_volume(prefix: &str, id: WorkspaceId) -> String {
    format!("{prefix}{id}-home")
}

/// Checks the name of a workspace or host: an RFC 1035 label in lower case.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName("must not be empty"));
    }
    if name.len() > MAX_NAME {
        return Err(InvalidName("must have at most 63 characters"));
    }
    let lower_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|&b| lower_or_digit(b))
        && bytes.iter().all(|&b| lower_or_digit(b) || b == b'-');
    if good {
        Ok(())
    } else {
        Err(InvalidName(
            "must consist of lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen",
        ))
    }
}

/// Checks a description: no control characters but newline and tab, and not too long.
pub fn check_description(text: &str) -> Result<(), InvalidName> {
    if text.chars().count() > MAX_DESCRIPTION {
        return Err(InvalidName("must have at most 1024 characters"));
    }
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return Err(InvalidName("must not contain control characters"));
    }
    Ok(())
}

/// Checks an image reference by the grammar of the OCI distribution specification:
/// `[host[:port]/]path[:tag][@digest]`.
pub fn check_image(image: &str) -> Result<(), InvalidName> {
    const BAD: InvalidName =
        InvalidName("must be an image reference such as registry.example:5000/team/image:tag");
    if image.is_empty() || image.len() > MAX_IMAGE {
        return Err(InvalidName("must have 1 to 255 characters"));
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon after the last slash separates the tag; one before it, a registry's port.
    let last_slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        Some(colon) => (
            &rest[..last_slash + colon],
            Some(&rest[last_slash + colon + 1..]),
        ),
        None => (rest, None),
    };
    let mut parts: Vec<&str> = name.split('/').collect();
    let has_host = parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost");
    if has_host && !is_host(parts.remove(0)) {
        return Err(BAD);
    }
    let good = parts.iter().all(|p| is_path_component(p))
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if good { Ok(()) } else { Err(BAD) }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

fn is_path_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(|&b| alnum(b))
        && bytes.last().is_some_and(|&b| alnum(b))
        && bytes.iter().all(|&b| alnum(b) || b"._-".contains(&b))
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "demo", "a-1", &"a".repeat(63)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a_b",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images() {
        for good in [
            "busybox",
            "windlass/demo",
            "windlass/demo:latest",
            "registry.example:5000/team/image:tag",
            "registry.example:5000/team/image",
            "localhost/x",
            "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(check_image(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "a b",
            "A/b",
            "/a",
            "a/",
            "a::b",
            "a:",
            "a@b",
            "x.y:port/a",
            "a\n",
            "-a",
            "a//b",
            "../a",
            &"a".repeat(256),
        ] {
            assert!(check_image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions() {
        assert!(check_description("two\nlines").is_ok());
        assert!(check_description("nul\0").is_err());
        assert!(check_description(&"x".repeat(1025)).is_err());
    }
}
