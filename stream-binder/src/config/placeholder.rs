//! `${name:default}` in values.
//!
//! A reference is replaced by the value of its name, whose own references are replaced in turn; a name that leads
//! back to itself, a text that grows beyond bounds, and a name nobody knows are errors. Nothing is executed and no
//! file is read. `\${` stands for the two characters themselves.

/// Deepest chain of references, and of defaults inside defaults.
const MAX_DEPTH: usize = 32;
/// Longest result in bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// Most references followed for one value.
const MAX_REFERENCES: usize = 1_000;

/// Replaces every reference in `text`; `lookup` gives the raw text of a name.
pub(crate) fn resolve(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if !text.contains("${") {
        return Ok(text.to_owned());
    }
    let mut resolver = Resolver {
        lookup,
        open: Vec::new(),
        references: 0,
    };
    resolver.text(text, 0)
}

struct Resolver<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Names whose values are being resolved, outermost first.
    open: Vec<String>,
    references: usize,
}

impl Resolver<'_> {
    fn text(&mut self, mut rest: &str, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!("placeholders are nested deeper than {MAX_DEPTH} levels"));
        }
        let mut out = String::new();
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('\\') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let (body, remainder) =
                close(after).ok_or_else(|| "a placeholder `${` is not closed by `}`".to_owned())?;
            out.push_str(&self.reference(body, depth)?);
            if out.len() > MAX_LENGTH {
                return Err(format!("placeholders expand to more than {MAX_LENGTH} bytes"));
            }
            rest = remainder;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The value of `name` or `name:default`, without the braces.
    fn reference(&mut self, body: &str, depth: usize) -> Result<String, String> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(format!(
                "more than {MAX_REFERENCES} placeholders stand behind this value"
            ));
        }
        let (name, default) = match default_at(body) {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        let name = self.text(name, depth + 1)?.trim().to_owned();
        if name.is_empty() {
            return Err("a placeholder without a name".to_owned());
        }
        if self.open.contains(&name) {
            return Err(format!(
                "placeholder ${{{name}}} refers to itself: {} -> {name}",
                self.open.join(" -> ")
            ));
        }
        if let Some(value) = (self.lookup)(&name) {
            self.open.push(name);
            let resolved = self.text(&value, depth + 1);
            self.open.pop();
            return resolved;
        }
        match default {
            Some(default) => self.text(default, depth + 1),
            None => Err(format!(
                "placeholder ${{{name}}} has no value: set the environment variable or the key, or give a default \
                 as in ${{{name}:value}}"
            )),
        }
    }
}

/// Splits at the `}` that closes the reference whose body starts `text`.
fn close(text: &str) -> Option<(&str, &str)> {
    let mut open = 1_usize;
    let mut previous = '\0';
    for (index, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' => {
                open -= 1;
                if open == 0 {
                    let (body, rest) = text.split_at_checked(index)?;
                    return Some((body, rest.strip_prefix('}')?));
                }
            }
            _ => {}
        }
        previous = c;
    }
    None
}

/// Splits at the first `:` outside of inner references.
fn default_at(body: &str) -> Option<(&str, &str)> {
    let mut open = 0_usize;
    let mut previous = '\0';
    for (index, c) in body.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' => open = open.saturating_sub(1),
            ':' if open == 0 => {
                let (name, rest) = body.split_at_checked(index)?;
                return Some((name, rest.strip_prefix(':')?));
            }
            _ => {}
        }
        previous = c;
    }
    None
}

#[cfg(test)]
mod tests;
