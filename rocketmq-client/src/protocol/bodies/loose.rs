//! fastjson's JSON and the standard's.
//!
//! Java writes map keys that are numbers without quotes (`{0:"a"}`) and map keys that are objects as objects
//! (`{{"topic":"t"}:1}`). [`tighten`] turns both into string keys, which serde can read; [`loosen`] and
//! [`unquote_numbers`] turn them back for peers that expect Java's form.

use std::borrow::Cow;

/// Rewrites loose keys as strings; standard JSON is returned as it is.
///
/// Never fails: what is no JSON comes out as no JSON, for the parser to refuse.
#[must_use]
pub fn tighten(json: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut scan = Scan::new(json);
    while let Some(key) = scan.next_key() {
        let Key { start, end, kind } = key;
        if kind == KeyKind::String {
            continue;
        }
        let text = json.get(start..end).unwrap_or_default();
        let out = out.get_or_insert_with(|| Vec::with_capacity(json.len() + json.len() / 8));
        out.extend_from_slice(json.get(copied..start).unwrap_or_default());
        out.push(b'"');
        for &byte in text {
            // Between the members of a key there may be line ends: files have them. In strings they are escaped.
            if byte < b' ' {
                continue;
            }
            if byte == b'"' || byte == b'\\' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
        copied = end;
    }
    match out {
        None => Cow::Borrowed(json),
        Some(mut out) => {
            out.extend_from_slice(json.get(copied..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

/// Rewrites string keys that hold an object as objects.
#[must_use]
pub fn loosen(json: String) -> String {
    if !json.contains("\"{\\\"") {
        return json;
    }
    rewrite_string_keys(&json, |key| {
        if !key.starts_with("\"{") {
            return None;
        }
        serde_json::from_str::<String>(key).ok()
    })
}

/// Rewrites string keys that are whole numbers without their quotes, as old name servers do.
#[must_use]
pub fn unquote_numbers(json: &str) -> String {
    rewrite_string_keys(json, |key| {
        let inner = key.strip_prefix('"')?.strip_suffix('"')?;
        inner.parse::<i64>().is_ok().then(|| inner.to_owned())
    })
}

fn rewrite_string_keys(json: &str, rewrite: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(json.len());
    let mut copied = 0;
    let mut scan = Scan::new(json.as_bytes());
    while let Some(Key { start, end, .. }) = scan.next_key() {
        if let Some(new) = json.get(start..end).and_then(&rewrite) {
            out.push_str(json.get(copied..start).unwrap_or_default());
            out.push_str(&new);
            copied = end;
        }
    }
    out.push_str(json.get(copied..).unwrap_or_default());
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    String,
    Bare,
    Object,
}

struct Key {
    start: usize,
    end: usize,
    kind: KeyKind,
}

/// Walks over JSON and stops at every key of an object.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    /// Whether each open bracket is an object's.
    open: Vec<bool>,
    key_next: bool,
}

impl<'a> Scan<'a> {
    fn new(json: &'a [u8]) -> Self {
        Self {
            json,
            at: 0,
            open: Vec::new(),
            key_next: false,
        }
    }

    fn next_key(&mut self) -> Option<Key> {
        loop {
            let byte = *self.json.get(self.at)?;
            if byte.is_ascii_whitespace() {
                self.at += 1;
                continue;
            }
            if self.key_next && byte != b'}' {
                return Some(self.key(byte));
            }
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    self.open.push(byte == b'{');
                    self.key_next = byte == b'{';
                    self.at += 1;
                }
                b'}' | b']' => {
                    self.open.pop();
                    self.key_next = false;
                    self.at += 1;
                }
                b',' => {
                    self.key_next = self.open.last().copied().unwrap_or(false);
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    fn key(&mut self, first: u8) -> Key {
        let start = self.at;
        let kind = match first {
            b'"' => {
                self.skip_string();
                KeyKind::String
            }
            b'{' => {
                self.skip_object();
                KeyKind::Object
            }
            _ => {
                while self
                    .json
                    .get(self.at)
                    .is_some_and(|&b| !matches!(b, b':' | b',' | b'}') && !b.is_ascii_whitespace())
                {
                    self.at += 1;
                }
                KeyKind::Bare
            }
        };
        // A key of no length (a stray separator) must not stop the walk.
        if self.at == start {
            self.at += 1;
        }
        self.key_next = false;
        Key {
            start,
            end: self.at,
            kind,
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(&byte) = self.json.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        self.at = self.at.min(self.json.len());
    }

    fn skip_object(&mut self) {
        let mut depth = 0usize;
        while let Some(&byte) = self.json.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tight(json: &str) -> String {
        String::from_utf8(tighten(json.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn javas_keys_become_strings_and_back() {
        let loose = r#"{"a":{0:"x",-1:[1,{2:3}]},"t":{{"brokerName":"b","queueId":0,"topic":"T"}:10,{"topic":"}"}:{}}}"#;
        let strict = r#"{"a":{"0":"x","-1":[1,{"2":3}]},"t":{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"T\"}":10,"{\"topic\":\"}\"}":{}}}"#;
        assert_eq!(tight(loose), strict);
        assert_eq!(unquote_numbers(&loosen(strict.to_owned())), loose);
    }

    #[test]
    fn keys_may_go_over_several_lines() {
        let loose = "{\n\t{\n\t\t\"topic\":\"T\"\n\t}:10}";
        assert_eq!(tight(loose), "{\n\t\"{\\\"topic\\\":\\\"T\\\"}\":10}");
    }

    #[test]
    fn standard_json_is_not_copied() {
        let json = br#"{"a":[1,"{",{"b":null}],"c:,}":"\\\""}"#;
        assert!(matches!(tighten(json), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn no_input_panics_or_hangs(json in "[{}\\[\\]\",:0-9a\\\\ ]{0,80}") {
            let _ = tight(&json);
            let _ = unquote_numbers(&json);
            let _ = loosen(json);
        }
    }
}
