//! Brings the layers together: reads, matches keys, merges, resolves placeholders, types, checks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, ConfigErrorKind as Kind, ConfigErrors, Origin};
use super::schema::{self, Match, Meaning};
use super::settings::{Setting, Settings};
use super::value::{Mismatch, relaxed};
use super::yaml::{self, Entry, Leaf};
use super::{Config, check, environment, placeholder};

/// Mistakes after which a text is not worth reading on: each costs a search for what was meant.
const MAX_ERRORS: usize = 100;

/// Collects the layers of a [`Config`]. Made by [`Config::builder`].
///
/// ```
/// use stream_binder::config::Config;
///
/// let config = Config::builder()
///     .yaml("spring.cloud.stream.bindings.orders-in-0: { destination: orders, group: billing }")
///     .environment([("SPRING_CLOUD_STREAM_BINDINGS_ORDERSIN0_GROUP", "billing-2")])
///     .set("spring.cloud.stream.bindings.orders-in-0.consumer.concurrency", "4")
///     .load()?;
/// let orders = config.binding("orders-in-0");
/// assert_eq!(orders.destination, "orders");
/// assert_eq!(orders.group.as_deref(), Some("billing-2"));
/// assert_eq!(orders.consumer.concurrency, 4);
/// # Ok::<(), stream_binder::config::ConfigErrors>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `load`"]
pub struct ConfigBuilder {
    texts: Vec<Text>,
    environment: BTreeMap<String, String>,
    overrides: Vec<(String, String)>,
}

/// YAML that is at hand, or where to find it.
#[derive(Clone)]
enum Text {
    Yaml { name: Arc<str>, text: String },
    File { path: PathBuf, required: bool },
}

impl ConfigBuilder {
    /// Adds a YAML file, which must exist; a later one goes before an earlier one.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.texts.push(Text::File {
            path: path.into(),
            required: true,
        });
        self
    }

    /// Adds `application.yml` and `application.yaml` of the working directory, those that exist.
    pub fn working_directory(mut self) -> Self {
        for name in ["application.yaml", "application.yml"] {
            self.texts.push(Text::File {
                path: name.into(),
                required: false,
            });
        }
        self
    }

    /// Adds a YAML text, which mistakes call `<yaml>`.
    pub fn yaml(self, text: impl Into<String>) -> Self {
        self.named_yaml("<yaml>", text)
    }

    /// Adds a YAML text under the name of the file that it comes from, for instance by `include_str!`.
    pub fn named_yaml(mut self, name: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        self.texts.push(Text::Yaml {
            name: name.into(),
            text: text.into(),
        });
        self
    }

    /// Adds environment variables, [`std::env::vars_os`] for those of the process. A variable that is not UTF-8 is
    /// left out: no key has such a value.
    pub fn environment<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        for (name, value) in variables {
            if let (Ok(name), Ok(value)) = (name.into().into_string(), value.into().into_string()) {
                self.environment.insert(name, value);
            }
        }
        self
    }

    /// Sets one value before every other layer. `path` is a key with dots, in any spelling, of this crate or of
    /// the application.
    pub fn set(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.overrides.push((path.into(), value.into()));
        self
    }

    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// Every mistake found, see [`ConfigErrorKind`](super::ConfigErrorKind).
    pub fn load(self) -> Result<Config, ConfigErrors> {
        let mut layers = Layers::default();
        for text in self.texts {
            layers.text(text);
        }
        layers.environment(&self.environment);
        for (path, value) in self.overrides {
            layers.assign(&path, value);
        }
        layers.finish(&self.environment)
    }
}

impl std::fmt::Debug for ConfigBuilder {
    /// Names the layers, not their values: the environment of a process holds secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("texts", &self.texts.len())
            .field("environment", &self.environment.len())
            .field("overrides", &self.overrides.len())
            .finish()
    }
}

/// A value before its placeholders are resolved.
struct Raw {
    leaf: Leaf,
    origin: Origin,
    written: String,
    /// The key; none for one of the application's own.
    target: Option<Match>,
}

