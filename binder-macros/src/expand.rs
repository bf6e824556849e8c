//! The function unchanged, and a registration beside it.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{ItemFn, ReturnType, Type, spanned::Spanned};

use crate::{
    attributes::Attributes,
    check::{Checked, Role, check, role_of},
};

pub(crate) fn expand(role: Role, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let checked = Attributes::parse(role, arguments).and_then(|attributes| {
        check(role, item.clone()).map(|checked| registration(role, &attributes, checked))
    });
    checked.unwrap_or_else(|error| {
        let (item, error) = (without_roles(item), error.into_compile_error());
        quote! { #item #error }
    })
}

/// On an error the function stays, so that nothing else in the file fails because it is missing; a second
/// attribute does not, so that it does not complain as well.
fn without_roles(item: TokenStream) -> TokenStream {
    match syn::parse2::<ItemFn>(item.clone()) {
        Ok(mut function) => {
            function.attrs.retain(|attribute| role_of(attribute).is_none());
            quote!(#function)
        }
        Err(_) => item,
    }
}

fn registration(role: Role, attributes: &Attributes, checked: Checked) -> TokenStream {
    let Checked { item, arguments } = checked;
    let function = &item.sig.ident;
    let name = attributes
        .name
        .as_ref()
        .map_or_else(|| quoted_name(function), |name| quote!(#name));
    let private = quote!(::stream_binder::__private);
    let (source, source_type) = match role {
        Role::Supplier => (quote!(&()), quote!(())),
        Role::Consumer | Role::Function => (quote!(__delivery), quote!(#private::Delivery)),
    };
    let values: Vec<_> = (0..arguments.len())
        .map(|index| format_ident!("__argument_{index}"))
        .collect();
    // All spans are those of the type, and an alias stands for its tokens: an argument that is no extractor is
    // underlined where it is written, and the compiler finds one error to report, not one per token.
    let types: Vec<_> = arguments
        .iter()
        .enumerate()
        .map(|(n, ty)| format_ident!("__Argument{n}", span = ty.span()))
        .collect();
    let aliases = types
        .iter()
        .zip(&arguments)
        .map(|(alias, ty)| quote_spanned!(ty.span()=> type #alias = #ty;));
    let extract = values.iter().zip(&types).map(|(value, ty)| {
        quote_spanned! {ty.span()=>
            let #value = <#ty as ::stream_binder::__private::Argument<#source_type>>::extract(#source, __cx).await?;
        }
    });
    let require = types.iter().map(|ty| {
        quote_spanned! {ty.span()=> (&#private::probe::Probe::<#ty, #source_type>::new()).require(&mut __requirements); }
    });
    let convert = match role {
        Role::Consumer => quote!(ConsumerReturn),
        Role::Function | Role::Supplier => quote!(FunctionReturn),
    };
    let returned = returned_span(&item.sig.output, function.span());
    let answer = quote_spanned! {returned=> ::stream_binder::__private::#convert::convert(__returned) };
    let body = quote_spanned! {function.span()=>
        ::std::boxed::Box::pin(async move {
            #(#extract)*
            let __returned = #function(#(#values),*).await;
            #answer
        })
    };
    let make = match role {
        Role::Consumer => quote!(#private::consumer(#name, |__delivery, __cx| #body, __requirements)),
        Role::Function => quote!(#private::function(#name, |__delivery, __cx| #body, __requirements)),
        Role::Supplier => quote!(#private::supplier(#name, |__cx| #body, __requirements)),
    };
    let binding = attributes
        .binding
        .iter()
        .map(|binding| quote!(.binding(#binding)));
    let output = attributes.output.iter().map(|output| quote!(.output(#output)));
    let every = attributes
        .every_millis
        .iter()
        .map(|millis| quote!(.every(::std::time::Duration::from_millis(#millis))));
    let traits = if arguments.is_empty() {
        TokenStream::new()
    } else {
        quote!(
            use #private::probe::*;
        )
    };
    let unused = if arguments.is_empty() {
        quote!(let _ = &mut __requirements;)
    } else {
        TokenStream::new()
    };
    quote! {
        // The attribute asks for `async`, whether the function awaits anything or not.
        #[allow(clippy::unused_async)]
        #item

        const _: () = {
            #(#aliases)*
            fn __make() -> #private::Function {
                #traits
                let mut __requirements = #private::Requirements::default();
                #unused
                #(#require)*
                #private::at(#make, ::core::file!(), ::core::line!()) #(#binding)* #(#output)* #(#every)*
            }
            #private::inventory::submit! { #private::Registration::new(__make) }
        };
    }
}

/// `r#type` is the function `type`.
fn quoted_name(function: &syn::Ident) -> TokenStream {
    let name = function.to_string();
    let name = name.strip_prefix("r#").unwrap_or(&name);
    quote!(#name)
}

fn returned_span(output: &ReturnType, otherwise: Span) -> Span {
    match output {
        ReturnType::Default => otherwise,
        ReturnType::Type(_, returned) => Type::span(returned),
    }
}
