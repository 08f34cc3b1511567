//! The command line of a benchmark: `--quick`, and `--NAME VALUE` for the numbers it knows.

use std::{collections::HashMap, fmt::Debug, str::FromStr};

/// What a benchmark was told.
#[derive(Debug, Default)]
pub struct Args {
    /// Small numbers, to see that it works: says nothing about speed. Also by `WINDLASS_BENCH_QUICK=1`.
    pub quick: bool,
    given: HashMap<String, String>,
}

impl Args {
    /// Reads the command line of this process; `known` are the options, each with what it means.
    ///
    /// Prints them and exits for anything else.
    pub fn parse(name: &str, known: &[(&str, &str)]) -> Self {
        match Self::read(std::env::args().skip(1), known) {
            Ok(mut args) => {
                args.quick |= std::env::var("WINDLASS_BENCH_QUICK").is_ok_and(|v| v == "1");
                args
            }
            Err(wrong) => {
                eprintln!("{wrong}\n\nusage: just bench {name} [--quick] [--OPTION VALUE]...");
                for (option, meaning) in known {
                    eprintln!("  --{option:<10} {meaning}");
                }
                std::process::exit(2)
            }
        }
    }

    fn read(args: impl Iterator<Item = String>, known: &[(&str, &str)]) -> Result<Self, String> {
        let mut read = Self::default();
        // cargo adds --bench.
        let mut args = args.filter(|a| a != "--bench");
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").unwrap_or_default();
            if name == "quick" {
                read.quick = true;
            } else if known.iter().any(|(option, _)| *option == name) {
                let value = args.next().ok_or(format!("{arg} needs a value"))?;
                read.given.insert(name.to_owned(), value);
            } else {
                return Err(format!("unknown argument {arg}"));
            }
        }
        Ok(read)
    }

    /// An option, or what it is in ordinary and in quick mode.
    ///
    /// # Panics
    /// When it does not parse.
    pub fn get<T: FromStr<Err: Debug>>(&self, name: &str, ordinary: T, quick: T) -> T {
        match self.given.get(name) {
            Some(text) => text
                .parse()
                .unwrap_or_else(|e| panic!("--{name} {text}: {e:?}")),
            None if self.quick => quick,
            None => ordinary,
        }
    }

    /// An option that is a list of numbers separated by commas, in ascending order.
    ///
    /// # Panics
    /// When it does not parse.
    pub fn list(&self, name: &str, ordinary: &str, quick: &str) -> Vec<usize> {
        let text: String = self.get(name, ordinary.to_owned(), quick.to_owned());
        let number = |part: &str| {
            part.trim()
                .parse()
                .unwrap_or_else(|e| panic!("{part}: {e}"))
        };
        let mut numbers: Vec<usize> = text.split(',').map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Args, String> {
        let known = [("sizes", "how many"), ("runs", "how often")];
        Args::read(args.iter().map(|&a| a.to_owned()), &known)
    }

    #[test]
    fn options_override_and_quick_is_small() {
        let args = read(&["--bench", "--sizes", "30,10"]).unwrap();
        assert_eq!(args.list("sizes", "1,2", "1"), [10, 30]);
        assert_eq!(args.get("runs", 7, 2), 7);
        let quick = read(&["--quick", "--bench"]).unwrap();
        assert_eq!(quick.list("sizes", "1,2", "1"), [1]);
        assert!(read(&["--nonsense"]).is_err() && read(&["--runs"]).is_err());
    }
}
