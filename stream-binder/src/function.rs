//! Functions: what users write, and how one becomes a handler of deliveries.
//!
//! A function is an async function whose arguments are [extractors](extract) and whose return value says
//! what is sent and whether the message is done with. An attribute (`#[consumer]`, `#[function]`,
//! `#[supplier]`) announces it at link time; [`Function::consumer`], [`Function::function`] and
//! [`Function::supplier`] wrap one by hand, for closures, generic functions and tests.

pub(crate) mod context;
pub(crate) mod convert;
pub(crate) mod extract;
pub(crate) mod handler;
pub(crate) mod output;
pub(crate) mod pipeline;
pub(crate) mod poller;
pub(crate) mod registry;

use std::{borrow::Cow, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    delivery::Delivery,
    failure::Failure,
    function::{
        context::{Context, Requirements},
        handler::{Handler, Source},
        output::{IntoOutcome, IntoOutput, Output},
    },
};

/// A boxed future, as generated code makes it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) type Invoke =
    Arc<dyn for<'a> Fn(&'a Delivery, &'a Context) -> BoxFuture<'a, Result<Output, Failure>> + Send + Sync>;
pub(crate) type Poll =
    Arc<dyn for<'a> Fn(&'a Context) -> BoxFuture<'a, Result<Output, Failure>> + Send + Sync>;

/// What a function does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Receives and sends nothing by itself.
    Consumer,
    /// Receives, and sends what it returns.
    Function,
    /// Is polled, and sends what it returns.
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

/// A named function, ready to be [registered](crate::App::register).
#[derive(Clone)]
#[must_use = "a function does nothing until it is registered with an App"]
pub struct Function {
    pub(crate) name: Cow<'static, str>,
    pub(crate) role: Role,
    pub(crate) input: Option<Cow<'static, str>>,
    pub(crate) output: Option<Cow<'static, str>>,
    pub(crate) every: Option<Duration>,
    pub(crate) place: Option<(&'static str, u32)>,
    pub(crate) body: Body,
    pub(crate) requirements: Requirements,
}

#[derive(Clone)]
pub(crate) enum Body {
    Invoke(Invoke),
    Poll(Poll),
}

impl Function {
    /// A consumer by hand: what `#[consumer]` does for a function that it can see.
    ///
    /// ```
    /// use stream_binder::{Function, Text};
    ///
    /// let greeter = Function::consumer("greeter", |Text(name): Text| async move { println!("hello {name}") });
    /// assert_eq!(greeter.name(), "greeter");
    /// ```
    pub fn consumer<H, Args>(name: impl Into<Cow<'static, str>>, handler: H) -> Self
    where
        H: Handler<Delivery, Args>,
        H::Output: IntoOutcome,
    {
        let handler = Arc::new(handler);
        let invoke: Invoke = Arc::new(move |delivery, cx| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let returned = handler.call(delivery, cx).await?;
                returned.into_outcome().map(|()| Output::none())
            })
        });
        Self::new(
            name,
            Role::Consumer,
            Body::Invoke(invoke),
            requirements::<H, Delivery, Args>(),
        )
    }

    /// A function by hand: what `#[function]` does.
    #[expect(
        clippy::self_named_constructors,
        reason = "named like its role, as its two siblings are"
    )]
    pub fn function<H, Args>(name: impl Into<Cow<'static, str>>, handler: H) -> Self
    where
        H: Handler<Delivery, Args>,
        H::Output: IntoOutput,
    {
        let handler = Arc::new(handler);
        let invoke: Invoke = Arc::new(move |delivery, cx| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.call(delivery, cx).await?.into_output() })
        });
        Self::new(
            name,
            Role::Function,
            Body::Invoke(invoke),
            requirements::<H, Delivery, Args>(),
        )
    }

    /// A supplier by hand: what `#[supplier]` does. Its arguments are extractors that need no message:
    /// [`State`](crate::State) and [`StreamBridge`](crate::StreamBridge).
    pub fn supplier<H, Args>(name: impl Into<Cow<'static, str>>, handler: H) -> Self
    where
        H: Handler<(), Args>,
        H::Output: IntoOutput,
    {
        let handler = Arc::new(handler);
        let poll: Poll = Arc::new(move |cx| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.call(&(), cx).await?.into_output() })
        });
        Self::new(
            name,
            Role::Supplier,
            Body::Poll(poll),
            requirements::<H, (), Args>(),
        )
    }

    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        role: Role,
        body: Body,
        requirements: Requirements,
    ) -> Self {
        Self {
            name: name.into(),
            role,
            input: None,
            output: None,
            every: None,
            place: None,
            body,
            requirements,
        }
    }

    /// The function's name in `spring.cloud.function.definition`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does with messages.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Names the binding instead of `<name>-in-0` (of a supplier: instead of `<name>-out-0`).
    pub fn binding(mut self, binding: impl Into<Cow<'static, str>>) -> Self {
        match self.role {
            Role::Supplier => self.output = Some(binding.into()),
            Role::Consumer | Role::Function => self.input = Some(binding.into()),
        }
        self
    }

    /// Names the binding to which a function or supplier sends instead of `<name>-out-0`.
    pub fn output(mut self, binding: impl Into<Cow<'static, str>>) -> Self {
        self.output = Some(binding.into());
        self
    }

    /// How long a supplier rests between two polls, where no `poller.fixed-delay` is configured. Default 1 s.
    pub fn every(mut self, delay: Duration) -> Self {
        self.every = Some(delay);
        self
    }

    pub(crate) fn place(mut self, file: &'static str, line: u32) -> Self {
        self.place = Some((file, line));
        self
    }

    /// Implicit or given name of the binding from which it receives.
    pub(crate) fn input_binding(&self) -> Option<String> {
        match (self.role, &self.input) {
            (Role::Supplier, _) => None,
            (_, Some(name)) => Some(name.clone().into_owned()),
            (_, None) => Some(format!("{}-in-0", self.name)),
        }
    }

    /// Implicit or given name of the binding to which it sends.
    pub(crate) fn output_binding(&self) -> Option<String> {
        match (self.role, &self.output) {
            (Role::Consumer, _) => None,
            (_, Some(name)) => Some(name.clone().into_owned()),
            (_, None) => Some(format!("{}-out-0", self.name)),
        }
    }

    /// "consumer `orders` (src/main.rs:12)".
    pub(crate) fn described(&self) -> String {
        match self.place {
            Some((file, line)) => format!("{} `{}` ({file}:{line})", self.role, self.name),
            None => format!("{} `{}`", self.role, self.name),
        }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("input", &self.input_binding())
            .field("output", &self.output_binding())
            .finish_non_exhaustive()
    }
}

fn requirements<H, S, Args>() -> Requirements
where
    H: Handler<S, Args>,
    S: Source,
{
    let mut requirements = Requirements::default();
    H::require(&mut requirements);
    requirements
}
