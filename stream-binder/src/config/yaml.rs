//! YAML text to a flat list of entries with their lines.
//!
//! Scalars stay text: the type of a value is decided by its key, so a group named `no` or a tag `1.10` is what was
//! written. The parser's events are composed here rather than deserialized, for the lines of keys and to bound
//! what a text can cost: its depth, its nodes, and the nodes its aliases stand for.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};

use super::value::excerpt;

/// Largest text that is read at all, in bytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;
/// Deepest nesting of mappings and lists.
const MAX_DEPTH: usize = 64;
/// Most nodes of one text.
const MAX_NODES: usize = 20_000;
/// Longest path, in bytes and in parts.
const MAX_PATH: usize = 1_000;
const MAX_PARTS: usize = 64;
/// Most nodes that all aliases of one text may stand for.
const MAX_ALIASED_NODES: usize = 10_000;

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) text: Rc<str>,
    pub(crate) line: usize,
}

/// What stands at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A scalar; empty for YAML's null.
    Text(String),
    /// A list of scalars.
    List(Vec<String>),
    /// A list that holds more than scalars.
    Nested,
    /// A mapping without entries.
    Empty,
}

/// One value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<Segment>,
    pub(crate) leaf: Leaf,
    pub(crate) line: usize,
}

/// Why a text cannot be read, and at which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) line: usize,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) duplicate: bool,
}

/// The entries of each document of `text`, in order.
pub(crate) fn parse(text: &str) -> Result<Vec<Vec<Entry>>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(limit(
            1,
            format!("a text of {} bytes; at most {MAX_BYTES} are read", text.len()),
        ));
    }
    let mut composer = Composer::new(text);
    let mut documents = Vec::new();
    while let Some((event, span)) = composer.next()? {
        match event {
            Event::DocumentStart(..) => {
                composer.anchors.clear();
                let (event, span) = composer.expect(&span)?;
                let root = composer.node(event, span, 0)?;
                documents.push(flatten(&root)?);
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    Ok(documents)
}

/// A node of the tree; children are shared, so an alias costs one pointer.
#[derive(Debug)]
struct Node {
    line: usize,
    /// Nodes in this subtree with every alias expanded.
    weight: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(String),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Segment, Rc<Node>)>),
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    aliased: usize,
}

impl<'a> Composer<'a> {
    fn new(text: &'a str) -> Self {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.flow_nesting_limit = MAX_DEPTH;
        options.block_nesting_limit = MAX_DEPTH;
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            anchors: HashMap::new(),
            nodes: 0,
            aliased: 0,
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, YamlError> {
        self.parser.next().transpose().map_err(|error| syntax(&error))
    }

    /// The next event of a node that has begun.
    fn expect(&mut self, before: &Span) -> Result<(Event<'a>, Span), YamlError> {
        self.next()?
            .ok_or_else(|| limit(before.start.line(), "the text ends inside a value".to_owned()))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Rc<Node>, YamlError> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(limit(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(limit(line, format!("more than {MAX_NODES} values in one text")));
        }
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, Content::Scalar(scalar(&text, style))),
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(&span, depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(&span, depth)?),
            Event::Alias(anchor) => return self.alias(anchor, line),
            // A document without content.
            _ => (0, Content::Scalar(String::new())),
        };
        let weight = match &content {
            Content::Scalar(_) => 1,
            Content::Sequence(items) => 1 + items.iter().map(|item| item.weight).sum::<usize>(),
            Content::Mapping(pairs) => 1 + pairs.iter().map(|(_, value)| value.weight).sum::<usize>(),
        };
        let node = Rc::new(Node {
            line,
            weight,
            content,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<Rc<Node>, YamlError> {
        let node = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| limit(line, "an alias refers to the value that holds it".to_owned()))?;
        self.aliased = self.aliased.saturating_add(node.weight);
        if self.aliased > MAX_ALIASED_NODES {
            return Err(limit(
                line,
                format!("the aliases stand for more than {MAX_ALIASED_NODES} values"),
            ));
        }
        Ok(Rc::clone(node))
    }

    fn sequence(&mut self, span: &Span, depth: usize) -> Result<Content, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.expect(span)? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, span: &Span, depth: usize) -> Result<Content, YamlError> {
        let mut pairs: Vec<(Segment, Rc<Node>)> = Vec::new();
        let mut seen: HashMap<Rc<str>, usize> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = match self.expect(span)? {
                (Event::MappingEnd, _) => break,
                other => other,
            };
            let line = key_span.start.line();
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = self.node(event, key_span, depth + 1)?;
            let Content::Scalar(text) = &key.content else {
                return Err(limit(line, "a list or mapping as key; keys are texts".to_owned()));
            };
            if text.is_empty() {
                return Err(limit(line, "an empty key".to_owned()));
            }
            let (event, value_span) = self.expect(span)?;
            let value = self.node(event, value_span, depth + 1)?;
            if plain && text == "<<" {
                merged.push(value);
                continue;
            }
            let text: Rc<str> = Rc::from(text.as_str());
            if let Some(first) = seen.insert(Rc::clone(&text), line) {
                return Err(duplicate(line, excerpt(&text), first));
            }
            pairs.push((Segment { text, line }, value));
        }
        let mut own = seen.into_keys().collect();
        for value in merged {
            merge(&value, &mut own, &mut pairs)?;
        }
        Ok(Content::Mapping(pairs))
    }
}

