//! Resume tokens: a position in the change feed, and of which view.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use windlass_db::read::{WatchScope, WatchToken};

use crate::opaque;

const VERSION: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    v: u8,
    xid: i64,
    owner: Option<Uuid>,
    id: Option<Uuid>,
}

pub fn encode(position: WatchToken, scope: WatchScope) -> String {
    opaque::encode(&Token {
        v: VERSION,
        xid: position.0,
        owner: scope.owner.map(|owner| owner.0),
        id: scope.id.map(|id| id.0),
    })
}

/// The position, if it is one of this view: what another view has seen says nothing about this one.
pub fn decode(text: &str, scope: WatchScope) -> Result<WatchToken, &'static str> {
    let token: Token = opaque::decode(text)
        .filter(|token: &Token| token.v == VERSION && token.xid >= 0)
        .ok_or("is no token of this server")?;
    if token.owner == scope.owner.map(|owner| owner.0) && token.id == scope.id.map(|id| id.0) {
        Ok(WatchToken(token.xid))
    } else {
        Err("belongs to a stream of another user or id")
    }
}

#[cfg(test)]
mod tests {
    use windlass_domain::{UserId, WorkspaceId};

    use super::*;

    #[test]
    fn a_token_is_bound_to_its_view() {
        let all = WatchScope::default();
        let own = WatchScope {
            owner: Some(UserId(Uuid::from_u128(1))),
            id: None,
        };
        let one = WatchScope {
            id: Some(WorkspaceId(Uuid::from_u128(2))),
            ..own
        };
        for scope in [all, own, one] {
            let text = encode(WatchToken(7), scope);
            for other in [all, own, one] {
                assert_eq!(decode(&text, other).is_ok(), scope == other);
            }
            assert_eq!(decode(&text, scope), Ok(WatchToken(7)));
        }
        for bad in ["x", "00", &encode(WatchToken(-1), all)] {
            assert!(decode(bad, all).is_err());
        }
    }
}
