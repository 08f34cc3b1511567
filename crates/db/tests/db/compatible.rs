//! Old and new versions run side by side during an upgrade: the schema of this version must serve the last
//! released one. Released migrations (`migrations.released`, as `sha256sum` writes it) are never edited; the
//! ones after them only add. What nobody uses any more is removed one release later, by a migration that
//! names that release here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::common::cluster;

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

/// Folders of released migrations with the digest of their `up.sql`.
fn released() -> BTreeMap<String, String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations.released");
    let text = std::fs::read_to_string(list).unwrap();
    text.lines()
        .map(|line| {
            let (digest, file) = line.split_once("  ").unwrap();
            let folder = file.strip_suffix("/up.sql").unwrap();
            (folder.to_owned(), digest.to_owned())
        })
        .collect()
}

/// Every migration in order: (folder, text).
pub fn all() -> Vec<(String, String)> {
    let mut folders: Vec<_> = std::fs::read_dir(migrations())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let text = std::fs::read_to_string(migrations().join(&folder).join("up.sql")).unwrap();
            (folder, text)
        })
        .collect()
}

/// What a version relies on.
#[derive(Debug)]
struct Schema {
    /// (table.column) -> (type, may be null, has a default).
    columns: BTreeMap<String, (String, bool, bool)>,
    /// role, privilege, table[.column].
    grants: BTreeSet<String>,
    /// Constraints and unique indexes: (table, name) -> (columns, definition).
    rules: BTreeMap<String, (BTreeSet<String>, String)>,
}

async fn schema(db: &super::common::Db) -> Schema {
    let columns = db
        .sql(
            "SELECT concat_ws('|', table_name || '.' || column_name, udt_name, is_nullable,
                              column_default IS NOT NULL OR is_identity = 'YES')
             FROM information_schema.columns WHERE table_schema = 'public'",
        )
        .await
        .into_iter()
        .map(|line| {
            let parts: Vec<&str> = line.split('|').collect();
            let facts = (parts[1].to_owned(), parts[2] == "YES", parts[3] == "t");
            (parts[0].to_owned(), facts)
        })
        .collect();
    let grants = db
        .sql(
            "SELECT concat_ws(' ', grantee, privilege_type, table_name || '.' || column_name)
             FROM information_schema.column_privileges
             WHERE table_schema = 'public' AND grantee LIKE 'windlass\\_%'
             UNION
             SELECT concat_ws(' ', grantee, privilege_type, table_name)
             FROM information_schema.table_privileges
             WHERE table_schema = 'public' AND grantee LIKE 'windlass\\_%'",
        )
        .await
        .into_iter()
        .collect();
    let rules = db
        .sql(
            "SELECT concat_ws('|', c.conrelid::regclass || '.' || c.conname, pg_get_constraintdef(c.oid),
                              (SELECT string_agg(a.attname, ',') FROM pg_attribute a
                               WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)))
             FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = 'public'
             UNION
             SELECT concat_ws('|', i.indrelid::regclass || '.' || i.indexrelid::regclass, 'UNIQUE',
                              (SELECT string_agg(a.attname, ',') FROM pg_attribute a
                               WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)))
             FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
             JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'public' AND i.indisunique",
        )
        .await
        .into_iter()
        .map(|line| {
            let (name, rest) = line.split_once('|').unwrap();
            let (definition, columns) = rest.rsplit_once('|').unwrap();
            let columns = columns.split(',').map(str::to_owned).collect();
            (name.to_owned(), (columns, definition.to_owned()))
        })
        .collect();
    Schema {
        columns,
        grants,
        rules,
    }
}

/// The words that a check allows.
fn words(definition: &str) -> BTreeSet<&str> {
    definition.split('\'').skip(1).step_by(2).collect()
}

