//! Shards in SQL: the same hash as [`Shard::owns`].

use windlass_domain::Shard;

/// The condition that the UUID in `column` is in a shard.
pub(crate) fn owns(column: &str, shard: Shard) -> String {
    if shard.count() == 1 {
        return "true".to_owned();
    }
    let bytes = format!("uuid_send({column})");
    format!(
        "(get_byte({bytes}, 14) * 256 + get_byte({bytes}, 15)) % {} = {}",
        shard.count(),
        shard.index()
    )
}
