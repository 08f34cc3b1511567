//! Pages of workspaces, by keyset: the cost of a page depends neither on how many came before nor on how
//! many there are.
//!
//! Every order has an index for living and one for deleted rows, and every filter that may select few rows
//! has one too. For states and names PostgreSQL decides for the values asked for which of them is cheaper
//! (the statement is not cached, so no plan for average values is used). Of one owner or host all rows are
//! read and sorted: they are few, while in the order of all they may be the last.

mod filter;

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Array, Bool, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{DesiredState, Phase, UserId, WorkspaceId};

pub use filter::{Comparison, Field, Filter, Operator};

use filter::{desired_states, like_prefix, phases};

use super::{joined, records};
use crate::{
    error::Result,
    pool::Pool,
    rows::{JoinedRow, WorkspaceRecord},
    schema::{users, workspace_changes, workspaces},
};

/// What a list is ordered by; the id breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// When it was created.
    CreateTime,
    /// Its name.
    Name,
    /// When its row last changed.
    UpdateTime,
    /// When it was last used; never used comes first.
    LastAccessTime,
}

/// The last row of the page before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageStart {
    /// Its name, if ordered by that.
    pub name: String,
    /// Its time, if ordered by one.
    pub time: DateTime<Utc>,
    /// Its id.
    pub id: WorkspaceId,
}

/// What to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only this user's.
    pub owner: Option<UserId>,
    /// Only these.
    pub filter: Filter,
    /// In which order.
    pub order_by: OrderBy,
    /// Reversed.
    pub descending: bool,
    /// Whether deleted ones are listed too.
    pub show_deleted: bool,
    /// After this row.
    pub after: Option<PageStart>,
    /// At most this many.
    pub limit: i64,
}

/// Never used sorts before everything.
fn never() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

impl PageStart {
    /// The start of the page after `record`.
    pub fn after(record: &WorkspaceRecord, order_by: OrderBy) -> Self {
        Self {
            name: record.workspace.spec.name.clone(),
            time: match order_by {
                OrderBy::CreateTime | OrderBy::Name => record.created_at,
                OrderBy::UpdateTime => record.updated_at,
                OrderBy::LastAccessTime => record.last_access_at.unwrap_or_else(never),
            },
            id: record.workspace.id,
        }
    }
}

/// Rows that deletion has not marked, or those it has. They have indexes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Living,
    Deleted,
}

impl Part {
    /// Those of the phases that its rows can have: the others would make it seem large.
    fn words(self, mut phases: Vec<&'static str>) -> Vec<&'static str> {
        if self == Self::Living {
            phases.retain(|phase| *phase != Phase::Deleted.as_str());
        }
        phases
    }
}

impl OrderBy {
    /// The same as [`key`](Self::key), but no index over all rows has it.
    fn sorted_key(self) -> &'static str {
        match self {
            Self::CreateTime => "(workspaces.created_at + interval '0')",
            Self::Name => r#"(workspaces.name || '') COLLATE "C""#,
            Self::UpdateTime => "(workspaces.updated_at + interval '0')",
            Self::LastAccessTime => {
                "(COALESCE(workspaces.last_access_at, '1970-01-01 00:00:00+00'::timestamptz) + interval '0')"
            }
        }
    }

    /// The indexed expression.
    fn key(self) -> &'static str {
        match self {
            Self::CreateTime => "workspaces.created_at",
            Self::Name => r#"workspaces.name COLLATE "C""#,
            Self::UpdateTime => "workspace_changes.updated_at",
            Self::LastAccessTime => {
                "COALESCE(workspaces.last_access_at, '1970-01-01 00:00:00+00'::timestamptz)"
            }
        }
    }

    /// As PostgreSQL compares it.
    fn compare(self, a: &PageStart, b: &PageStart) -> Ordering {
        let keys = match self {
            Self::Name => a.name.cmp(&b.name),
            Self::CreateTime | Self::UpdateTime | Self::LastAccessTime => a.time.cmp(&b.time),
        };
        keys.then_with(|| a.id.0.cmp(&b.id.0))
    }
}

impl Pool {
    /// One page.
    pub async fn list_workspaces(&self, list: &ListQuery) -> Result<Vec<WorkspaceRecord>> {
        let mut conn = self.get().await?;
        let mut owners: Vec<UserId> = list.owner.into_iter().collect();
        for comparison in &list.filter {
            if comparison.field == Field::Owner && comparison.operator == Operator::Equal {
                match user_id(&mut conn, &comparison.value).await? {
                    Some(id) => owners.push(id),
                    None => return Ok(Vec::new()),
                }
            }
        }
        if !list.show_deleted {
            return part(&mut conn, list, Part::Living, &owners).await;
        }
        drop(conn);
        let mut page = self.both_parts(list.clone(), owners).await?;
        page.sort_by_cached_key(|record| Keyed {
            at: PageStart::after(record, list.order_by),
            order_by: list.order_by,
            descending: list.descending,
        });
        page.truncate(usize::try_from(list.limit).unwrap_or(0));
        Ok(page)
    }

    /// Both parts of one snapshot: what is deleted meanwhile would be in both, what comes back in none.
    async fn both_parts(
        &self,
        list: ListQuery,
        owners: Vec<UserId>,
    ) -> Result<Vec<WorkspaceRecord>> {
        self.transaction(move |conn| {
            Box::pin(async move {
                diesel::sql_query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    .execute(conn)
                    .await?;
                let mut page = part(conn, &list, Part::Living, &owners).await?;
                page.extend(part(conn, &list, Part::Deleted, &owners).await?);
                Ok(page)
            })
        })
        .await
    }
}

