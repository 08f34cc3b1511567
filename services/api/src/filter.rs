//! The filter of ListWorkspaces: comparisons joined by AND, a subset of AIP-160. Pure, and total: any
//! text is a filter or an error that says what was expected.

use std::iter::Peekable;
use std::str::{Chars, FromStr};

use uuid::Uuid;
use windlass_db::read::{Comparison, Field, Filter, Operator};
use windlass_domain::{DesiredState, Phase};

/// Longest filter, in characters.
const MAX: usize = 1024;

/// Parses a filter; the empty one matches everything.
pub fn parse(text: &str) -> Result<Filter, String> {
    if text.chars().count() > MAX {
        return Err(format!("must have at most {MAX} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    let mut tokens = Tokens {
        chars: text.chars().peekable(),
    };
    let mut filter = Filter::new();
    let Some(mut token) = tokens.next()? else {
        return Ok(filter);
    };
    loop {
        filter.push(comparison(token, &mut tokens)?);
        match tokens.next()? {
            None => return Ok(filter),
            Some(Token::Word(and)) if and == "AND" => {}
            Some(_) => return Err("expected AND between comparisons".to_owned()),
        }
        token = tokens
            .next()?
            .ok_or_else(|| "expected a comparison after AND".to_owned())?;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Letters, digits and a few signs.
    Word(String),
    /// In double quotes.
    Text(String),
    Equal,
    NotEqual,
}

struct Tokens<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, String> {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = self.chars.next() else {
            return Ok(None);
        };
        let token = match first {
            '=' => Token::Equal,
            '!' if self.chars.next_if_eq(&'=').is_some() => Token::NotEqual,
            '"' => Token::Text(self.text()?),
            c if is_word(c) => {
                let mut word = String::from(c);
                while let Some(c) = self.chars.next_if(|c| is_word(*c)) {
                    word.push(c);
                }
                Token::Word(word)
            }
            c => return Err(format!("{c:?} is not expected here")),
        };
        Ok(Some(token))
    }

    /// The rest of a text in quotes; `\"` and `\\` stand for what is behind the backslash.
    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(text),
                Some('\\') => match self.chars.next() {
                    Some(c @ ('"' | '\\')) => text.push(c),
                    _ => return Err("only \\\" and \\\\ may follow a backslash".to_owned()),
                },
                Some(c) => text.push(c),
                None => return Err("a quote is not closed".to_owned()),
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '*')
}

fn comparison(field: Token, tokens: &mut Tokens) -> Result<Comparison, String> {
    let field = match &field {
        Token::Word(word) => match word.as_str() {
            "name" => Field::Name,
            "owner" => Field::Owner,
            "phase" => Field::Phase,
            "desired_state" => Field::DesiredState,
            "host_id" => Field::HostId,
            _ => return Err(EXPECTED_FIELD.to_owned()),
        },
        Token::Text(_) | Token::Equal | Token::NotEqual => return Err(EXPECTED_FIELD.to_owned()),
    };
    let operator = match tokens.next()? {
        Some(Token::Equal) => Operator::Equal,
        Some(Token::NotEqual) => Operator::NotEqual,
        Some(Token::Word(_) | Token::Text(_)) | None => {
            return Err("expected = or != after a field".to_owned());
        }
    };
    let value = match tokens.next()? {
        Some(Token::Word(value) | Token::Text(value)) => value,
        Some(Token::Equal | Token::NotEqual) | None => {
            return Err("expected a value after = or !=".to_owned());
        }
    };
    checked(field, operator, value)
}

const EXPECTED_FIELD: &str = "expected name, owner, phase, desired_state or host_id";

fn checked(field: Field, operator: Operator, value: String) -> Result<Comparison, String> {
    let (operator, value) = match field {
        Field::Name => prefix(operator, value)?,
        Field::Owner => (operator, value),
        Field::Phase => (operator, word::<Phase>(&value, "PHASE_")?),
        Field::DesiredState => (operator, word::<DesiredState>(&value, "DESIRED_STATE_")?),
        Field::HostId => {
            let id = Uuid::try_parse(&value).map_err(|_| "host_id must be a UUID".to_owned())?;
            (operator, id.to_string())
        }
    };
    Ok(Comparison {
        field,
        operator,
        value,
    })
}

fn prefix(operator: Operator, value: String) -> Result<(Operator, String), String> {
    let Some(prefix) = value.strip_suffix('*') else {
        return if value.contains('*') {
            Err("a * may only stand at the end of a name".to_owned())
        } else {
            Ok((operator, value))
        };
    };
    match operator {
        Operator::Equal if !prefix.contains('*') => Ok((Operator::Prefix, prefix.to_owned())),
        Operator::Equal => Err("a * may only stand at the end of a name".to_owned()),
        Operator::NotEqual | Operator::Prefix => {
            Err("a prefix can only be compared with =".to_owned())
        }
    }
}

/// The stored word of a state, which may be written as in the contract (`PHASE_RUNNING`) or short.
fn word<W: FromStr>(value: &str, long: &str) -> Result<String, String> {
    let short = value.strip_prefix(long).unwrap_or(value);
    match W::from_str(short) {
        Ok(_) => Ok(short.to_owned()),
        Err(_) => Err(format!(
            "no {} is called that",
            long.trim_end_matches('_').to_lowercase()
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(field: Field, operator: Operator, value: &str) -> Filter {
        vec![Comparison {
            field,
            operator,
            value: value.to_owned(),
        }]
    }

    #[test]
    fn the_contracts_examples() {
        use Field::{DesiredState, HostId, Name, Owner, Phase};
        use Operator::{Equal, NotEqual, Prefix};
        let host = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for (text, filter) in [
            ("", Filter::new()),
            ("  ", Filter::new()),
            (r#"name = "demo""#, one(Name, Equal, "demo")),
            ("name=demo", one(Name, Equal, "demo")),
            ("phase = RUNNING", one(Phase, Equal, "RUNNING")),
            ("phase != PHASE_RUNNING", one(Phase, NotEqual, "RUNNING")),
            (
                "desired_state = ARCHIVED",
                one(DesiredState, Equal, "ARCHIVED"),
            ),
            (r#"owner = "ann""#, one(Owner, Equal, "ann")),
            (r#"owner = "a\"\\n*""#, one(Owner, Equal, r#"a"\n*"#)),
            (&format!("host_id = \"{host}\""), one(HostId, Equal, host)),
            (r#"name = "pre*""#, one(Name, Prefix, "pre")),
            (r#"name = "*""#, one(Name, Prefix, "")),
        ] {
            assert_eq!(parse(text), Ok(filter), "{text}");
        }
        let both = parse(r#"name != "AND" AND phase = ERROR AND owner = AND"#).unwrap();
        assert_eq!(both.len(), 3);
    }

    #[test]
    fn what_is_no_filter_says_what_was_expected() {
        for (text, expected) in [
            ("name", "= or !="),
            ("name =", "a value"),
            ("= demo", "expected name"),
            ("\"name\" = demo", "expected name"),
            ("id = 1", "expected name"),
            ("name = demo phase = RUNNING", "AND between"),
            ("name = demo and phase = RUNNING", "AND between"),
            ("name = demo OR phase = RUNNING", "AND between"),
            ("name = demo AND", "after AND"),
            ("name ! demo", "'!' is not expected"),
            ("name < demo", "'<' is not expected"),
            ("(name = demo)", "'(' is not expected"),
            ("name = \"demo", "not closed"),
            (r#"name = "a\n""#, "backslash"),
            ("name = \"a*b\"", "at the end"),
            ("name = \"a**\"", "at the end"),
            ("name != \"a*\"", "only be compared with ="),
            ("phase = NONSENSE", "no phase is called"),
            ("desired_state = PENDING", "no desired_state is called"),
            ("host_id = 1", "must be a UUID"),
            ("name = \"\0\"", "control"),
            (&"x".repeat(1025), "1024"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn neither_does_what_is_nearly_one_panic(
            text in r#"((name|phase|owner|host_id|AND|OR|=|!=|"|\\|\*|[a-z]{1,3}|RUNNING| ){1,20})"#
        ) {
            if let Ok(filter) = parse(&text) {
                prop_assert!(filter.len() <= 1 + text.matches("AND").count());
            }
        }

        #[test]
        fn what_is_quoted_comes_back(value in "\\PC{0,50}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = parse(&format!("owner != \"{quoted}\""));
            prop_assert_eq!(parsed, Ok(one(Field::Owner, Operator::NotEqual, &value)));
        }
    }
}
