//! Page tokens: where the next page begins, and of which list.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use windlass_db::read::{OrderBy, PageStart};
use windlass_domain::{WorkspaceId, names};
use windlass_proto::{convert::InvalidField, v1};

use crate::opaque;

const VERSION: u8 = 1;
const DEFAULT_SIZE: i32 = 100;
const MAX_SIZE: i32 = 1000;
/// A time after the year 9999 is none of ours, and PostgreSQL need not see it.
const LAST_MICROSECOND: i64 = 253_402_300_799_999_999;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    v: u8,
    /// Digest of the list's parameters.
    list: String,
    name: String,
    /// Microseconds, which is what PostgreSQL keeps.
    time: i64,
    id: Uuid,
}

/// The parameters that have to stay the same from page to page.
fn fingerprint(request: &v1::ListWorkspacesRequest) -> String {
    let parameters = (
        &request.filter,
        &request.order_by,
        request.show_deleted,
        VERSION,
    );
    let digest = Sha256::digest(format!("{parameters:?}").as_bytes());
    hex::encode(&digest[..8])
}

/// The token of the page that begins at `start`.
pub fn token(request: &v1::ListWorkspacesRequest, start: &PageStart) -> String {
    opaque::encode(&Token {
        v: VERSION,
        list: fingerprint(request),
        name: start.name.clone(),
        time: start.time.timestamp_micros(),
        id: start.id.0,
    })
}

/// Where the page begins; `None`: at the beginning.
pub fn start(request: &v1::ListWorkspacesRequest) -> Result<Option<PageStart>, InvalidField> {
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let wrong = |why| InvalidField::new("page_token", why);
    let token: Token = opaque::decode(&request.page_token)
        .filter(|token: &Token| token.v == VERSION)
        .ok_or_else(|| wrong("is no token of this server"))?;
    if token.list != fingerprint(request) {
        return Err(wrong(
            "belongs to a list with another filter, order_by or show_deleted",
        ));
    }
    let time = DateTime::from_timestamp_micros(token.time)
        .filter(|_| (0..=LAST_MICROSECOND).contains(&token.time));
    let (Some(time), Ok(())) = (time, names::check_name(&token.name)) else {
        return Err(wrong("is no token of this server"));
    };
    Ok(Some(PageStart {
        name: token.name,
        time,
        id: WorkspaceId(token.id),
    }))
}

/// How many workspaces a page has at most.
pub fn size(page_size: i32) -> Result<i64, InvalidField> {
    match page_size {
        ..0 => Err(InvalidField::new("page_size", "must not be negative")),
        0 => Ok(DEFAULT_SIZE.into()),
        1.. => Ok(page_size.min(MAX_SIZE).into()),
    }
}

/// The order, and whether it is reversed.
pub fn order_by(text: &str) -> Result<(OrderBy, bool), InvalidField> {
    let mut words = text.split_ascii_whitespace();
    let order_by = match words.next() {
        None | Some("create_time") => OrderBy::CreateTime,
        Some("name") => OrderBy::Name,
        Some("update_time") => OrderBy::UpdateTime,
        Some("last_access_time") => OrderBy::LastAccessTime,
        Some(_) => {
            return Err(InvalidField::new(
                "order_by",
                "must be create_time, name, update_time or last_access_time",
            ));
        }
    };
    let descending = match words.next() {
        None => false,
        Some("desc") => true,
        Some(_) => {
            return Err(InvalidField::new(
                "order_by",
                "only `desc` may stand after the field",
            ));
        }
    };
    match words.next() {
        None => Ok((order_by, descending)),
        Some(_) => Err(InvalidField::new("order_by", "must be one field")),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn request() -> v1::ListWorkspacesRequest {
        v1::ListWorkspacesRequest {
            filter: "name = \"a*\"".to_owned(),
            order_by: "name desc".to_owned(),
            ..Default::default()
        }
    }

    fn begin() -> PageStart {
        PageStart {
            name: "abc".to_owned(),
            time: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            id: WorkspaceId(Uuid::from_u128(5)),
        }
    }

    #[test]
    fn a_token_comes_back_as_it_went() {
        let mut next = request();
        assert_eq!(start(&next), Ok(None));
        next.page_token = token(&request(), &begin());
        next.page_size = 7;
        assert_eq!(start(&next), Ok(Some(begin())));
    }

    #[test]
    fn a_token_is_bound_to_its_list() {
        let token = token(&request(), &begin());
        let of = |change: fn(&mut v1::ListWorkspacesRequest)| {
            let mut other = request();
            other.page_token.clone_from(&token);
            change(&mut other);
            start(&other).unwrap_err().field
        };
        assert_eq!(of(|r| r.filter.clear()), "page_token");
        assert_eq!(of(|r| r.order_by = "name".to_owned()), "page_token");
        assert_eq!(of(|r| r.show_deleted = true), "page_token");
        assert_eq!(of(|r| r.page_token.insert(0, '0')), "page_token");
        assert_eq!(of(|r| r.page_token = "xyz".to_owned()), "page_token");
        assert_eq!(of(|r| r.page_token = "00".repeat(9000)), "page_token");
    }

    #[test]
    fn a_forged_token_reaches_no_database() {
        for (name, time) in [("a\0", 0), ("", 0), ("a", -1), ("a", i64::MAX)] {
            let mut forged = request();
            forged.page_token = opaque::encode(&Token {
                v: VERSION,
                list: fingerprint(&request()),
                name: name.to_owned(),
                time,
                id: Uuid::nil(),
            });
            assert!(start(&forged).is_err(), "{name:?} {time}");
        }
    }

    #[test]
    fn sizes_and_orders() {
        assert!(size(-1).is_err());
        assert_eq!((size(0), size(1)), (Ok(100), Ok(1)));
        assert_eq!((size(1000), size(i32::MAX)), (Ok(1000), Ok(1000)));
        assert_eq!(order_by(""), Ok((OrderBy::CreateTime, false)));
        assert_eq!(order_by("name"), Ok((OrderBy::Name, false)));
        assert_eq!(
            order_by(" last_access_time  desc "),
            Ok((OrderBy::LastAccessTime, true))
        );
        for bad in ["id", "name asc", "name desc desc", "name,id", "desc"] {
            assert_eq!(order_by(bad).unwrap_err().field, "order_by", "{bad}");
        }
        assert!(Utc::now().timestamp_micros() < LAST_MICROSECOND);
    }
}
