//! The `migrate` step: brings the schema up to date, sets the roles' passwords and makes the first admin.
//! Safe to run twice and concurrently: all of it happens under one advisory lock.

use diesel::sql_types::{Binary, Text};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    error::{DbError, Result},
    pool::check_url,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Any number, as long as nothing else in the database locks it.
const LOCK: i64 = 0x77_69_6e_64_6c_61_73_73;

/// What else the migrate step sees to.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Passwords of login roles: (role, password).
    pub role_passwords: Vec<(String, String)>,
    /// The first admin: (name, SHA-256 of the token). An existing user keeps its other tokens.
    pub admin: Option<(String, [u8; 32])>,
}

/// Runs the step over a connection of the database's owner. Needs a multi-threaded runtime.
pub async fn migrate(url: &str, bootstrap: &Bootstrap) -> Result<Vec<String>> {
    check_url(url)?;
    let mut conn = AsyncPgConnection::establish(url)
        .await
        .map_err(|e| DbError::Unavailable(e.to_string()))?;
    // The lock belongs to the session and goes with it, however this ends.
    diesel::sql_query(format!("SELECT pg_advisory_lock({LOCK})"))
        .execute(&mut conn)
        .await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    let applied = harness
        .run_pending_migrations(MIGRATIONS)
        .map_err(|e| DbError::Migration(e.to_string()))?
        .into_iter()
        .map(|version| version.to_string())
        .collect();
    let mut conn = harness.into_inner();
    for (role, password) in &bootstrap.role_passwords {
        set_password(&mut conn, role, password).await?;
    }
    if let Some((name, sha256)) = &bootstrap.admin {
        make_admin(&mut conn, name, sha256).await?;
    }
    Ok(applied)
}

async fn set_password(conn: &mut AsyncPgConnection, role: &str, password: &str) -> Result<()> {
    // ALTER ROLE takes no parameters; PostgreSQL itself quotes.
    #[derive(diesel::QueryableByName)]
    struct Statement {
        #[diesel(sql_type = Text)]
        statement: String,
    }
    let alter: Statement =
        diesel::sql_query("SELECT format('ALTER ROLE %I PASSWORD %L', $1, $2) AS statement")
            .bind::<Text, _>(role)
            .bind::<Text, _>(password)
            .get_result(conn)
            .await?;
    diesel::sql_query(alter.statement).execute(conn).await?;
    Ok(())
}

async fn make_admin(conn: &mut AsyncPgConnection, name: &str, sha256: &[u8; 32]) -> Result<()> {
    diesel::sql_query(
        "WITH admin AS (
             INSERT INTO users (name, role) VALUES ($1, 'admin')
             ON CONFLICT (name) DO UPDATE SET role = 'admin' RETURNING id
         )
         INSERT INTO tokens (user_id, name, sha256) SELECT id, 'bootstrap', $2 FROM admin
         ON CONFLICT (sha256) DO NOTHING",
    )
    .bind::<Text, _>(name)
    .bind::<Binary, _>(sha256.as_slice())
    .execute(conn)
    .await?;
    Ok(())
}
