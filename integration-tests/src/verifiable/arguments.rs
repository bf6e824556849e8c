//! Options of the programs, as name and value after name and value.

use std::{collections::BTreeMap, fmt::Write, str::FromStr, time::Duration};

use crate::Failure;

/// An option that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, with both dashes.
    pub name: &'static str,
    /// What it stands at when it is not given; `None` if it has to be.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

impl Flag {
    /// An option with a default.
    #[must_use]
    pub const fn new(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default: Some(default),
            help,
        }
    }

    /// An option that has to be given.
    #[must_use]
    pub const fn required(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default: None,
            help,
        }
    }
}

/// The options of one run.
#[derive(Debug, Clone)]
pub struct Arguments(BTreeMap<&'static str, String>);

impl Arguments {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// When an option is unknown or has no value, or a required one is missing. With `--help`, the list of options.
    pub fn read(flags: &[Flag], given: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut values: BTreeMap<&'static str, String> = flags
            .iter()
            .filter_map(|flag| Some((flag.name, flag.default?.to_owned())))
            .collect();
        let mut given = given.into_iter();
        while let Some(name) = given.next() {
            let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
                return Err(format!("{name} is no option of this program.\n{}", help(flags)).into());
            };
            let value = given.next().ok_or_else(|| format!("{name} has no value"))?;
            values.insert(flag.name, value);
        }
        match flags.iter().find(|flag| !values.contains_key(flag.name)) {
            Some(missing) => Err(format!("{} is missing.\n{}", missing.name, help(flags)).into()),
            None => Ok(Self(values)),
        }
    }

    /// The text of an option.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// An option as a number or anything else that is read from text.
    ///
    /// # Errors
    /// When it is none.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| format!("{name} is {text:?}, which cannot be read").into())
    }

    /// An option in milliseconds.
    ///
    /// # Errors
    /// When it is no number.
    pub fn millis(&self, name: &str) -> Result<Duration, Failure> {
        Ok(Duration::from_millis(self.parsed(name)?))
    }

    /// The entries of a comma list.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let entries = self.text(name).split(',').map(str::trim);
        entries.filter(|entry| !entry.is_empty())
    }
}

fn help(flags: &[Flag]) -> String {
    let mut text = "Options:".to_owned();
    for Flag { name, default, help } in flags {
        let default = match default {
            Some("") | None => String::new(),
            Some(default) => format!(" (default {default})"),
        };
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {name:<26}{help}{default}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::required("--topic", "the topic"),
        Flag::new("--rate", "100", "messages a second"),
        Flag::new("--poison", "", "ids"),
    ];

    fn read(given: &[&str]) -> Result<Arguments, Failure> {
        Arguments::read(FLAGS, given.iter().map(|&text| text.to_owned()))
    }

    #[test]
    fn options_have_their_values_or_defaults() {
        let arguments = read(&["--topic", "t", "--poison", "1/2, 3/4,"]).unwrap();
        assert_eq!(arguments.text("--topic"), "t");
        assert_eq!(arguments.parsed::<u32>("--rate").unwrap(), 100);
        assert_eq!(arguments.millis("--rate").unwrap(), Duration::from_millis(100));
        assert_eq!(arguments.list("--poison").collect::<Vec<_>>(), ["1/2", "3/4"]);
        assert!(arguments.parsed::<u32>("--topic").is_err());
    }

    #[test]
    fn what_is_unknown_missing_or_without_a_value_is_an_error_that_lists_the_options() {
        for given in [&["--rate", "1"][..], &["--topic", "t", "--rat", "1"], &["--help"]] {
            let error = read(given).unwrap_err().to_string();
            assert!(error.contains("messages a second (default 100)"), "{error}");
        }
        assert!(read(&["--topic"]).is_err());
    }
}