/// A row's place in a list.
#[derive(PartialEq, Eq)]
struct Keyed {
    at: PageStart,
    order_by: OrderBy,
    descending: bool,
}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> Ordering {
        let ascending = self.order_by.compare(&self.at, &other.at);
        if self.descending {
            ascending.reverse()
        } else {
            ascending
        }
    }
}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

async fn user_id(conn: &mut AsyncPgConnection, name: &str) -> Result<Option<UserId>> {
    let id: Option<Uuid> = users::table
        .filter(users::name.eq(name))
        .select(users::id)
        .first(conn)
        .await
        .optional()?;
    Ok(id.map(UserId))
}

const PHASE: &str = "workspaces.phase";
const DESIRED: &str = "workspaces.desired_state";

macro_rules! one_of {
    ($column:expr, $words:expr) => {
        sql::<Bool>(&format!("{} = ANY (", $column))
            .bind::<Array<Text>, _>($words)
            .sql(")")
    };
}

/// The page as if there were only these rows.
async fn part(
    conn: &mut AsyncPgConnection,
    list: &ListQuery,
    part: Part,
    owners: &[UserId],
) -> Result<Vec<WorkspaceRecord>> {
    // PostgreSQL leaves out a join of which nothing is used.
    let all = workspaces::table.left_join(workspace_changes::table);
    let mut query = joined!(all).into_boxed();
    // Few rows, which are to be found by what is asked and not by their order.
    let mut few = !owners.is_empty();
    for owner in owners {
        query = query.filter(workspaces::owner_id.eq(owner.0));
    }
    for comparison in &list.filter {
        let (operator, value) = (comparison.operator, comparison.value.clone());
        query = match (comparison.field, operator) {
            (Field::Name, _) => {
                let (operator, value) = match operator {
                    Operator::Equal => ("=", value),
                    Operator::NotEqual => ("<>", value),
                    Operator::Prefix => ("LIKE", like_prefix(&value)),
                };
                let compare = format!(r#"workspaces.name COLLATE "C" {operator} "#);
                query.filter(sql::<Bool>(&compare).bind::<Text, _>(value))
            }
            (Field::Owner, Operator::NotEqual) => query.filter(users::name.ne(value)),
            // Is among `owners`.
            (Field::Owner, Operator::Equal | Operator::Prefix) => query,
            (Field::Phase, _) => {
                let words = part.words(phases(operator, &value));
                // Deletion goes through DELETING to DELETED at once.
                few |= part == Part::Deleted && !words.contains(&Phase::Deleted.as_str());
                query.filter(one_of!(PHASE, words))
            }
            (Field::DesiredState, _) => {
                let mut words = desired_states(operator, &value);
                // A constraint of the table: what deletion has marked is to be deleted.
                let deleted = DesiredState::Deleted.as_str();
                words.retain(|word| (*word == deleted) == (part == Part::Deleted));
                if words.is_empty() {
                    return Ok(Vec::new());
                }
                // The index begins with the phase.
                let phases = part.words(phases(Operator::NotEqual, ""));
                query
                    .filter(one_of!(PHASE, phases))
                    .filter(one_of!(DESIRED, words))
            }
            (Field::HostId, Operator::Equal | Operator::Prefix) => {
                few = true;
                query.filter(workspaces::host_id.eq(Uuid::try_parse(&value).unwrap_or_default()))
            }
            (Field::HostId, Operator::NotEqual) => {
                query.filter(workspaces::host_id.ne(Uuid::try_parse(&value).unwrap_or_default()))
            }
        };
    }
    // One owner's rows have an index by creation.
    let few = few && (owners.is_empty() || list.order_by != OrderBy::CreateTime);
    let by_changes = !few && list.order_by == OrderBy::UpdateTime;
    if by_changes {
        query = query.filter(workspace_changes::deleted.eq(part == Part::Deleted));
    }
    // Of two conditions that mean the same, PostgreSQL expects a tenth of the rows that one leaves.
    if !by_changes || list.filter.iter().any(Comparison::may_leave_few) {
        query = match part {
            // The second condition follows from the first; an index needs it.
            Part::Living => query.filter(sql::<Bool>(
                "workspaces.deleted_at IS NULL AND workspaces.phase <> 'DELETED'",
            )),
            Part::Deleted => query.filter(workspaces::deleted_at.is_not_null()),
        };
    }
    let key = match few {
        true => list.order_by.sorted_key(),
        false => list.order_by.key(),
    };
    let id = match by_changes {
        true => "workspace_changes.workspace_id",
        false => "workspaces.id",
    };
    let (direction, sign) = match list.descending {
        false => ("ASC", ">"),
        true => ("DESC", "<"),
    };
    if let Some(after) = &list.after {
        // A comparison of rows, because an index cannot begin in the middle by an OR.
        let begin = sql::<Bool>(&format!("({key}, {id}) {sign} ("));
        query = match list.order_by {
            OrderBy::Name => query.filter(
                begin
                    .bind::<Text, _>(after.name.clone())
                    .sql(", ")
                    .bind::<SqlUuid, _>(after.id.0)
                    .sql(")"),
            ),
            OrderBy::CreateTime | OrderBy::UpdateTime | OrderBy::LastAccessTime => query.filter(
                begin
                    .bind::<Timestamptz, _>(after.time)
                    .sql(", ")
                    .bind::<SqlUuid, _>(after.id.0)
                    .sql(")"),
            ),
        };
    }
    let order = format!("{key} {direction}, {id} {direction}");
    let query = query.order(sql::<Bool>(&order)).limit(list.limit);
    records(query.load::<JoinedRow>(conn).await?)
}
