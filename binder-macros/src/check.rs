//! What can be seen in the tokens of a function before any type is known.

use std::fmt;

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, FnArg, ItemFn, ReturnType, Type, spanned::Spanned};

/// Which attribute it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Consumer,
    Function,
    Supplier,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consumer => "consumer",
            Self::Function => "function",
            Self::Supplier => "supplier",
        })
    }
}

/// A function that looks right.
pub(crate) struct Checked {
    pub(crate) item: ItemFn,
    pub(crate) arguments: Vec<Type>,
}

pub(crate) fn check(role: Role, tokens: TokenStream) -> syn::Result<Checked> {
    let item: ItemFn = syn::parse2(tokens)
        .map_err(|error| syn::Error::new(error.span(), format!("`#[{role}]` goes on an async function")))?;
    let name = &item.sig.ident;
    if let Some(other) = item.attrs.iter().find_map(role_of) {
        let text = format!("`{name}` has a second binding attribute; keep one, a function has one role");
        return Err(syn::Error::new(other, text));
    }
    signature(role, &item)?;
    let arguments = item
        .sig
        .inputs
        .iter()
        .map(|argument| typed(role, &item, argument))
        .collect::<Result<_, _>>()?;
    Ok(Checked { item, arguments })
}

/// Where an attribute that binds the function stands.
pub(crate) fn role_of(attribute: &Attribute) -> Option<Span> {
    let last = attribute.path().segments.last()?;
    ["consumer", "function", "supplier"]
        .iter()
        .any(|role| last.ident == role)
        .then(|| attribute.span())
}

fn signature(role: Role, item: &ItemFn) -> syn::Result<()> {
    let signature = &item.sig;
    let name = &signature.ident;
    if signature.asyncness.is_none() {
        let text = format!("`{name}` must be async: write `async fn {name}`");
        return Err(syn::Error::new(signature.fn_token.span, text));
    }
    if let Some(generic) = signature.generics.params.first() {
        return Err(syn::Error::new(generic.span(), generic_text(role, item)));
    }
    if let Some(unsafety) = signature.unsafety {
        return Err(syn::Error::new(
            unsafety.span,
            format!("`{name}` must not be unsafe: write `async fn {name}`"),
        ));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(syn::Error::new(
            variadic.span(),
            format!("`{name}` must name its arguments"),
        ));
    }
    let returns_nothing = match &signature.output {
        ReturnType::Default => true,
        ReturnType::Type(_, returned) => matches!(&**returned, Type::Tuple(tuple) if tuple.elems.is_empty()),
    };
    match role {
        Role::Function if returns_nothing => {
            let text =
                format!("`{name}` returns nothing to send: make it a `#[consumer]`, or return a value");
            Err(syn::Error::new(name.span(), text))
        }
        Role::Supplier if returns_nothing => {
            let text = format!("`{name}` returns nothing to send: return a value, an `Option` or a `Vec`");
            Err(syn::Error::new(name.span(), text))
        }
        _ => Ok(()),
    }
}

fn generic_text(role: Role, item: &ItemFn) -> String {
    let name = &item.sig.ident;
    format!(
        "`{name}` must not be generic: register it by hand, `App::register(Function::{role}(\"{name}\", {name}::<..>))`"
    )
}

fn typed(role: Role, item: &ItemFn, argument: &FnArg) -> syn::Result<Type> {
    let name = &item.sig.ident;
    match argument {
        FnArg::Receiver(receiver) => {
            let text = format!(
                "`{name}` takes `self`: a {role} is a free function; take shared values as `State<T>`"
            );
            Err(syn::Error::new(receiver.span(), text))
        }
        FnArg::Typed(argument) => match &*argument.ty {
            Type::ImplTrait(generic) => Err(syn::Error::new(generic.span(), generic_text(role, item))),
            Type::Reference(reference) => {
                let text = format!("`{name}` takes a reference: extractors are taken by value, without `&`");
                Err(syn::Error::new(reference.span(), text))
            }
            other => Ok(other.clone()),
        },
    }
}
