//! The keys between the parentheses of an attribute.

use proc_macro2::{Span, TokenStream};
use syn::{
    Expr, ExprLit, Ident, Lit, LitStr, MetaNameValue, Token,
    parse::{Parse, ParseStream, Parser},
    punctuated::Punctuated,
    spanned::Spanned,
};

use crate::check::Role;

/// What an attribute says.
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) name: Option<LitStr>,
    pub(crate) binding: Option<LitStr>,
    pub(crate) output: Option<LitStr>,
    pub(crate) every_millis: Option<u64>,
}

impl Role {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Consumer => &["name", "binding"],
            Self::Function => &["name", "binding", "output"],
            Self::Supplier => &["name", "binding", "every"],
        }
    }
}

/// One `key = value`, with a good error where it is something else.
struct Pair(MetaNameValue);

impl Parse for Pair {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let span = input.span();
        input.parse().map(Self).map_err(|_| {
            syn::Error::new(
                span,
                "expected `key = \"value\"`, for instance `binding = \"orders-in-0\"`",
            )
        })
    }
}

impl Attributes {
    pub(crate) fn parse(role: Role, tokens: TokenStream) -> syn::Result<Self> {
        let pairs = Punctuated::<Pair, Token![,]>::parse_terminated.parse2(tokens)?;
        let mut attributes = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        for Pair(pair) in pairs {
            let key = key(role, &pair)?;
            if seen.contains(&key) {
                return Err(syn::Error::new(
                    key.span(),
                    format!("`{key}` is given twice; keep one"),
                ));
            }
            let value = text(&key, &pair.value)?;
            match key.to_string().as_str() {
                "every" => attributes.every_millis = Some(duration(&value)?),
                "binding" => attributes.binding = Some(value),
                "output" => attributes.output = Some(value),
                _ => attributes.name = Some(function_name(value)?),
            }
            seen.push(key);
        }
        Ok(attributes)
    }
}

fn key(role: Role, pair: &MetaNameValue) -> syn::Result<Ident> {
    let keys = role.keys();
    let Some(key) = pair.path.get_ident() else {
        return Err(syn::Error::new(
            pair.path.span(),
            format!("expected one of the keys {}", list(keys)),
        ));
    };
    if keys.iter().any(|known| key == known) {
        return Ok(key.clone());
    }
    let written = key.to_string();
    let elsewhere = match written.as_str() {
        "output" => Some("only `#[function]` has an output beside its `binding`"),
        "every" => Some("only a `#[supplier]` is polled"),
        _ => None,
    };
    let remedy = match (near(&written, keys), elsewhere) {
        (_, Some(elsewhere)) => elsewhere.to_owned(),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => format!("`#[{role}]` knows {}", list(keys)),
    };
    Err(syn::Error::new(
        key.span(),
        format!("unknown key `{written}`; {remedy}"),
    ))
}

fn list(keys: &[&str]) -> String {
    keys.iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A key that starts alike or has the same letters.
fn near(written: &str, keys: &'static [&'static str]) -> Option<&'static str> {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let start: String = written.chars().take(3).collect();
    keys.iter()
        .copied()
        .find(|key| key.starts_with(&start) || sorted(key) == sorted(written))
}

fn text(key: &Ident, value: &Expr) -> syn::Result<LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) if text.value().trim().is_empty() => Err(syn::Error::new(
            text.span(),
            format!("`{key}` is empty; leave it out for the default"),
        )),
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) => Ok(text.clone()),
        other => Err(syn::Error::new(
            other.span(),
            format!("`{key}` takes a text: write `{key} = \"..\"`"),
        )),
    }
}

/// A function's name may not hold what separates names in a definition.
fn function_name(name: LitStr) -> syn::Result<LitStr> {
    if name.value().contains([';', '|', ',', ' ']) {
        return Err(syn::Error::new(
            name.span(),
            "a function's name holds none of `;`, `|`, `,` and blank",
        ));
    }
    Ok(name)
}

fn duration(text: &LitStr) -> syn::Result<u64> {
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|millis| *millis > 0);
    millis.ok_or_else(|| unreadable_duration(&value, text.span()))
}

fn unreadable_duration(value: &str, span: Span) -> syn::Error {
    syn::Error::new(
        span,
        format!("cannot read the duration `{value}`: write `500ms`, `1s`, `2m` or `1h`"),
    )
}
