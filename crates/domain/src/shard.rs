//! How the work of a service is divided among its replicas: by a hash of an id, the same in Rust and SQL.
//!
//! Every id is in exactly one shard of n. The hash is the last two bytes of the UUID as a big-endian number,
//! which are random in every version we make, modulo n.

use uuid::Uuid;

/// Most shards a service can have: as many as it has lease rows.
pub const MAX_SHARDS: u32 = 64;

/// Shard `index` of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Everything: shard 0 of 1.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Shard `index` of `count`; `None` unless index < count <= [`MAX_SHARDS`].
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count && count <= MAX_SHARDS).then_some(Self { index, count })
    }

    /// All shards of `count`, which is taken as 1 to [`MAX_SHARDS`].
    pub fn all(count: u32) -> impl Iterator<Item = Self> {
        let count = count.clamp(1, MAX_SHARDS);
        (0..count).map(move |index| Self { index, count })
    }

    /// Which of `count` shards an id is in; 0 of none.
    pub fn of(id: Uuid, count: u32) -> u32 {
        let [.., high, low] = *id.as_bytes();
        u32::from(u16::from_be_bytes([high, low]))
            .checked_rem(count)
            .unwrap_or(0)
    }

    /// Which.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether an id is in this shard.
    pub fn owns(self, id: Uuid) -> bool {
        Self::of(id, self.count) == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_in_exactly_one_shard() {
        for count in 1..=MAX_SHARDS {
            for id in (0..1000).map(|n: u128| Uuid::from_u128(n * 0x9e37_79b9_7f4a_7c15)) {
                let owners: Vec<_> = Shard::all(count).filter(|s| s.owns(id)).collect();
                assert_eq!(owners.len(), 1, "{id} of {count}");
                assert_eq!(owners[0].index(), Shard::of(id, count));
            }
        }
        assert!(Shard::WHOLE.owns(Uuid::from_u128(0xffff)));
        assert_eq!(Shard::new(0, 1), Some(Shard::WHOLE));
        assert_eq!((Shard::new(4, 4), Shard::new(0, 65)), (None, None));
    }
}
