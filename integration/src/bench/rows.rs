//! Workspaces written into the database in bulk, as if they had lived for long: RUNNING, with a home on a
//! volume, converged, not yet observed by anybody.

use tokio_postgres::Client;
use uuid::Uuid;

/// A workspace to be written.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its id.
    pub id: Uuid,
    /// Its host.
    pub host: Uuid,
    /// Its home's volume_id.
    pub volume: Uuid,
}

/// Registers a host, as the api would.
///
/// # Panics
/// When the database refuses.
pub async fn add_host(sql: &Client, name: &str, address: &str) -> Uuid {
    let query = "INSERT INTO hosts (name, address) VALUES ($1, $2) RETURNING id::text";
    let row = sql.query_one(query, &[&name, &address]).await;
    parse(row.expect("a host").get(0))
}

/// The id of the host of this address.
///
/// # Panics
/// When there is none.
pub async fn host_at(sql: &Client, address: &str) -> Uuid {
    let query = "SELECT id::text FROM hosts WHERE address = $1";
    let row = sql.query_one(query, &[&address]).await;
    parse(row.expect("the host").get(0))
}

/// Adds users `bench-0`, `bench-1`, ...; the token of each is [`token`].
///
/// # Panics
/// When the database refuses.
pub async fn add_users(sql: &Client, count: usize) {
    let count = i64::try_from(count).expect("not that many");
    sql.execute(
        "INSERT INTO users (name) SELECT 'bench-' || n FROM generate_series(0, $1::bigint - 1) n
         ON CONFLICT DO NOTHING",
        &[&count],
    )
    .await
    .expect("users");
    sql.batch_execute(
        "INSERT INTO tokens (user_id, sha256)
         SELECT id, sha256(('wl_' || name)::bytea) FROM users WHERE name LIKE 'bench-%'
         ON CONFLICT DO NOTHING",
    )
    .await
    .expect("tokens");
}

/// The token of the user `bench-N`.
pub fn token(user: usize) -> String {
    format!("wl_bench-{user}")
}

/// Writes workspaces, dealt out to the first `users` users of [`add_users`] in turn.
///
/// # Panics
/// When the database refuses.
pub async fn add_workspaces(sql: &Client, seeds: &[Seed], image: &str, users: usize) {
    let text = |of: fn(&Seed) -> Uuid| -> Vec<String> {
        seeds.iter().map(|seed| of(seed).to_string()).collect()
    };
    let (ids, hosts, volumes) = (text(|s| s.id), text(|s| s.host), text(|s| s.volume));
    let users = i64::try_from(users).expect("not that many");
    // A name of its own for each batch: names are unique for each owner.
    let batch = format!("b{}", &Uuid::new_v4().simple().to_string()[..8]);
    sql.execute(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, standby_ttl_ms,
                                 archive_ttl_ms, phase, home_ctx, started_image, created_at)
         SELECT w.id::uuid, u.id, w.host::uuid, $6::text || '-' || w.n, $4::text, 'RUNNING', 0, 0, 'RUNNING',
                jsonb_build_object('location', 'volume', 'volume_id', w.volume), $4::text,
                now() - w.n * interval '1 s'
         FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (id, host, volume, n)
         JOIN users u ON u.name = 'bench-' || (w.n - 1) % $5::bigint",
        &[&ids, &hosts, &volumes, &image, &users, &batch],
    )
    .await
    .expect("workspaces");
    // As it would be after a while.
    sql.batch_execute("VACUUM ANALYZE workspaces")
        .await
        .expect("statistics");
}

fn parse(text: &str) -> Uuid {
    text.parse().expect("a UUID")
}
