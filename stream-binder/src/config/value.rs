//! The types of configuration values, and how each is read from text.
//!
//! Values are text until their key is known: YAML's own guesses (`no`, `1e3`, `0o7`) play no part.

use std::time::Duration;

use rocketmq_client::protocol::names;

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Names of functions, separated by `;`.
    Functions,
    /// A name of a binding.
    BindingName,
    /// A topic name, by RocketMQ's rule.
    Topic,
    /// A group name, by RocketMQ's rule.
    Group,
    /// A media type.
    ContentType,
    /// `host:port` addresses.
    NameServers,
    /// `*` or `tagA || tagB`.
    Subscription,
    /// A whole number, both bounds included.
    Integer { min: i64, max: i64 },
    /// A number, both bounds included.
    Float { min: f64, max: f64 },
    /// `true` or `false`.
    Bool,
    /// A number with a unit, or in `unit` without one.
    Duration { min_millis: u64, unit: &'static str },
    /// One of some words, in any case.
    Choice {
        words: &'static [&'static str],
        /// Words that mean something elsewhere, with the remedy.
        refused: &'static [(&'static str, &'static str)],
    },
}

/// A value that has been read as its key's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    List(Vec<String>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Duration(Duration),
}

/// Why a text is not a value of the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Wrong type or out of range; the text says what is expected.
    Invalid(String),
    /// A name RocketMQ refuses; the text says the character and the rule.
    IllegalName(String),
    /// Known elsewhere, not here; the text says what to use instead.
    NotSupported(String),
}

impl Kind {
    /// Reads `text`, which is trimmed and not empty, as this type.
    pub(crate) fn read(self, text: &str) -> Result<Value, Mismatch> {
        match self {
            Self::Functions => functions(text),
            Self::BindingName => binding_name(text),
            Self::Topic => topic(text),
            Self::Group => group(text),
            Self::ContentType => content_type(text),
            Self::NameServers => name_servers(text),
            Self::Subscription => subscription(text),
            Self::Integer { min, max } => match text.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
                _ => Err(self.mismatch(text)),
            },
            Self::Float { min, max } => match text.parse::<f64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Float(number)),
                _ => Err(self.mismatch(text)),
            },
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "no" | "off" => Ok(Value::Bool(false)),
                _ => Err(self.mismatch(text)),
            },
            Self::Duration { min_millis, unit } => duration(text, unit)
                .filter(|value| *value >= Duration::from_millis(min_millis) && *value <= LONGEST)
                .map(Value::Duration)
                .ok_or_else(|| self.mismatch(text)),
            Self::Choice { words, refused } => {
                if let Some((word, remedy)) = refused.iter().find(|(word, _)| same_word(word, text)) {
                    return Err(Mismatch::NotSupported(format!(
                        "{word} is known to Spring Cloud Alibaba, not supported by this version: {remedy}"
                    )));
                }
                words
                    .iter()
                    .find(|word| same_word(word, text))
                    .map(|word| Value::Text((*word).to_owned()))
                    .ok_or_else(|| self.mismatch(text))
            }
        }
    }

    /// Whether a YAML list means its items separated by `;`.
    pub(crate) fn takes_a_list(self) -> bool {
        matches!(self, Self::NameServers | Self::Functions)
    }

    /// What a value of this type looks like, for an error message.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Functions => "names of functions, separated by `;`".to_owned(),
            Self::BindingName => "the name of a binding".to_owned(),
            Self::Topic => "a topic name".to_owned(),
            Self::Group => "a group name".to_owned(),
            Self::ContentType => "a media type such as application/json".to_owned(),
            Self::NameServers => "name servers as host:port, separated by `;`".to_owned(),
            Self::Subscription => "`*` or tags such as `tagA || tagB`".to_owned(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Float { min, max } => format!("a number from {min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::Duration { min_millis, unit } => {
                format!("a time, a number in {unit} or with a unit, from {min_millis}ms to 30d")
            }
            Self::Choice { words: [word], .. } => (*word).to_owned(),
            Self::Choice { words, .. } => format!("one of {}", words.join(", ")),
        }
    }

    fn mismatch(self, text: &str) -> Mismatch {
        Mismatch::Invalid(format!("`{}` is not {}", excerpt(text), self.expected()))
    }
}