/// `<<: *other`: takes over the entries that the mapping does not have itself.
fn merge(
    value: &Node,
    own: &mut HashSet<Rc<str>>,
    pairs: &mut Vec<(Segment, Rc<Node>)>,
) -> Result<(), YamlError> {
    match &value.content {
        Content::Mapping(inherited) => {
            for (key, value) in inherited {
                if own.insert(Rc::clone(&key.text)) {
                    pairs.push((key.clone(), Rc::clone(value)));
                }
            }
            Ok(())
        }
        Content::Sequence(items) => items.iter().try_for_each(|item| merge(item, own, pairs)),
        Content::Scalar(_) => Err(limit(value.line, "`<<` merges mappings, not a text".to_owned())),
    }
}

fn scalar(text: &str, style: ScalarStyle) -> String {
    let null = style == ScalarStyle::Plain && matches!(text, "~" | "null" | "Null" | "NULL");
    if null { String::new() } else { text.to_owned() }
}

fn flatten(root: &Node) -> Result<Vec<Entry>, YamlError> {
    let mut entries = Vec::new();
    match &root.content {
        Content::Mapping(_) => walk(root, &mut Vec::new(), &mut entries)?,
        Content::Scalar(text) if text.is_empty() => {}
        _ => {
            return Err(limit(
                root.line,
                "the text is not a mapping of keys to values".to_owned(),
            ));
        }
    }
    Ok(entries)
}

fn walk(node: &Node, path: &mut Vec<Segment>, entries: &mut Vec<Entry>) -> Result<(), YamlError> {
    let leaf = match &node.content {
        Content::Mapping(pairs) if !pairs.is_empty() => {
            for (key, value) in pairs {
                let depth = path.len();
                path.extend(
                    split(&key.text)
                        .into_iter()
                        .map(|text| Segment { text, line: key.line }),
                );
                if path.len() > MAX_PARTS || path.iter().map(|part| part.text.len()).sum::<usize>() > MAX_PATH
                {
                    return Err(limit(
                        key.line,
                        format!("a key longer than {MAX_PATH} bytes or {MAX_PARTS} parts"),
                    ));
                }
                walk(value, path, entries)?;
                path.truncate(depth);
            }
            return Ok(());
        }
        Content::Mapping(_) => Leaf::Empty,
        Content::Scalar(text) => Leaf::Text(text.trim().to_owned()),
        Content::Sequence(items) => list(items),
    };
    entries.push(Entry {
        path: path.clone(),
        leaf,
        line: node.line,
    });
    Ok(())
}

fn list(items: &[Rc<Node>]) -> Leaf {
    let texts: Option<Vec<String>> = items
        .iter()
        .map(|item| match &item.content {
            Content::Scalar(text) => Some(text.trim().to_owned()),
            _ => None,
        })
        .collect();
    texts.map_or(Leaf::Nested, Leaf::List)
}

/// The parts of a dotted key; `[a.b]` is one part, as in Spring.
pub(crate) fn split(key: &str) -> Vec<Rc<str>> {
    let mut parts = vec![String::new()];
    let mut bracketed = false;
    for c in key.chars() {
        match c {
            '[' if !bracketed => {
                bracketed = true;
                if parts.last().is_some_and(|part| !part.is_empty()) {
                    parts.push(String::new());
                }
            }
            ']' if bracketed => bracketed = false,
            '.' if !bracketed => parts.push(String::new()),
            c => {
                if let Some(part) = parts.last_mut() {
                    part.push(c);
                }
            }
        }
    }
    parts.into_iter().map(Rc::from).collect()
}

fn syntax(error: &ScanError) -> YamlError {
    let column = error.marker().col() + 1;
    limit(
        error.marker().line(),
        format!("not YAML: {} (column {column})", error.info()),
    )
}

fn limit(line: usize, message: String) -> YamlError {
    YamlError {
        line,
        path: String::new(),
        message,
        duplicate: false,
    }
}

fn duplicate(line: usize, path: String, first: usize) -> YamlError {
    let message = format!("given twice in one mapping, first in line {first}; keep one of the two");
    YamlError {
        line,
        path,
        message,
        duplicate: true,
    }
}

#[cfg(test)]
mod tests;
