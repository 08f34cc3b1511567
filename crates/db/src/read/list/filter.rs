//! What a list is filtered by, and the words that match.

use windlass_domain::{DesiredState, Phase};

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

impl Comparison {
    /// Whether it may leave few rows, which an index finds.
    pub(super) fn may_leave_few(&self) -> bool {
        match self.field {
            Field::Phase | Field::DesiredState => true,
            Field::Name | Field::Owner | Field::HostId => self.operator != Operator::NotEqual,
        }
    }
}

/// Comparisons joined by AND.
pub type Filter = Vec<Comparison>;

/// Words of the phases that match.
pub(super) fn phases(operator: Operator, value: &str) -> Vec<&'static str> {
    words(Phase::ALL.iter().map(|p| p.as_str()), operator, value)
}

/// Words of the desired states that match.
pub(super) fn desired_states(operator: Operator, value: &str) -> Vec<&'static str> {
    words(
        DesiredState::ALL.iter().map(|d| d.as_str()),
        operator,
        value,
    )
}

/// The words that match: what is not equal to one is equal to one of the others.
fn words(
    all: impl Iterator<Item = &'static str>,
    operator: Operator,
    value: &str,
) -> Vec<&'static str> {
    all.filter(|word| match operator {
        Operator::Equal => *word == value,
        Operator::NotEqual => *word != value,
        Operator::Prefix => word.starts_with(value),
    })
    .collect()
}

/// The pattern of LIKE for what begins so.
pub(super) fn like_prefix(prefix: &str) -> String {
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