/// Every value of every layer by [`schema::identity`], the highest layer last.
#[derive(Default)]
struct Layers {
    raw: BTreeMap<String, Vec<Raw>>,
    names: Settings,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Layers {
    fn text(&mut self, text: Text) {
        let (name, text) = match text {
            Text::Yaml { name, text } => (name, text),
            Text::File { path, required } => {
                let name: Arc<str> = path.display().to_string().into();
                match read(&path) {
                    Ok(text) => (name, text),
                    Err(error) if !required && error.kind() == io::ErrorKind::NotFound => return,
                    Err(error) => {
                        let message = format!("cannot read {name}: {error}");
                        self.errors
                            .push(ConfigError::new(Kind::Unreadable, "", Origin::BuiltIn, message));
                        return;
                    }
                }
            }
        };
        match yaml::parse(&text) {
            Ok(documents) => {
                for entries in documents {
                    self.document(&name, entries);
                }
            }
            Err(error) => {
                let kind = if error.duplicate {
                    Kind::DuplicateKey
                } else {
                    Kind::Syntax
                };
                let origin = Origin::File {
                    name,
                    line: error.line,
                };
                self.errors
                    .push(ConfigError::new(kind, error.path, origin, error.message));
            }
        }
    }

    fn document(&mut self, name: &Arc<str>, entries: Vec<Entry>) {
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut unknown: HashSet<String> = HashSet::new();
        let is_new = |entry: &Entry| {
            let parts = entry.path.iter().map(|segment| relaxed(&segment.text));
            parts.eq(["spring", "cloud", "function", "definition"])
        };
        let has_new_definition = entries.iter().any(is_new);
        for entry in entries {
            if self.errors.len() >= MAX_ERRORS {
                let message = format!("{MAX_ERRORS} mistakes so far; the rest of the text was not read");
                let origin = Origin::File {
                    name: Arc::clone(name),
                    line: entry.line,
                };
                self.errors
                    .push(ConfigError::new(Kind::Syntax, "", origin, message));
                return;
            }
            let path: Vec<&str> = entry.path.iter().map(|segment| &*segment.text).collect();
            let at = |line| Origin::File {
                name: Arc::clone(name),
                line,
            };
            let written = path.join(".");
            let identity = schema::identity(&path);
            if matches!(
                identity.as_str(),
                "spring.config.activate.onprofile" | "spring.profiles"
            ) {
                self.errors.push(ConfigError::new(
                    Kind::NotSupported,
                    written,
                    at(entry.line),
                    "known to Spring Boot, not supported by this version: put the document into a file of its own \
                     and load it with ConfigBuilder::file",
                ));
                return;
            }
            if matches!(
                identity.as_str(),
                "spring.config.import" | "spring.profiles.active"
            ) {
                self.warnings
                    .push(format!("{}: {written} has no effect here", at(entry.line)));
            }
            if schema::is_old_definition(&path) {
                self.warnings.push(format!(
                    "{}: {written} is the old name of spring.cloud.function.definition; use the new one",
                    at(entry.line)
                ));
                if has_new_definition {
                    continue;
                }
            }
            let target = match schema::meaning(&path) {
                Meaning::Unknown { known, hint } => {
                    // Everything below one wrong section is one mistake.
                    let wrong = path.iter().take(known + 1).copied().collect::<Vec<_>>().join(".");
                    if unknown.insert(wrong.clone()) {
                        let line = entry.path.get(known).map_or(entry.line, |segment| segment.line);
                        let message = format!("unknown key; {hint}");
                        self.errors
                            .push(ConfigError::new(Kind::UnknownKey, wrong, at(line), message));
                    }
                    continue;
                }
                other => match self.target(other, &entry.leaf, &written, at(entry.line)) {
                    Ok(target) => target,
                    Err(()) => continue,
                },
            };
            if let Some(first) = lines.insert(identity.clone(), entry.line)
                && target.is_some()
            {
                let message =
                    format!("given twice in one document, first in line {first}; keep one of the two");
                self.errors.push(ConfigError::new(
                    Kind::DuplicateKey,
                    written,
                    at(entry.line),
                    message,
                ));
                continue;
            }
            self.push(
                identity,
                Raw {
                    leaf: entry.leaf,
                    origin: at(entry.line),
                    written,
                    target,
                },
            );
        }
    }

    /// What an entry sets, if anything; `Err` when there is nothing to keep.
    fn target(
        &mut self,
        meaning: Meaning,
        leaf: &Leaf,
        written: &str,
        origin: Origin,
    ) -> Result<Option<Match>, ()> {
        match meaning {
            Meaning::Foreign => Ok(None),
            Meaning::Key(found) => Ok(Some(found)),
            Meaning::Refused(refused) => {
                let message = format!(
                    "known to Spring Cloud Alibaba, not supported by this version: {}",
                    refused.remedy
                );
                self.errors
                    .push(ConfigError::new(Kind::NotSupported, written, origin, message));
                Err(())
            }
            Meaning::Section => {
                let empty = match leaf {
                    Leaf::Empty => true,
                    Leaf::Text(text) => text.is_empty(),
                    Leaf::List(_) | Leaf::Nested => false,
                };
                if !empty {
                    let message = "a value where a mapping of keys is expected";
                    self.errors
                        .push(ConfigError::new(Kind::InvalidValue, written, origin, message));
                }
                Err(())
            }
            Meaning::Unknown { hint, .. } => {
                let message = format!("unknown key; {hint}");
                self.errors
                    .push(ConfigError::new(Kind::UnknownKey, written, origin, message));
                Err(())
            }
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        if let Some(servers) = environment.get(environment::NAMESRV_ADDR) {
            self.variable(
                environment::NAMESRV_ADDR,
                servers,
                schema::meaning(&["spring", "cloud", "stream", "rocketmq", "binder", "name-server"]),
            );
        }
        if let Some(name) = environment.get("SPRING_APPLICATION_NAME") {
            self.variable("SPRING_APPLICATION_NAME", name, Meaning::Foreign);
        }
        for (name, value) in environment.iter().filter(|(name, _)| environment::is_ours(name)) {
            let meaning = match environment::meaning(name) {
                Some(found) => Meaning::Key(found),
                None => {
                    let path = environment::as_path(name);
                    schema::meaning(&path.iter().map(String::as_str).collect::<Vec<_>>())
                }
            };
            self.variable(name, value, meaning);
        }
    }

    fn variable(&mut self, name: &str, value: &str, meaning: Meaning) {
        let origin = Origin::Environment(name.into());
        let leaf = Leaf::Text(value.trim().to_owned());
        let Ok(target) = self.target(meaning, &leaf, "", origin.clone()) else {
            return;
        };
        let identity = match &target {
            Some(found) => found
                .canonical()
                .split('.')
                .map(relaxed)
                .collect::<Vec<_>>()
                .join("."),
            None => environment::as_path(name).join("."),
        };
        let raw = Raw {
            leaf,
            origin,
            written: String::new(),
            target,
        };
        self.push(identity, raw);
    }

    fn assign(&mut self, written: &str, value: String) {
        let parts = yaml::split(written);
        let path: Vec<&str> = parts.iter().map(|part| &**part).collect();
        let leaf = Leaf::Text(value.trim().to_owned());
        if let Ok(target) = self.target(schema::meaning(&path), &leaf, written, Origin::Override) {
            let raw = Raw {
                leaf,
                origin: Origin::Override,
                written: written.to_owned(),
                target,
            };
            self.push(schema::identity(&path), raw);
        }
    }

    fn push(&mut self, identity: String, raw: Raw) {
        if let Some(Match {
            binding: Some(binding),
            pattern,
            ..
        }) = &raw.target
            && !pattern.contains(".function.bindings.")
        {
            self.names.name(binding, &raw.origin);
        }
        self.raw.entry(identity).or_default().push(raw);
    }

    fn finish(mut self, environment: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
        let mut settings = std::mem::take(&mut self.names);
        let mut application_name = None;
        for (identity, layers) in &self.raw {
            let is_application_name = identity == "spring.application.name";
            if layers.iter().all(|raw| raw.target.is_none()) && !is_application_name {
                continue;
            }
            // The highest layer whose value is not empty.
            for raw in layers.iter().rev() {
                match self.value(raw, environment) {
                    Ok(None) => continue,
                    Ok(Some((text, _))) if is_application_name => application_name = Some(text),
                    Ok(Some((_, None))) => {}
                    Ok(Some((_, Some((path, setting))))) => settings.put(path, setting),
                    Err(error) => self.errors.push(error),
                }
                break;
            }
        }
        let mut errors = self.errors;
        let together = check::alone(&settings, &errors);
        errors.extend(together);
        errors.sort_by_key(place);
        ConfigErrors::check(errors)?;
        Ok(Config {
            settings,
            application_name,
            warnings: self.warnings,
            ..Config::default()
        })
    }

    /// The text of a value and, for a key of this crate, where to put it; `None` when it is empty.
    #[expect(clippy::type_complexity, reason = "used once, by its only caller")]
    fn value(
        &self,
        raw: &Raw,
        environment: &BTreeMap<String, String>,
    ) -> Result<Option<(String, Option<(String, Setting)>)>, ConfigError> {
        let error = |kind, message: String| ConfigError::new(kind, &raw.written, raw.origin.clone(), message);
        let expected = raw
            .target
            .as_ref()
            .map_or_else(|| "a text".to_owned(), |found| found.key.kind.expected());
        let text = match (&raw.leaf, &raw.target) {
            (Leaf::Text(text), _) => text.clone(),
            (Leaf::List(items), Some(found)) if found.key.kind.takes_a_list() => items.join(";"),
            (Leaf::List(_) | Leaf::Nested, _) => {
                return Err(error(Kind::InvalidValue, format!("a list is not {expected}")));
            }
            (Leaf::Empty, _) => {
                return Err(error(Kind::InvalidValue, format!("a mapping is not {expected}")));
            }
        };
        let text = match &raw.origin {
            // What the environment says is meant literally.
            Origin::Environment(_) => text,
            _ => placeholder::resolve(&text, &|name| self.lookup(name, environment))
                .map_err(|message| error(Kind::Placeholder, message))?
                .trim()
                .to_owned(),
        };
        if text.is_empty() {
            return Ok(None);
        }
        let Some(found) = &raw.target else {
            return Ok(Some((text, None)));
        };
        match found.key.kind.read(&text) {
            Ok(value) => {
                let setting = Setting {
                    value,
                    origin: raw.origin.clone(),
                    written: raw.written.clone(),
                };
                Ok(Some((text, Some((found.canonical(), setting)))))
            }
            Err(Mismatch::Invalid(message)) => Err(error(Kind::InvalidValue, message)),
            Err(Mismatch::IllegalName(message)) => Err(error(Kind::IllegalName, message)),
            Err(Mismatch::NotSupported(message)) => Err(error(Kind::NotSupported, message)),
        }
    }

    /// The raw text behind a name: an override, a variable, a key of any layer.
    fn lookup(&self, name: &str, environment: &BTreeMap<String, String>) -> Option<String> {
        let parts = yaml::split(name);
        let path: Vec<&str> = parts.iter().map(|part| &**part).collect();
        let raw = self
            .raw
            .get(&schema::identity(&path))
            .and_then(|layers| layers.last());
        let text = |raw: &Raw| match &raw.leaf {
            Leaf::Text(text) => Some(text.clone()),
            Leaf::List(items) => Some(items.join(",")),
            Leaf::Nested | Leaf::Empty => None,
        };
        // A variable's text is taken as it is, so what looks like a placeholder in it is escaped.
        let literal = |text: &String| text.replace("${", "\\${");
        match raw {
            Some(raw) if raw.origin == Origin::Override => text(raw),
            raw => environment
                .get(name)
                .or_else(|| environment.get(&environment::variable(name)))
                .map(literal)
                .or_else(|| raw.and_then(text)),
        }
    }
}

/// Sorts mistakes by file and line, those without a place first.
fn place(error: &ConfigError) -> (u8, String, usize) {
    match error.origin() {
        Origin::BuiltIn => (0, String::new(), 0),
        Origin::File { name, line } => (1, name.to_string(), *line),
        Origin::Environment(name) => (2, name.to_string(), 0),
        Origin::Override => (3, String::new(), 0),
    }
}

/// Reads a file whose size is bounded before its content is believed.
fn read(path: &Path) -> io::Result<String> {
    let limit = u64::try_from(yaml::MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} bytes", yaml::MAX_BYTES)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}