fn breaks(old: &Schema, new: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    for (column, (kind, nullable, default)) in &old.columns {
        match new.columns.get(column) {
            None => found.push(format!("{column} is gone")),
            Some(now) if now.0 != *kind => found.push(format!("{column} changed its type")),
            Some(now) if *nullable && !now.1 => found.push(format!("{column} may not be null")),
            Some(now) if *default && !now.2 => found.push(format!("{column} lost its default")),
            Some(_) => {}
        }
    }
    let tables: BTreeSet<&str> = old
        .columns
        .keys()
        .filter_map(|c| c.split('.').next())
        .collect();
    let is_old_table = |name: &str| name.split('.').next().is_some_and(|t| tables.contains(t));
    for (column, (_, nullable, default)) in &new.columns {
        if !old.columns.contains_key(column) && is_old_table(column) && !nullable && !default {
            found.push(format!(
                "{column} is required, and old writers do not know it"
            ));
        }
    }
    for grant in old.grants.difference(&new.grants) {
        found.push(format!("revoked: {grant}"));
    }
    for (name, (columns, definition)) in &new.rules {
        let table = name.split('.').next().unwrap_or_default();
        match old.rules.get(name) {
            Some((_, before)) if !words(before).is_subset(&words(definition)) => {
                found.push(format!("{name} forbids what it allowed"));
            }
            Some(_) => {}
            None => {
                let known = |c: &String| old.columns.contains_key(&format!("{table}.{c}"));
                if is_old_table(name) && columns.iter().any(known) {
                    found.push(format!("{name} binds columns that old writers write"));
                }
            }
        }
    }
    found
}

#[test]
fn released_migrations_are_not_edited() {
    let present: BTreeMap<String, String> = all()
        .into_iter()
        .map(|(folder, text)| (folder, hex::encode(Sha256::digest(text))))
        .collect();
    for (folder, digest) in released() {
        assert_eq!(present.get(&folder), Some(&digest), "{folder} was released");
    }
}

#[test]
fn new_migrations_come_after_released_ones() {
    let released = released();
    let last = released.keys().max().unwrap();
    for (folder, _) in all() {
        assert!(released.contains_key(&folder) || folder > *last, "{folder}");
    }
}

#[tokio::test]
async fn the_released_version_finds_what_it_relies_on() {
    let db = cluster().await;
    let released = released();
    let (before, after): (Vec<_>, Vec<_>) = all()
        .into_iter()
        .partition(|(f, _)| released.contains_key(f));
    for (_, text) in before {
        db.sql(&text).await;
    }
    let old = schema(&db).await;
    assert!(old.columns.len() > 40 && old.grants.len() > 40 && old.rules.len() > 20);
    for (_, text) in after {
        db.sql(&text).await;
    }
    let new = schema(&db).await;
    assert_eq!(breaks(&old, &new), Vec::<String>::new());
}

#[tokio::test]
async fn what_breaks_the_released_version_is_found() {
    let db = cluster().await;
    for (_, text) in all() {
        db.sql(&text).await;
    }
    let old = schema(&db).await;
    for (change, found) in [
        (
            "ALTER TABLE workspaces DROP COLUMN description",
            "workspaces.description is gone",
        ),
        (
            "ALTER TABLE users RENAME name TO login",
            "users.name is gone",
        ),
        (
            "ALTER TABLE hosts ALTER last_observed_at SET NOT NULL",
            "may not be null",
        ),
        (
            "ALTER TABLE workspaces ALTER pids TYPE bigint",
            "workspaces.pids changed its type",
        ),
        (
            "ALTER TABLE workspaces ALTER description DROP DEFAULT",
            "lost its default",
        ),
        (
            "ALTER TABLE workspaces ADD zone text NOT NULL",
            "workspaces.zone is required",
        ),
        (
            "REVOKE UPDATE (name) ON workspaces FROM windlass_api",
            "revoked: windlass_api UPDATE",
        ),
        (
            "CREATE UNIQUE INDEX one_address ON hosts (address)",
            "hosts.one_address binds",
        ),
        (
            "ALTER TABLE users DROP CONSTRAINT users_role_check,
                 ADD CONSTRAINT users_role_check CHECK (role IN ('admin', 'guest'))",
            "users.users_role_check forbids",
        ),
    ] {
        let changed = {
            db.sql("BEGIN").await;
            db.sql(change).await;
            let changed = schema(&db).await;
            db.sql("ROLLBACK").await;
            changed
        };
        let all = breaks(&old, &changed).join("; ");
        assert!(all.contains(found), "{change}: {all:?}");
    }
}
