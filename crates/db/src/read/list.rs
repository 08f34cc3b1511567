//! Pages of workspaces, by keyset: the cost of a page does not depend on how many came before.

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, QueryDsl, SelectableHelper,
    TextExpressionMethods,
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::{UserId, WorkspaceId};

use super::{joined, records};
use crate::{
    error::Result,
    pool::Pool,
    rows::{JoinedRow, WorkspaceRecord},
    schema::{users, workspaces},
};

/// A field that a list can be filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Name of the workspace.
    Name,
    /// Name of its owner.
    Owner,
    /// Word of its phase.
    Phase,
    /// Word of its desired state.
    DesiredState,
    /// Its host.
    HostId,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `= "text*"`
    Prefix,
}

/// One comparison; a filter joins them by AND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Which field.
    pub field: Field,
    /// How.
    pub operator: Operator,
    /// With what. A [`Field::HostId`] that is no UUID matches nothing.
    pub value: String,
}

/// Comparisons joined by AND.
pub type Filter = Vec<Comparison>;

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

impl Pool {
    /// One page.
    pub async fn list_workspaces(&self, list: &ListQuery) -> Result<Vec<WorkspaceRecord>> {
        let mut query = joined!().into_boxed();
        if let Some(owner) = list.owner {
            query = query.filter(workspaces::owner_id.eq(owner.0));
        }
        if !list.show_deleted {
            query = query.filter(workspaces::deleted_at.is_null());
        }
        for comparison in &list.filter {
            let value = comparison.value.clone();
            macro_rules! compare {
                ($column:expr) => {
                    match comparison.operator {
                        Operator::Equal => query.filter($column.eq(value)),
                        Operator::NotEqual => query.filter($column.ne(value)),
                        Operator::Prefix => query.filter($column.like(like_prefix(&value))),
                    }
                };
            }
            query = match comparison.field {
                Field::Name => compare!(workspaces::name),
                Field::Owner => compare!(users::name),
                Field::Phase => compare!(workspaces::phase),
                Field::DesiredState => compare!(workspaces::desired_state),
                Field::HostId => {
                    let host = Uuid::try_parse(&value).unwrap_or_default();
                    match comparison.operator {
                        Operator::Equal | Operator::Prefix => {
                            query.filter(workspaces::host_id.eq(host))
                        }
                        Operator::NotEqual => query.filter(workspaces::host_id.ne(host)),
                    }
                }
            };
        }
        macro_rules! page {
            ($key:expr, $start:ident => $value:expr) => {{
                if let Some($start) = &list.after {
                    let (value, id) = ($value, $start.id.0);
                    query = if list.descending {
                        let tie = $key.eq(value.clone()).and(workspaces::id.lt(id));
                        query.filter($key.lt(value).or(tie))
                    } else {
                        let tie = $key.eq(value.clone()).and(workspaces::id.gt(id));
                        query.filter($key.gt(value).or(tie))
                    };
                }
                if list.descending {
                    query.order(($key.desc(), workspaces::id.desc()))
                } else {
                    query.order(($key.asc(), workspaces::id.asc()))
                }
            }};
        }
        let query = match list.order_by {
            OrderBy::CreateTime => page!(workspaces::created_at, s => s.time),
            OrderBy::Name => page!(workspaces::name, s => s.name.clone()),
            OrderBy::UpdateTime => page!(workspaces::updated_at, s => s.time),
            OrderBy::LastAccessTime => {
                page!(coalesce(workspaces::last_access_at, never().into_sql::<Timestamptz>()), s => s.time)
            }
        };
        let mut conn = self.get().await?;
        records(query.limit(list.limit).load::<JoinedRow>(&mut conn).await?)
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// PostgreSQL's COALESCE of a nullable time.
    fn coalesce(value: Nullable<Timestamptz>, fallback: Timestamptz) -> Timestamptz;
}

fn like_prefix(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '\\' | '%' | '_') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