/// Bound of every configured time, so that adding one to a clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The start of a value, fit for one line of an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Spring's relaxed comparison of constants: case, dashes and underscores do not count.
fn same_word(word: &str, text: &str) -> bool {
    relaxed(word) == relaxed(text)
}

/// The form in which two spellings of one name are equal: `maxAttempts`, `max-attempts` and `MAX_ATTEMPTS`.
pub(crate) fn relaxed(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn duration(text: &str, default_unit: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim_start() {
        "" => default_unit.to_owned(),
        unit => unit.to_ascii_lowercase(),
    };
    match unit.as_str() {
        "ms" => Some(Duration::from_millis(number)),
        "us" => Some(Duration::from_micros(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

fn binding_name(text: &str) -> Result<Value, Mismatch> {
    match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(c) => Err(Mismatch::IllegalName(format!(
            "binding name `{}` contains {c:?}; a binding name has no blanks and no control characters",
            excerpt(text)
        ))),
        None => Ok(Value::Text(text.to_owned())),
    }
}

fn functions(text: &str) -> Result<Value, Mismatch> {
    if text.contains(['|', ',']) {
        return Err(Mismatch::NotSupported(format!(
            "`{}` composes functions, which is known to Spring Cloud Stream, not supported by this version: call one \
             function from the other",
            excerpt(text)
        )));
    }
    let names: Vec<String> = text
        .split(';')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    match names
        .iter()
        .find(|name| name.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        Some(name) => Err(Kind::Functions.mismatch(name)),
        None => Ok(Value::List(names)),
    }
}

fn topic(text: &str) -> Result<Value, Mismatch> {
    if text.contains(',') {
        return Err(Mismatch::NotSupported(format!(
            "`{}` names several topics, which this version does not support: give each topic its own function and \
             binding, with a consumer group of its own",
            excerpt(text)
        )));
    }
    match names::check_topic(text) {
        Ok(()) => Ok(Value::Text(text.to_owned())),
        Err(error) => Err(Mismatch::IllegalName(error.to_string())),
    }
}

fn group(text: &str) -> Result<Value, Mismatch> {
    match names::check_group(text) {
        Ok(()) => Ok(Value::Text(text.to_owned())),
        Err(error) => Err(Mismatch::IllegalName(error.to_string())),
    }
}

fn content_type(text: &str) -> Result<Value, Mismatch> {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$&^_.+-*".contains(c))
    };
    match essence.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && !text.contains(char::is_control) => {
            Ok(Value::Text(text.to_owned()))
        }
        _ => Err(Kind::ContentType.mismatch(text)),
    }
}

fn name_servers(text: &str) -> Result<Value, Mismatch> {
    let mut servers = Vec::new();
    for address in text
        .split([';', ','])
        .map(str::trim)
        .filter(|address| !address.is_empty())
    {
        let well_formed = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@'))
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !well_formed {
            return Err(Mismatch::Invalid(format!(
                "`{}` is not a name server address; expected host:port, for example 127.0.0.1:9876",
                excerpt(address)
            )));
        }
        servers.push(address.to_owned());
    }
    if servers.is_empty() {
        return Err(Kind::NameServers.mismatch(text));
    }
    Ok(Value::List(servers))
}

fn subscription(text: &str) -> Result<Value, Mismatch> {
    if let Some(expression) = text.strip_prefix("sql:") {
        return Err(Mismatch::NotSupported(format!(
            "the SQL filter `{}` is known to Spring Cloud Alibaba, not supported by this version: filter by tags \
             (`tagA || tagB`), or in the function",
            excerpt(expression)
        )));
    }
    if text == "*" {
        return Ok(Value::Text(text.to_owned()));
    }
    let tags: Vec<&str> = text.split("||").map(str::trim).collect();
    let legal =
        |tag: &&str| !tag.is_empty() && **tag != *"*" && !tag.contains(|c: char| c == '|' || c.is_control());
    if !tags.iter().all(legal) {
        return Err(Kind::Subscription.mismatch(text));
    }
    Ok(Value::Text(tags.join(" || ")))
}
